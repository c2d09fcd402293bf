"""A real Asterisk, run from a common tree of files that is never changed.

The tree is a minimal Debian with Asterisk in it, made by ``make lab``. Each instance has its own folders
for configuration, run, log, library and spool, bound over those of the tree in its own mount namespace.
So many instances can run from one tree, and the mounts end with the process. ``ip netns exec`` creates
that mount namespace (its mounts do not propagate). Each program of the chain replaces the one before it,
so the process that was started *is* Asterisk.
"""

import contextlib
import os
import pty
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.support import asterisk_files
from tests.support.asterisk_files import CERTIFICATE_NAME, Kind
from tests.support.network import inside, owner_is_gone
from tests.support.process import cpu_seconds

DEFAULT_LAB = "/var/cache/ringfence-lab"
SECRET = "manager-secret"

_BOOT_SECONDS = 60.0
_STOP_SECONDS = 5.0
_OVERLAID = {
    "etc": "etc/asterisk",
    "run": "run",
    "log": "var/log/asterisk",
    "lib": "var/lib/asterisk",
    "spool": "var/spool/asterisk",
}
_LAUNCH = """\
set -eu
tree=$1 own=$2
for pair in {pairs}; do mount --bind "$own/${{pair%%:*}}" "$tree/${{pair#*:}}"; done
mount --bind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
exec chroot "$tree" /usr/sbin/asterisk $3 -U asterisk -G asterisk
""".format(pairs=" ".join(f"{own}:{path}" for own, path in _OVERLAID.items()))


class AsteriskError(Exception):
    """Asterisk did not start, or a command to it failed."""


def tree_of(release: str) -> Path:
    """Return the path of a release's tree (``16`` or ``22``), which may not exist yet."""
    return Path(os.environ.get("RINGFENCE_LAB", DEFAULT_LAB), release)


def is_tree(tree: Path) -> bool:
    """Whether an Asterisk can be started from ``tree``."""
    return (tree / "usr/sbin/asterisk").is_file()


class Asterisk:
    """One Asterisk that runs while the context lasts: ``with Asterisk(tree, network.pbx) as pbx: ...``.

    ``extra`` maps names of configuration files to added text (``{"pjsip.conf": "..."}``).
    """

    options = "-f"
    """The options of its command line."""

    def __init__(
        self,
        tree: Path,
        namespace: str,
        kind: Kind = Kind.PJSIP,
        secret: str = SECRET,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.tree = tree
        self.namespace = namespace
        self.kind = kind
        self.secret = secret
        self.version = ""
        self.folder = Path()
        self._extra = extra or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._undo = contextlib.ExitStack()

    @property
    def pid(self) -> int:
        """The process id of Asterisk itself; ``/proc/PID/stat`` has its CPU time."""
        if self._process is None:
            raise AsteriskError("Asterisk is not running")
        return self._process.pid

    @property
    def logs(self) -> Path:
        """The folder of its log files (``ringfence`` and ``messages``), as seen from the host."""
        return self.folder / "log"

    @property
    def certificate(self) -> Path:
        """The file with the certificate and key of AMI over TLS, valid for 127.0.0.1 and localhost."""
        return self.folder / "etc" / CERTIFICATE_NAME

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def start(self) -> None:
        """Start Asterisk, or start it again after :meth:`stop`, and wait until it is fully booted."""
        own = (str(self.tree), str(self.folder), self.options)
        self._process = self._launch(inside(self.namespace, "sh", "-c", _LAUNCH, "sh", *own))
        self._await_boot()
        self.version = self.cli("core show version").split(" built by ")[0].strip()

    def stop(self) -> None:
        """Stop Asterisk with SIGTERM, and with SIGKILL if it does not obey; idempotent."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Stop Asterisk with SIGKILL; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def cli(self, command: str, seconds: float = 10.0) -> str:
        """Run one command of Asterisk's console and return its output."""
        done = self._console_command(command, seconds)
        if done.returncode:
            raise AsteriskError(f"{command}: {done.stdout.strip()} {done.stderr.strip()}")
        return done.stdout

    def forget_phones(self) -> None:
        """End all registrations with PJSIP, if Asterisk runs: a daemon takes their addresses for friends."""
        if self._process is not None:
            self.cli("database deltree registrar")

    def cpu_seconds(self) -> float:
        """Return the CPU time that Asterisk has used so far."""
        return cpu_seconds(self.pid)

    def _prepare(self) -> None:
        if not is_tree(self.tree):
            raise AsteriskError(f"{self.tree}: no Asterisk here; fix: make lab")
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"rf-{os.getpid()}-asterisk-"))
        self._undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._undo.callback(self.kill)
        self.folder.chmod(0o755)
        user, group = _owner(self.tree)
        for name in ("etc", "run/asterisk", "log", "lib", "spool"):
            (self.folder / name).mkdir(parents=True)
            os.chown(self.folder / name, user, group)
        self._configure()
        _make_certificate(self.certificate)
        os.chown(self.certificate, user, group)

    def _configure(self) -> None:
        texts = asterisk_files.files(self.kind, self.secret)
        for name in {*texts, *self._extra}:
            text = texts.get(name, "") + "\n" + self._extra.get(name, "")
            (self.folder / "etc" / name).write_text(text, "utf-8")

    def _launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._console() as console:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )

    def _console(self) -> IO[bytes]:
        return (self.folder / "console").open("ab")

    def _console_command(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        enter = (
            *("nsenter", f"--target={self.pid}", "--mount", "--net", "--root", "--wd"),
            *("/usr/sbin/asterisk", "-rx", command),
        )
        return subprocess.run(
            enter, capture_output=True, check=False, timeout=seconds, text=True, errors="replace"
        )

    def _await_boot(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _BOOT_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if (self.folder / "run/asterisk/asterisk.ctl").exists():
                done = self._console_command("core waitfullybooted", _BOOT_SECONDS)
                if "fully booted" in done.stdout:
                    return
            time.sleep(0.02)
        output = (self.folder / "console").read_text("utf-8", "replace")[-2000:]
        raise AsteriskError(f"{self.tree}: Asterisk did not boot: {output}")


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob("rf-[0-9]*-asterisk-*"):
        if owner_is_gone(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _owner(tree: Path) -> tuple[int, int]:
    match = re.search(r"^asterisk:[^:]*:(\d+):(\d+):", (tree / "etc/passwd").read_text("utf-8"), re.MULTILINE)
    if match is None:
        raise AsteriskError(f"{tree}: there is no user `asterisk` here")
    return int(match[1]), int(match[2])


def _make_certificate(path: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    made = subprocess.run(
        [*command.split(), "-keyout", "-", "-out", "-"], capture_output=True, check=True, timeout=20
    )
    path.write_bytes(made.stdout)
    path.chmod(0o600)


class ConsoleAsterisk(Asterisk):
    """An Asterisk with a verbose console on a terminal. Its output is in the file ``console``."""

    options = "-c -vvvvv"

    def _launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        control, terminal = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color"}  # Asterisk writes colours then
        process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, env=environment
        )
        os.close(terminal)
        threading.Thread(target=self._copy, args=(control,), daemon=True).start()
        return process

    def _copy(self, control: int) -> None:
        """Copy the terminal's output to the file, until Asterisk ends."""
        with self._console() as console, contextlib.suppress(OSError):
            while data := os.read(control, 65_536):
                console.write(data)
                console.flush()
        os.close(control)
