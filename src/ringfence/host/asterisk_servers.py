"""The processes of Asterisk servers on this host, and of other programs that only have its name."""

import fcntl
import getopt
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from ringfence.host.processes import PROC, network_of, processes
from ringfence.model import printable

NAME = "asterisk"
OPTIONS = "BC:cde:FfG:ghIiL:M:mnpqRrs:TtU:vVWXx:"
"""Asterisk's command-line options, in the notation of getopt (``main/asterisk.c``)."""

_CONSOLE = frozenset({"-r", "-R", "-x"})
_NS_GET_OWNER_UID = 0xB704  # ioctl_ns(2)
_DELETED = " (deleted)"


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


def likely_servers(folder: Path, proc: Path = PROC) -> list[Server]:
    """Return the servers that can be the Asterisk of this host; more than one if this is ambiguous.

    An Asterisk in another network namespace (a container) counts only if none runs in this one. Of several,
    an Asterisk counts only if it runs as root or as the owner of ``folder``, which has its configuration: any
    user may start a second one.
    """
    found = [*servers(proc)]
    found = [server for server in found if server.same_network] or found
    if len(found) > 1:
        expected = {0, *owner_of(folder)}
        found = [server for server in found if server.uid in expected] or found
    return found


def names_of(found: Iterable[Server]) -> str:
    """Return process ids and programs of servers, for a message."""
    return ", ".join(f"process {server.pid} ({printable(server.program)})" for server in found)


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
            is_same(proc / str(pid) / "root", Path("/")),
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


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths name the same file. False if either cannot be looked up."""
    try:
        return os.path.samestat(one.stat(), other.stat())
    except OSError:
        return False


def owner_of(path: Path) -> list[int]:
    """Return the user who owns a file; nothing if the file cannot be looked up."""
    try:
        return [path.stat().st_uid]
    except OSError:
        return []


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
        if is_same(folder / "ns/user", folder.parent / "self/ns/user"):
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
