"""Asterisk's console, used by its control socket, without starting any program.

The console shows the settings in force; Asterisk may not have reloaded its files since they were changed.
Asterisk's program belongs to root, but it reads files of Asterisk's user. So root never runs it.

The socket ``asterisk.ctl`` is in a folder of Asterisk's user, who may put anything in its place. So the way
to it is walked by :mod:`ringfence.host.owned_files`, within Asterisk's own root folder. Nothing is sent
before the kernel has confirmed that the process at the other end is this Asterisk. Answers are limited in
time and length.
"""

import fcntl
import getopt
import os
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from attrs import frozen

from ringfence.file_rights import FileUser, acting_as
from ringfence.host.listening import find_named_users
from ringfence.host.owned_files import opened_parent
from ringfence.host.processes import PROC, network_of, processes, sockets_of
from ringfence.values.text import printable

# -- the processes of Asterisk servers on this host, and of other programs that only have its name


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


def likely_servers(folder: Path, proc: Path = PROC, users: Iterable[str] = ()) -> list[Server]:
    """Return the servers that can be the Asterisk of this host; more than one if this is ambiguous.

    While Asterisk is down, any user may start one. So an Asterisk counts only if root has put it into a
    container, or if its user may run Asterisk. These users are root, ``asterisk``, the owners of Asterisk's
    folders and of ``folder``, which has its configuration, and ``users`` (names or numbers). If none of them
    but root exists, every user counts. An Asterisk in another network namespace counts only if none runs in
    this one. Of several, an Asterisk counts only if it runs as root or as the owner of ``folder``.
    """
    named, owners = find_named_users(users), owner_of(folder)
    found = [
        server
        for server in servers(proc)
        if server.uid in owners or named.may_run_asterisk(server.uid) or _is_contained(server, proc)
    ]
    found = [server for server in found if server.same_network] or found
    if len(found) > 1:
        expected = {0, *owners}
        found = [server for server in found if server.uid in expected] or found
    return found


def _is_contained(server: Server, proc: Path) -> bool:
    """Whether root has given a server a root folder of its own, as in a container with users of its own."""
    return not server.same_root and _has_namespace_of_root(proc / str(server.pid))


def names_of(found: Iterable[Server]) -> str:
    """Return the process ids and program paths of servers as text, for a message."""
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
    """Whether the command line of an Asterisk starts a remote console (``asterisk -rvvv``), not a server."""
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
    """Return [the id of the user who owns a file], or [] if the file cannot be looked up."""
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

    The kernel shows the path as seen from the reader, if the process has only another root folder (chroot).
    In another mount namespace, the kernel shows the path within that namespace.
    """
    top = root.readlink()
    return Path("/") / path.relative_to(top) if path.is_relative_to(top) else path


def _is_of(state: os.stat_result, user: int) -> bool:
    return state.st_uid in {0, user} and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _root_user(folder: Path) -> int:
    """Return the user of this host who is root in the user namespace of a process. ``folder`` is /proc/PID.

    Return 0 too if a user other than root has made that namespace: everybody may make one and be root there.
    """
    if _shares_namespace(folder) or not _has_namespace_of_root(folder):
        return 0
    try:
        rows = (folder / "uid_map").read_text("ascii").split("\n")
    except OSError:
        return 0
    first = [row.split() for row in rows if row.split()[:1] == ["0"]]
    return int(first[0][1]) if first else 0


def _shares_namespace(folder: Path) -> bool:
    """Whether a process has the same user namespace as this process. ``folder`` is /proc/PID."""
    return is_same(folder / "ns/user", folder.parent / "self/ns/user")


def _has_namespace_of_root(folder: Path) -> bool:
    """Whether the user namespace of a process is the one of this process, or root has made it.

    ``folder`` is /proc/PID. Return False too if the namespace cannot be looked up.
    """
    if _shares_namespace(folder):
        return True
    owner = bytearray(4)
    try:
        namespace = os.open(folder / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(namespace, _NS_GET_OWNER_UID, owner)
        finally:
            os.close(namespace)
    except OSError:
        return False
    return not any(owner)


TIMEOUT = 5.0
"""The time limit in seconds for an answer of Asterisk's console."""
MAX_BYTES = 4 * 1024 * 1024
NO_COMMAND = "No such command '"

_CREDENTIALS = struct.Struct("=iII")
_ACCEPTS, _STREAM = "00010000", "0001"
_TABLE = 16 * 1024 * 1024
_MOST_PATHS = 1_000
_CHUNK = 65_536
_LOG_LINE = 0x7F
"""The lowest first byte of log lines among the console's answer (``VERBOSE_MAGIC``)."""


class Console(Protocol):
    """An object that answers commands of Asterisk's console."""

    @property
    def problem(self) -> str:
        """Why the console cannot be used; "" until a problem is known."""

    def show(self, what: str) -> str | None:
        """Return the output of Asterisk's console command ``what``, such as ``sip show peers``.

        Return None if Asterisk does not know the command or does not answer.
        """


@frozen
class NoConsole:
    """Stands for the console of an Asterisk that cannot be reached; ``problem`` is the reason."""

    problem: str

    def show(self, _what: str) -> None:
        """Return None, as the console of this Asterisk cannot be reached."""


class SocketConsole:
    """The console of the Asterisk ``server``.

    ``timeout`` is the limit for one answer in seconds. ``problem`` is why the console cannot be used; ""
    until a problem is known.
    """

    def __init__(self, server: Server, proc: Path = PROC, timeout: float = TIMEOUT) -> None:
        self.server = server
        self._proc = proc
        self._timeout = timeout
        self.problem = ""

    def show(self, what: str) -> str | None:
        """Return the output of the console command ``what``; None if Asterisk does not know or answer it.

        After a problem, such as a timeout, no further command is sent, because each would fail in the same
        way.
        """
        if self.problem:
            return None
        try:
            with closing(self._connected()) as connection:
                data = _answer(connection, what, self._timeout)
        except TimeoutError:
            self.problem = f"no answer within {self._timeout:.0f} s"
        except OSError as error:
            self.problem = error.strerror or str(error)
        else:
            text = _output(data)
            failed = any(
                line.startswith("Command '") and line.endswith("' failed.") for line in text.split("\n")
            )
            return None if text.startswith(NO_COMMAND) or failed else text
        return None

    def _connected(self) -> socket.socket:
        """Return a connection to Asterisk's control socket; raise OSError if another process owns it."""
        problem = OSError("it has no control socket (asterisk.ctl)")
        paths = control_sockets(self.server.pid, self._proc)
        for path in paths:
            try:
                return self._connected_by(path, self._timeout / len(paths))
            except OSError as error:
                problem = error
        raise problem

    def _connected_by(self, path: Path, timeout: float) -> socket.socket:
        root = os.open(self._proc / str(self.server.pid) / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with opened_parent(path, root) as (folder, name), folder.acting() as descriptor:
                end = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(root)
        try:
            if not stat.S_ISSOCK(os.fstat(end).st_mode):
                raise OSError("its control socket was replaced by another file")
            return self._connected_to(end, timeout)
        finally:
            os.close(end)

    def _connected_to(self, end: int, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            with acting_as(FileUser(self.server.uid, self.server.gid)):
                connection.connect(f"/proc/self/fd/{end}")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except BaseException:
            connection.close()
            raise
        if _CREDENTIALS.unpack(credentials)[0] != self.server.pid:
            connection.close()
            raise OSError("its control socket belongs to another process")
        return connection


def local_console(folder: Path, proc: Path = PROC, users: Iterable[str] = ()) -> SocketConsole | NoConsole:
    """Return the console of the Asterisk on this host whose configuration is in ``folder``.

    :func:`~ringfence.host.console.likely_servers` decides which Asterisk counts, and defines ``users``. One
    in another network namespace (a container) counts only if ``folder`` is its ``/etc/asterisk``.
    """
    found = [
        server
        for server in likely_servers(folder, proc, users)
        if server.same_network or is_same(proc / str(server.pid) / "root/etc/asterisk", folder)
    ]
    if len(found) == 1:
        return SocketConsole(found[0], proc)
    if found:
        return NoConsole(f"several Asterisks run here: {names_of(found)}")
    return NoConsole("no running Asterisk is visible here (fix: start it, or run this as root)")


def control_sockets(pid: int, proc: Path = PROC) -> list[Path]:
    """Return the paths that may be the control socket of Asterisk's process ``pid``, in its root folder.

    Only the kernel's answer after a connection shows which path it is: names of others can add any row.
    """
    inodes = {str(inode) for inode in sockets_of(pid, proc)}
    try:
        with (proc / str(pid) / "net/unix").open("rb") as file:
            table = file.read(_TABLE).decode("utf-8", "surrogateescape")
    except OSError:
        return []
    rows = (line.split(maxsplit=7) for line in table.split("\n")[1:])
    found = [
        row[7]
        for row in rows
        if len(row) > 7 and (row[3], row[4]) == (_ACCEPTS, _STREAM) and row[6] in inodes  # noqa: PLR2004
    ]
    paths = dict.fromkeys(Path(name) for name in found if name.startswith("/") and name.endswith(".ctl"))
    return [*paths][:_MOST_PATHS]


def _answer(connection: socket.socket, command: str, timeout: float) -> bytes:
    """Send a console command; return all bytes that Asterisk sends until it closes the connection.

    Raise TimeoutError after ``timeout`` seconds, and OSError after more than ``MAX_BYTES`` bytes.
    """
    deadline = time.monotonic() + timeout
    connection.sendall(b"cli quit after " + command.encode() + b"\0")
    data = bytearray()
    while len(data) <= MAX_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        try:
            more = connection.recv(_CHUNK)
        except ConnectionResetError:  # Asterisk closes it with our bytes unread
            more = b""
        if not more:
            return bytes(data)
        data += more
    raise OSError(f"an answer of more than {MAX_BYTES} bytes")


def _output(data: bytes) -> str:
    """Return a console command's output in ``data``: what follows the greeting, without lines of the log."""
    _, _, rest = data.partition(b"\n")
    kept = [line for line in rest.split(b"\n") if not line or line[0] < _LOG_LINE]
    return b"\n".join(kept).replace(b"\0", b"").decode("utf-8", "replace")
