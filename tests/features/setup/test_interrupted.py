"""A setup that is killed, interrupted, or finds a full disk, at each of its writes."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.features.setup.world import Host, allow_any_reader, make_host
from tests.support.pbx_machine import differing

from ringfence.errors import FirewallError, OutputError, SetupError
from ringfence.features.setup import command as setup_command
from ringfence.features.setup import session
from ringfence.features.setup.command import SetupRun

pytestmark = pytest.mark.kernel  # changes owners of files, which needs root

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"})
_DONE, _REFUSED = 0, 3

_hook: list[Callable[[], None]] = []
"""The function to call at each write of the process; empty in the test itself."""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    """Call the hook before each system call that changes a file. Python cannot remove an audit hook."""
    if not _hook:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in _CHANGES or writes:
        _hook[0]()


@pytest.fixture(scope="session", autouse=True)
def _audited() -> None:
    sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the firewall of this machine alone, and make passwords predictable."""
    monkeypatch.setattr(session, "flush_everything", lambda: None)
    monkeypatch.setattr("os.fsync", lambda _file: None)  # a kill loses nothing that was written
    allow_any_reader(monkeypatch)
    monkeypatch.setattr("secrets.token_hex", lambda _bytes: "ab" * 24)


@pytest.fixture(
    name="host", params=["freepbx-packaged", pytest.param("compiled-venv", marks=pytest.mark.long)]
)
def _host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return hosts of several layouts, with the package and with a venv."""
    layout, kind = request.param.split("-")
    host = make_host(tmp_path, layout, packaged=kind == "packaged")
    monkeypatch.setattr(setup_command, "find", lambda _paths: host.found())
    monkeypatch.setattr(session, "find_asterisk", host.asterisk)
    return host


def run(host: Host, *, undo: bool = False) -> bool:
    """Run setup, or its undo, in this process."""
    command = SetupRun(host.paths, dry_run=False, yes=True)
    return command.undo() if undo else command.setup()


def run_with(host: Host, act: Callable[[int], None], *, undo: bool = False) -> tuple[int, int]:
    """Run in a child that calls ``act`` with the number of each write; return its status and the writes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        numbers = count(1)

        def hook() -> None:
            os.write(writing, b".")
            act(next(numbers))

        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            _hook.append(hook)
            status = _DONE if run(host, undo=undo) else 1
        except SetupError:
            status = _REFUSED
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        writes = len(pipe.read())
    return os.waitpid(child, 0)[1], writes


def kill_at(number: int) -> Callable[[int], None]:
    """Return an action that kills the process before this write."""
    return lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == number else None


# Each write in the long run, otherwise every third: which write it is hardly matters.
TRIED = pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])


@TRIED
def test_after_a_kill_at_any_write_undo_restores_and_a_second_run_completes(host: Host, every: int) -> None:
    """For each write: undo leaves no different file, and a second run has the result of a whole run.

    The second run is tried after each fourth of these kills, in the long run after each.
    """
    clean = host.digest()
    assert run(host)
    complete = host.digest()
    assert run(host, undo=True)
    assert differing(clean, host.digest()) == []
    status, writes = run_with(host, lambda _at: None)
    assert (status, writes > 20) == (0, True)
    assert run(host, undo=True)

    for number in range(1, writes + 1, every):
        assert run_with(host, kill_at(number))[0] == signal.SIGKILL
        assert run(host, undo=True)
        assert (number, differing(clean, host.digest())) == (number, [])
        if every > 1 and number % 4 != 0:
            continue

        assert run_with(host, kill_at(number))[0] == signal.SIGKILL
        assert run(host)
        assert (number, _apart_from_journal(differing(complete, host.digest()))) == (number, [])
        assert run(host, undo=True)
        assert (number, differing(clean, host.digest())) == (number, [])


@TRIED
def test_an_undo_that_is_killed_at_any_write_can_be_repeated(host: Host, every: int) -> None:
    """After a kill of the undo at each write, a second undo leaves no different file."""
    clean = host.digest()
    assert run(host)
    _, writes = run_with(host, lambda _at: None, undo=True)
    assert writes > 5

    for number in range(1, writes + 1, every):
        assert run(host)
        assert run_with(host, kill_at(number), undo=True)[0] == signal.SIGKILL
        assert run(host, undo=True)
        assert (number, differing(clean, host.digest())) == (number, [])


@TRIED
def test_a_disk_that_is_full_for_a_moment_at_any_write_changes_nothing(host: Host, every: int) -> None:
    """If a write fails, setup restores everything automatically, and reports it."""
    clean = host.digest()
    _, writes = run_with(host, lambda _at: None)
    assert run(host, undo=True)

    for number in range(1, writes + 1, every):
        status, _ = run_with(host, fail_from(number, once=True))
        if not differing(clean, host.digest()):
            continue
        assert (number, os.waitstatus_to_exitcode(status)) == (number, _DONE)  # a write that may fail
        assert run(host, undo=True)
        assert (number, differing(clean, host.digest())) == (number, [])


def fail_from(number: int, *, once: bool) -> Callable[[int], None]:
    """Return an action by which this write, or each one from it on, fails because of a full disk."""

    def act(at: int) -> None:
        if at == number or (at > number and not once):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act


@TRIED
def test_a_disk_that_stays_full_is_undone_later(host: Host, every: int) -> None:
    """If restoring fails too, the journal stays, and an undo restores everything when there is room again."""
    clean = host.digest()
    _, writes = run_with(host, lambda _at: None)
    assert run(host, undo=True)

    for number in range(1, writes + 1, every):
        run_with(host, fail_from(number, once=False))
        assert run(host, undo=True)
        assert (number, differing(clean, host.digest())) == (number, [])


@TRIED
def test_an_interrupt_at_any_write_restores_everything(host: Host, every: int) -> None:
    """After Ctrl-C everything is as before, without another command."""
    clean = host.digest()
    _, writes = run_with(host, lambda _at: None)
    assert run(host, undo=True)

    for number in range(1, writes + 1, every):
        interrupt = _interrupt_at(number)
        run_with(host, interrupt)
        if "var/lib/ringfence-setup/journal.json" in host.digest():
            assert run(host, undo=True)  # it came after the last change
        assert (number, differing(clean, host.digest())) == (number, [])


def test_an_incomplete_restore_after_an_interrupt_is_no_success(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the rules stay in the kernel, the error does not claim that everything is as before."""

    def refuse() -> None:
        raise FirewallError("permission denied")

    monkeypatch.setattr(session, "flush_everything", refuse)
    interrupt, numbers = _interrupt_at(20), count(1)
    _hook.append(lambda: interrupt(next(numbers)))
    try:
        with pytest.raises(SetupError, match="interrupted: all but the lines above is as before"):
            run(host)
    finally:
        _hook.clear()
    assert (
        "the rules of ringfence stay in the kernel until a reboot: permission denied"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("number", [1, 2, 3, 4, 20])
def test_after_a_signal_everything_is_as_before(host: Host, number: int) -> None:
    """Whenever the connection is lost, also while the journal is opened: nothing stays."""
    clean = host.digest()
    status, _ = run_with(host, lambda at: os.kill(os.getpid(), signal.SIGHUP) if at == number else None)
    assert os.waitstatus_to_exitcode(status) == _REFUSED
    assert differing(clean, host.digest()) == []


def _interrupt_at(number: int) -> Callable[[int], None]:
    return lambda at: os.kill(os.getpid(), signal.SIGINT) if at == number else None


def _apart_from_journal(names: list[str]) -> list[str]:
    """Return the names without the journal: after an interruption it has entries of both runs."""
    return [name for name in names if not name.startswith("var/lib/ringfence-setup/")]


class _Session:
    """A session of setup that records whether it was taken back."""

    taken = False

    def take_back(self) -> Iterator[str]:
        """Take back nothing, with a problem."""
        self.taken = True
        yield "a file stays"


@pytest.mark.parametrize("error", [BrokenPipeError(), OutputError("the disk is full")])
def test_a_lost_terminal_does_not_keep_setup_from_restoring(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """After Ctrl-C into a pipe, or on a full disk, nothing can be printed; everything is restored."""

    def lost(*_: str) -> None:
        raise error

    monkeypatch.setattr(setup_command, "echo_stderr", lost)
    made = _Session()
    with pytest.raises(SetupError, match="the reason"), setup_command._taken_back_on_error(made):  # type: ignore[arg-type]
        raise SetupError("the reason")

    assert made.taken
