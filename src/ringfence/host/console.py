"""Asterisk's console, used by its control socket, without starting any program.

The console shows the settings in force; Asterisk may not have reloaded its files since they were changed.
Asterisk's program belongs to root, but it reads files of Asterisk's user. So root never runs it.

The socket ``asterisk.ctl`` is in a folder of Asterisk's user, who may put anything in its place. So the way
to it is walked by :mod:`ringfence.host.owned_files`, within Asterisk's own root folder. Nothing is sent
before the kernel has confirmed that the process at the other end is this Asterisk. Answers are limited in
time and length.
"""

import os
import socket
import stat
import struct
import time
from contextlib import closing
from pathlib import Path
from typing import Protocol

from attrs import frozen

from ringfence.file_rights import FileUser, acting_as
from ringfence.host.asterisk_servers import is_same, likely_servers, names_of
from ringfence.host.owned_files import opened_parent
from ringfence.host.processes import PROC, sockets_of

TIMEOUT = 5.0
"""The time limit for an answer in seconds."""
MAX_BYTES = 4 * 1024 * 1024
NO_COMMAND = "No such command '"

_CREDENTIALS = struct.Struct("=iII")
_ACCEPTS, _STREAM = "00010000", "0001"
_TABLE = 16 * 1024 * 1024
_CHUNK = 65_536
_LOG_LINE = 0x7F
"""The first byte of each line of Asterisk's log in an answer is this or a higher one (``VERBOSE_MAGIC``)."""


class Console(Protocol):
    """An object that answers commands of Asterisk's console."""

    @property
    def problem(self) -> str:
        """Why the console cannot be used; "" until a problem is known."""

    def show(self, what: str) -> str | None:
        """Return the output of the command ``what``.

        Return None if Asterisk does not know the command or does not answer.
        """


@frozen
class NoConsole:
    """The console of an Asterisk that cannot be asked. ``problem`` is the reason."""

    problem: str

    def show(self, _what: str) -> None:
        """Return None: there is no answer."""


class SocketConsole:
    """The console of the Asterisk with process id ``pid``, which runs as ``user``.

    ``timeout`` is the limit for one answer in seconds. ``problem`` is why the console cannot be used; ""
    until a problem is known.
    """

    def __init__(self, pid: int, user: FileUser, proc: Path = PROC, timeout: float = TIMEOUT) -> None:
        self._pid = pid
        self._user = user
        self._proc = proc
        self._timeout = timeout
        self.problem = ""

    def show(self, what: str) -> str | None:
        """Return the output of the command ``what``; None if Asterisk does not know it or does not answer.

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
        """Return a connection to the control socket. Raise OSError if it does not belong to this Asterisk."""
        path = control_socket(self._pid, self._proc)
        if path is None:
            raise OSError("it has no control socket (asterisk.ctl)")
        root = os.open(self._proc / str(self._pid) / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with opened_parent(path, root) as (folder, name), folder.acting() as descriptor:
                end = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(root)
        try:
            if not stat.S_ISSOCK(os.fstat(end).st_mode):
                raise OSError("its control socket was replaced by another file")
            return self._connected_to(end)
        finally:
            os.close(end)

    def _connected_to(self, end: int) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._timeout)
            with acting_as(self._user):
                connection.connect(f"/proc/self/fd/{end}")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except BaseException:
            connection.close()
            raise
        if _CREDENTIALS.unpack(credentials)[0] != self._pid:
            connection.close()
            raise OSError("its control socket belongs to another process")
        return connection


def local_console(folder: Path, proc: Path = PROC) -> SocketConsole | NoConsole:
    """Return the console of the Asterisk on this host whose configuration is in ``folder``.

    :func:`~ringfence.host.asterisk_servers.likely_servers` decides which Asterisk counts. One in another
    network namespace (a container) counts only if ``folder`` is its ``/etc/asterisk``.
    """
    found = [
        server
        for server in likely_servers(folder, proc)
        if server.same_network or is_same(proc / str(server.pid) / "root/etc/asterisk", folder)
    ]
    if len(found) == 1:
        return SocketConsole(found[0].pid, FileUser(found[0].uid, found[0].gid), proc)
    if found:
        return NoConsole(f"several Asterisks run here: {names_of(found)}")
    return NoConsole("no running Asterisk is visible here (fix: start it, or run this as root)")


def control_socket(pid: int, proc: Path = PROC) -> Path | None:
    """Return the path of a process's control socket, within its own root folder; None if it has none."""
    own = sockets_of(pid, proc)
    try:
        with (proc / str(pid) / "net/unix").open("rb") as file:
            table = file.read(_TABLE).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    rows = (line.split(maxsplit=7) for line in table.split("\n")[1:])
    found = [
        row[7]
        for row in rows
        if len(row) > 7 and (row[3], row[4]) == (_ACCEPTS, _STREAM) and int(row[6]) in own  # noqa: PLR2004
    ]
    paths = [Path(name) for name in found if name.startswith("/") and name.endswith(".ctl")]
    return paths[0] if paths else None


def _answer(connection: socket.socket, command: str, timeout: float) -> bytes:
    """Send a command, and return all that Asterisk sends until it closes the connection."""
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
    """Return the output of the command: what follows Asterisk's greeting, without lines of its log."""
    _, _, rest = data.partition(b"\n")
    kept = [line for line in rest.split(b"\n") if not line or line[0] < _LOG_LINE]
    return b"\n".join(kept).replace(b"\0", b"").decode("utf-8", "replace")
