"""The Asterisk that runs on this host: its process, its console, and the paths of its folders on this host.

Asterisk itself reports its folders (``core show settings``), because they are not the same on all hosts: an
Asterisk built from source has other folders than Debian's, and its option ``-C`` may name another main file.
Asterisk may have another root folder than this host (in a container or a chroot). Then the mounts of both
show where its folders are on this host.
"""

import getopt
import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen

from ringfence.audit.console import AsteriskConsole
from ringfence.audit.shown import settings_from
from ringfence.errors import SetupError
from ringfence.host.processes import PROC, network_of, processes
from ringfence.model import printable

NAME = "asterisk"
OPTIONS = "BC:cde:FfG:ghIiL:M:mnpqRrs:TtU:vVWXx:"
"""Asterisk's command-line options, in the notation of getopt (``main/asterisk.c``)."""

_CONSOLE = frozenset({"-r", "-R", "-x"})
_PROGRAMS = ("/usr/sbin/asterisk", "/usr/local/sbin/asterisk", "/opt/asterisk/sbin/asterisk")
_DELETED = " (deleted)"
_MODULE = re.compile(r"(chan_pjsip|chan_sip|chan_iax2)\.so +.* (?:Running|Not Running) +[a-z]+ *")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@frozen
class Server:
    """The process of an Asterisk server.

    ``groups`` are its groups besides ``gid``. ``command`` is its command line, and ``program`` the path of
    its program in its own root folder. ``same_root``: it has the same root folder as this process.
    ``same_network``: it has the same network namespace as this process.
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
    console: AsteriskConsole

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

    An Asterisk in another network namespace (a container) counts only if none runs in this one.
    """
    found = [*servers(proc)]
    found = [server for server in found if server.same_network] or found
    if not found:
        raise SetupError(
            "no running Asterisk is visible here; fix: start it (systemctl start asterisk), or run this "
            "as root on its host"
        )
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
    has the name of Asterisk until it starts another program.
    """
    found = {pid: _status(proc / str(pid)) for pid in processes(NAME, proc)}
    mine = network_of("self", proc)
    for pid, (parent, uid, gid, groups) in sorted(found.items()):
        command = _command(proc / str(pid))
        if parent in found or is_console(command):
            continue
        same_root = _is_same(proc / str(pid) / "root", Path("/"))
        yield Server(
            pid,
            uid,
            gid,
            groups,
            command,
            _program(proc / str(pid), command, same_root=same_root),
            same_root,
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


def inspect(server: Server, proc: Path = PROC) -> FoundAsterisk:
    """Return what an Asterisk reports about itself at its console, with the paths of its folders.

    Raise SetupError if it does not report its folders, or if its configuration folder has no path on this
    host.
    """
    console = AsteriskConsole(console_command(server))
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
    return FoundAsterisk(
        server,
        shown.get("version", "of an unknown version"),
        conf,
        Path(folder),
        host_path(root, Path(logs)),
        Path(logs),
        drivers_from(console.show("module show like chan_") or ""),
        None if server.same_network else _address(server, proc),
        console,
    )


def console_command(server: Server) -> tuple[str, ...]:
    """Return the beginning of the command line that runs a command in the console of this Asterisk."""
    enter = ("nsenter", f"--target={server.pid}", "--mount", "--net", "--root", "--wd")
    try:
        options = dict(getopt.getopt(server.command[1:], OPTIONS)[0])
    except getopt.GetoptError:
        options = {}
    file = options.get("-C")
    return (*(() if server.same_root else enter), server.program, *(("-C", file) if file else ()))


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


def _program(folder: Path, command: tuple[str, ...], *, same_root: bool) -> str:
    """Return the path of Asterisk's program in Asterisk's own root folder.

    ``folder`` is /proc/PID, and ``command`` the command line. ``same_root``: Asterisk has this host's root
    folder, so the link /proc/PID/exe has the right path. If neither this link nor the command line shows the
    path, return the first of the usual paths that exists, or the first one if none exists.
    """
    if same_root:
        try:
            return str((folder / "exe").readlink()).removesuffix(_DELETED)
        except OSError:
            pass
    if command and command[0].startswith("/"):
        return command[0]
    there = (path for path in _PROGRAMS if (folder / "root" / path.lstrip("/")).exists())
    return next(there, _PROGRAMS[0])


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
