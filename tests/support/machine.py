"""A Debian that boots: systemd is process 1 of a tree of files, in namespaces of its own.

    with Network() as network, Machine(tree, network.pbx) as machine:
        machine.must("systemctl", "is-active", "ringfence")

The tree is changed, so a test uses an overlay of it. The machine has the network of ``namespace``, its own
processes, mounts and cgroups, and ends with the context, whatever runs in it.
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from debian.tree import LIBRARY
from tests.support.daemon import until

_BOOT_SECONDS = 60.0
_SECONDS = 120.0
_CGROUPS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# The shell is in the new cgroup before unshare makes this cgroup the machine's root.
_LAUNCH = """\
echo $$ >"$1/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup sh -euc "$3" sh "$2"
"""
# Only the network's settings belong to the machine: the others of /proc/sys are the host's.
_BOOT = """\
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
pivot_root . .
umount -l .
exec env -i container=ringfence-test /lib/systemd/systemd
"""

_counter = itertools.count(1)


class Machine:
    """One running Debian, as an administrator sees it after the boot."""

    def __init__(self, root: Path, namespace: str) -> None:
        self.root = root
        self._namespace = namespace
        hierarchy = next(Path(path) for path in _CGROUPS if Path(path, "cgroup.procs").exists())
        self._cgroup = hierarchy / f"rf-{os.getpid()}-{next(_counter)}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._cgroup.mkdir()
        # `ip netns exec` would hide the host's cgroups.
        launch = ["nsenter", f"--net=/run/netns/{self._namespace}", "sh", "-euc", _LAUNCH, "sh"]
        launch += [str(self._cgroup), str(self.root), _BOOT]
        self._process = subprocess.Popen(launch, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            until(self._has_booted, "the boot", _BOOT_SECONDS, pause=0.1)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the machine, and remove its cgroups."""
        assert self._process is not None
        with suppress(OSError, IndexError):  # it has ended
            os.kill(self._init(), signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        until(self._has_no_cgroup, "the end of the machine's processes")

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command as root in the machine."""
        return subprocess.run(
            [*self.entry(), *command], capture_output=True, text=True, check=False, timeout=_SECONDS
        )

    def entry(self) -> list[str]:
        """Return the beginning of a command that runs as root in the machine."""
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        environment = ("env", "-i", f"PATH={_PATH}", "LC_ALL=C.UTF-8")
        return ["nsenter", f"--target={self._init()}", *namespaces, *environment]

    def must(self, *command: str) -> str:
        """Run a command that must succeed, and return its output."""
        done = self.run(*command)
        assert done.returncode == 0, f"{' '.join(command)[:200]}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self, package: Path) -> str:
        """Install ringfence as docs/install.md does, and return what was printed.

        The first installation of a run keeps its bytecode beside the package. Others find theirs compiled.
        """
        kept = package.with_name("bytecode")
        if kept.exists():
            _copy_bytecode(kept, self.root / LIBRARY)
        shutil.copy(package, self.root / "root")
        printed = self.must("apt-get", "install", "--yes", "--no-install-recommends", f"/root/{package.name}")
        if not kept.exists():
            making = Path(tempfile.mkdtemp(dir=package.parent))
            _copy_bytecode(self.root / LIBRARY, making)
            with suppress(OSError):  # another process was faster
                making.rename(kept)
        return printed

    def pids(self, service: str) -> list[int]:
        """Return the processes of a service, as seen from the test."""
        try:
            listed = (self._cgroup / f"system.slice/{service}.service/cgroup.procs").read_text("ascii")
        except OSError:  # without a process it has no cgroup
            return []
        return [int(pid) for pid in listed.split()]

    def _init(self) -> int:
        """Return the process id of systemd, as seen from the test."""
        assert self._process is not None
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()[0])

    def _has_booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.root} does not boot"
        try:
            state = self.run("systemctl", "is-system-running").stdout.strip()
        except (IndexError, OSError):
            return False  # unshare has not made process 1 yet
        return state in {"running", "degraded"}

    def _has_no_cgroup(self) -> bool:
        for folder in (*sorted(self._cgroup.rglob("*/"), reverse=True), self._cgroup):
            with suppress(OSError):
                folder.rmdir()
        return not self._cgroup.exists()


def _copy_bytecode(source: Path, target: Path) -> None:
    """Copy the compiled files of a library."""
    for folder in source.rglob("__pycache__"):
        shutil.copytree(folder, target / folder.relative_to(source), dirs_exist_ok=True)
