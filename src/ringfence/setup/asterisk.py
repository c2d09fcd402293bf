"""The Asterisk that runs on this host: its process, its console, and the paths of its folders on this host.

Asterisk itself reports its folders (``core show settings``), because they are not the same on all hosts: an
Asterisk built from source has other folders than Debian's, and its option ``-C`` may name another main file.
Asterisk may have another root folder than this host (in a container or a chroot). Then the mounts of both
show where its folders are on this host.
"""

import fcntl
import getopt
import os
import re
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen

from ringfence.audit.shown import settings_from
from ringfence.errors import SetupError
from ringfence.file_rights import FileUser
from ringfence.host.owned_files import exists
from ringfence.host.processes import PROC, network_of, processes
from ringfence.model import printable
from ringfence.setup.console import FallibleConsole, SocketConsole

NAME = "asterisk"
OPTIONS = "BC:cde:FfG:ghIiL:M:mnpqRrs:TtU:vVWXx:"
"""Asterisk's command-line options, in the notation of getopt (``main/asterisk.c``)."""

_CONSOLE = frozenset({"-r", "-R", "-x"})
_NS_GET_OWNER_UID = 0xB704  # ioctl_ns(2)
_FOLDER = Path("/etc/asterisk")
_DELETED = " (deleted)"
_MODULE = re.compile(r"(chan_pjsip|chan_sip|chan_iax2)\.so +.* (?:Running|Not Running) +[a-z]+ *")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@frozen
class Server:
    """The process of an Asterisk server.

    ``groups`` are its groups besides ``gid``. ``command`` is its command line. ``program`` is the
    path of its program in its own root folder, where only root can change it. ``same_root``: it has the same
    root folder as this process. ``same_network``: it has the same network namespace as this process.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    command: tuple[str, ...]
    program: str
    same_root: bool
    same_network: bool


@frozen
class FoundAsterisk:
    """The running Asterisk, and its folders.

    ``conf`` and ``logs`` are the folders of its configuration and of its logs, as paths on this host.
    ``conf_inside`` and ``logs_inside`` are the paths by which Asterisk names these folders. ``logs`` is None
    if that folder has no path on this host. ``drivers`` are the running channel drivers that ringfence knows.
    ``address`` is the IPv4 address of an Asterisk in another network namespace. It is None for an Asterisk in
    this one, and also if the other namespace does not have exactly one address.
    """

    server: Server
    version: str
    conf: Path
    conf_inside: Path
    logs: Path | None
    logs_inside: Path
    drivers: tuple[str, ...]
    address: str | None
    console: FallibleConsole

    @property
    def contained(self) -> bool:
        """Whether Asterisk runs in a container.

        It does if its configuration folder has another path on this host than inside Asterisk's root folder,
        or if Asterisk is in another network namespace.
        """
        return self.conf != self.conf_inside or not self.server.same_network

    @property
    def reader(self) -> Server | None:
        """The process with whose rights setup checks that Asterisk can read a file.

        None for a container: then setup checks with its own rights. With Asterisk's rights the check would
        wrongly fail, because on this host only root can enter the folders above the container's volume.
        """
        return None if self.contained else self.server


def find_asterisk(proc: Path = PROC) -> FoundAsterisk:
    """Return the Asterisk that runs on this host; raise SetupError if there is none, or more than one.

    An Asterisk in another network namespace (a container) counts only if none runs in this one. Of
    several, an Asterisk counts only if it runs as root or as the owner of /etc/asterisk: any user may start a
    second one.
    """
    found = [*servers(proc)]
    found = [server for server in found if server.same_network] or found
    if not found:
        raise SetupError(
            "no running Asterisk is visible here; fix: start it (systemctl start asterisk), or run this "
            "as root on its host"
        )
    if len(found) > 1:
        expected = {0, *_owner_of(_FOLDER)}
        found = [server for server in found if server.uid in expected] or found
    if len(found) > 1:
        names = ", ".join(f"process {server.pid} ({printable(server.program)})" for server in found)
        raise SetupError(
            f"several Asterisks run here: {names}; setup connects exactly one; fix: write one [[asterisk]] "
            "for each, see docs/configuration.md"
        )
    return inspect(found[0], proc)


def servers(proc: Path = PROC) -> Iterator[Server]:
    """Yield the process of each Asterisk server.

    Remote consoles (``asterisk -r``) are left out, and so are children of a server: after a fork, a child
    has the name of Asterisk until it starts another program. So are processes whose program anybody but root
    could have made: every user may start a process of this name.
    """
    found = {pid: _status(proc / str(pid)) for pid in processes(NAME, proc)}
    mine = network_of("self", proc)
    for pid, (parent, uid, gid, groups) in sorted(found.items()):
        command = _command(proc / str(pid))
        if parent in found or is_console(command):
            continue
        program = _program(proc / str(pid), _root_user(proc / str(pid)))
        if program is None:
            continue
        yield Server(
            pid,
            uid,
            gid,
            groups,
            command,
            program,
            _is_same(proc / str(pid) / "root", Path("/")),
            network_of(pid, proc) == mine,
        )


def is_console(command: tuple[str, ...]) -> bool:
    """Whether a command line starts a remote console (``asterisk -rvvv``)."""
    if not command or Path(command[0]).name == "rasterisk":
        return bool(command)
    try:
        options, _ = getopt.getopt(command[1:], OPTIONS)
    except getopt.GetoptError:
        return False
    return any(name in _CONSOLE for name, _ in options)


def _is_asterisks(conf: Path, server: Server) -> bool:
    """Whether a folder can be an Asterisk's configuration. Asterisk's user can make it report any folder."""
    return server.uid in _owner_of(conf) or exists(conf / "modules.conf")


def _owner_of(path: Path) -> list[int]:
    try:
        return [path.stat().st_uid]
    except OSError:
        return []


def inspect(server: Server, proc: Path = PROC) -> FoundAsterisk:
    """Return what an Asterisk reports about itself at its console, with the paths of its folders.

    Raise SetupError if it does not report its folders, or if its configuration folder has no path on this
    host.
    """
    console = SocketConsole(server.pid, FileUser(server.uid, server.gid), proc)
    shown = settings_from(console.show("core show settings") or "")
    folder, logs = shown.get("configuration directory"), shown.get("log directory")
    if folder is None or logs is None:
        why = console.problem or "its console does not know `core show settings`"
        raise SetupError(f"Asterisk (process {server.pid}) cannot be asked for its folders: {why}")
    root = proc / str(server.pid)
    conf = host_path(root, Path(folder))
    if conf is None:
        raise SetupError(
            f"the configuration folder of Asterisk (process {server.pid}), {printable(folder)}, is only in "
            "its container, and changes there are lost with it; fix: make that folder a volume"
        )
    if not _is_asterisks(conf, server):
        raise SetupError(
            f"Asterisk (process {server.pid}) reports {printable(str(conf))} as its configuration folder, "
            "which is neither its user's nor a folder of root with modules.conf; fix: check its asterisk.conf"
        )
    log_folder = host_path(root, Path(logs))
    return FoundAsterisk(
        server,
        shown.get("version", "of an unknown version"),
        conf,
        Path(folder),
        log_folder if log_folder is not None and _owner_of(log_folder) == [server.uid] else None,
        Path(logs),
        drivers_from(console.show("module show like chan_") or ""),
        None if server.same_network else _address(server, proc),
        console,
    )


def reload_command(server: Server, user: str) -> tuple[str, ...]:
    """Return the command by which root makes Asterisk open its logs again, with the rights of ``user`` only.

    Asterisk's program reads the files of Asterisk's user, so root must not run it with its own rights.
    """
    try:
        options = dict(getopt.getopt(server.command[1:], OPTIONS)[0])
    except getopt.GetoptError:
        options = {}
    file = options.get("-C")
    if file and not file.isprintable():
        return ()  # a newline could end the script of logrotate that contains this command
    return (
        *("setpriv", f"--reuid={user}", f"--regid={server.gid}", "--clear-groups", "--no-new-privs"),
        *(server.program, *(("-C", file) if file else ()), "-rx", "logger reload"),
    )


def drivers_from(text: str) -> tuple[str, ...]:
    """Return the running channel drivers that ringfence knows.

    ``text`` is the output of ``module show like chan_``.
    """
    rows = [match for line in text.split("\n") if (match := _MODULE.fullmatch(line))]
    names = {"chan_pjsip": "PJSIP", "chan_sip": "chan_sip", "chan_iax2": "IAX2"}
    return tuple(names[row[1]] for row in rows if "Not Running" not in row[0])


def host_path(root: Path, inside: Path) -> Path | None:
    """Return the path on this host of a folder that a process sees as ``inside``.

    ``root`` is the folder /proc/PID of the process. Return None if the folder has no path on this host. An
    example is a folder in the image of a container.
    """
    seen = root / "root" / str(inside).lstrip("/")
    if _is_same(seen, inside):
        return inside
    source = _mount_of(_mounts(root / "mountinfo"), inside)
    for device, top, point in reversed(_mounts(root.parent / "self" / "mountinfo")):
        if source is None or device != source[0]:
            continue
        if Path(source[1]).is_relative_to(top):
            path = Path(point) / Path(source[1]).relative_to(top)
            if _is_same(seen, path):
                return path
    return None


def _mount_of(mounts: list[tuple[str, str, str]], path: Path) -> tuple[str, str] | None:
    """Return the device on which a path is, and the path within that device; None if no mount contains it."""
    for device, top, point in sorted(mounts, key=lambda mount: len(mount[2]), reverse=True):
        if path.is_relative_to(point):
            return device, str(Path(top) / path.relative_to(point))
    return None


def _mounts(file: Path) -> list[tuple[str, str, str]]:
    """Return the mounts in a file ``mountinfo`` (proc(5)); none if the file cannot be read.

    Each mount is the number of a device, the folder on this device that is mounted, and the mount point.
    """
    try:
        lines = file.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return []
    rows = [line.split(" ") for line in lines if line]
    return [(row[2], _unescaped(row[3]), _unescaped(row[4])) for row in rows]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.stat(), other.stat())
    except OSError:
        return False


def _status(folder: Path) -> tuple[int, int, int, tuple[int, ...]]:
    """Return the parent of a process, its effective user and group, and its other groups, as numbers.

    ``folder`` is /proc/PID. If the process has ended, the first three numbers are -1, and there are no
    groups.
    """
    try:
        lines = (folder / "status").read_text("utf-8", "replace").split("\n")
    except OSError:
        return -1, -1, -1, ()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    groups = tuple(int(group) for group in fields.get("Groups", "").split())
    uid, gid = (int(fields[name].split("\t")[1]) for name in ("Uid", "Gid"))
    return int(fields["PPid"]), uid, gid, groups


def _command(folder: Path) -> tuple[str, ...]:
    try:
        data = (folder / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(part.decode("utf-8", "surrogateescape") for part in data.removesuffix(b"\0").split(b"\0"))


def _program(folder: Path, root_user: int) -> str | None:
    """Return the path of a process's program in its own root folder; None if it may not be trusted.

    ``folder`` is /proc/PID. The program must be named ``asterisk``. It and every folder above it must belong
    to root (in a container to its root user ``root_user``), and nobody else may write to them.
    """
    try:
        state = (folder / "exe").stat()
        path = Path(str((folder / "exe").readlink()).removesuffix(_DELETED))
        inside = _within(path, folder / "root")
        if inside.name != NAME or not inside.is_absolute() or not _is_of(state, root_user):
            return None
        at = os.open(folder / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for part in inside.parts[1:-1]:
            if not _is_of(os.fstat(at), root_user):
                return None
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        return str(inside) if _is_of(os.fstat(at), root_user) else None
    except OSError:
        return None
    finally:
        os.close(at)


def _within(path: Path, root: Path) -> Path:
    """Return a program's path as its process sees it.

    The kernel shows it as seen from the reader, if the process has only another root folder (chroot). In
    another mount namespace, it is the path within that namespace.
    """
    top = root.readlink()
    return Path("/") / path.relative_to(top) if path.is_relative_to(top) else path


def _is_of(state: os.stat_result, user: int) -> bool:
    return state.st_uid in {0, user} and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _root_user(folder: Path) -> int:
    """Return the user of this host who is root in the user namespace of a process. ``folder`` is /proc/PID.

    It is 0 too if a user other than root has made that namespace: everybody may make one and be root there.
    """
    try:
        if _is_same(folder / "ns/user", folder.parent / "self/ns/user"):
            return 0
        namespace = os.open(folder / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            owner = bytearray(4)
            fcntl.ioctl(namespace, _NS_GET_OWNER_UID, owner)
        finally:
            os.close(namespace)
        rows = (folder / "uid_map").read_text("ascii").split("\n")
    except OSError:
        return 0
    first = [row.split() for row in rows if row.split()[:1] == ["0"]]
    return int(first[0][1]) if first and not any(owner) else 0


def _address(server: Server, proc: Path) -> str | None:
    """Return the IPv4 address of the network namespace in which a server runs. Loopback does not count.

    Return None if there is no address or more than one, or if the addresses cannot be read.
    """
    try:
        text = (proc / str(server.pid) / "net" / "fib_trie").read_text("ascii", "replace")
    except OSError:
        return None
    found: list[str] = []
    last = ""
    for line in text.split("\n"):
        if "|-- " in line:
            last = line.partition("|-- ")[2].strip()
        elif "/32 host LOCAL" in line and last not in found and not ip_address(last).is_loopback:
            found.append(last)
    return found[0] if len(found) == 1 else None
