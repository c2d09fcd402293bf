"""`ringfence setup --yes` and its undo on a host in a folder, in a process whose system calls fail.

A run that succeeds leaves the complete result, a run that is refused leaves everything as it was. Whatever
happened, an undo leaves no different file. Asterisk, systemd and the firewall are played.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

from tests.faults.case import SAID_WITHIN, Tried, changed_calls
from tests.faults.values import KILL, Row
from tests.features.setup.world import Host, make_host
from tests.support.faults import injected
from tests.support.pbx_machine import differing

from ringfence.cli.output import checked
from ringfence.errors import RingfenceError
from ringfence.features.setup import command as setup_command
from ringfence.features.setup import session
from ringfence.features.setup.command import SetupRun

SETUPS = ("setup", "undo")
"""The operations."""
_DONE, _PROBLEM, _REFUSED = 0, 1, 3
_PATCHED = "ringfence.features.setup.manager._acting_as"


class SetupBed:
    """A host before setup (``setup``), or after it (``undo``)."""

    def __init__(self, folder: Path, operation: str) -> None:
        self._folder = folder
        self._undoes = operation == "undo"
        self._host = make_host(folder, "freepbx")
        self._clean = self._host.digest()
        self._output = folder / "strace"
        assert self._run(undo=False) == _DONE
        self._complete = self._host.digest()
        if not self._undoes:
            assert self._run(undo=True) == _DONE
            assert differing(self._clean, self._host.digest()) == []
        shutil.copytree(self._host.folder, folder / "saved", symlinks=True)
        _copy_owners(self._host.folder, folder / "saved")

    def try_case(self, row: Row, number: int) -> Tried:
        """Let the call of this number fail during the run; return what was found."""
        tried = Tried()
        self._reset()
        before = self._complete if self._undoes else self._clean
        wanted = self._clean if self._undoes else self._complete
        began = time.monotonic()
        code = self._run(undo=self._undoes, row=row, number=number, tried=tried)
        if not tried.calls:
            return tried
        if time.monotonic() - began > SAID_WITHIN:
            tried.findings.append("slow")
        said = (self._folder / "said").read_text("utf-8", "replace")
        now = self._host.digest()
        if "Traceback" in said:
            tried.findings.append("traceback: in the answer")
        if (code not in {_DONE, _PROBLEM, _REFUSED} or not said) and row.error != KILL:
            tried.findings.append(f"ended: with {code}")
        if code == _DONE and (wrong := _apart_from_journal(differing(wanted, now))):
            tried.findings.append(f"half, although it reported success: {wrong}")
        if code == _REFUSED and not self._undoes and (wrong := differing(before, now)):
            tried.findings.append(f"half, although it was refused: {wrong}")
        if self._run(undo=True) != _DONE or (wrong := differing(self._clean, self._host.digest())):
            tried.findings.append(f"lost: an undo does not restore {wrong}")
        tried.log = said
        return tried

    def _reset(self) -> None:
        shutil.rmtree(self._host.folder)
        shutil.copytree(self._folder / "saved", self._host.folder, symlinks=True)
        _copy_owners(self._folder / "saved", self._host.folder)

    def _run(self, *, undo: bool, row: Row | None = None, number: int = 0, tried: Tried | None = None) -> int:
        """Run setup or its undo in a child, and return its exit code; a negative one is a signal."""
        child = os.fork()
        if child == 0:
            self._be_setup(undo=undo, waits=row is not None)
        if row is not None and tried is not None:
            os.waitpid(child, os.WUNTRACED)
            with injected(child, row.call, row.injection, str(number), output=self._output) as lines:
                os.kill(child, signal.SIGCONT)
                _, status = os.waitpid(child, 0)
            tried.trace = self._output.read_text("utf-8", "replace")
            changed = lines()
            tried.calls += changed_calls(changed)
            tried.is_artefact = bool(changed) and not tried.calls
        else:
            _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def _be_setup(self, *, undo: bool, waits: bool) -> None:
        """Run setup in this child, and end it."""
        code = 1
        try:
            said = os.open(self._folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.stdout, sys.stderr = (checked(os.fdopen(n, "w", 1, closefd=False)) for n in (1, 2))
            with _played(self._host):
                if waits:
                    os.kill(os.getpid(), signal.SIGSTOP)
                run = SetupRun(self._host.paths, dry_run=False, yes=True)
                code = _DONE if (run.undo() if undo else run.setup()) else _PROBLEM
        except RingfenceError as error:
            code = _REFUSED
            os.write(2, f"{error}\n".encode())
        except BaseException:  # noqa: BLE001 - as the interpreter does at its end
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)


@contextmanager
def _played(host: Host) -> Iterator[None]:
    """Play Asterisk, systemd and the firewall, and make passwords predictable."""
    with ExitStack() as stack:
        for where, name, value in (
            (session, "flush_everything", lambda: None),
            (session, "find_asterisk", host.asterisk),
            (setup_command, "find", lambda _paths: host.found()),
        ):
            stack.enter_context(patch.object(where, name, value))
        stack.enter_context(patch(_PATCHED, lambda _user: nullcontext()))
        stack.enter_context(patch.object(Host, "_answer", _answered))
        stack.enter_context(patch("secrets.token_hex", lambda _bytes: "ab" * 24))
        yield


_ANSWER = Host._answer


def _answered(host: Host, command: str) -> str | None:
    """Return what Asterisk answers, whose own calls do not fail."""
    try:
        return _ANSWER(host, command)
    except OSError:
        return _ANSWER(host, command)


def _copy_owners(source: Path, target: Path) -> None:
    """Give the copies of files and folders their owners."""
    for path in (source, *source.rglob("*")):
        status = path.lstat()
        os.lchown(target / path.relative_to(source), status.st_uid, status.st_gid)


def _apart_from_journal(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("var/lib/ringfence-setup/")]
