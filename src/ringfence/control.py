"""The control socket: JSON lines between the daemon and its commands.

A request is one line, ``{"do": "ban", …}``; its answer is one line too, ``{"ok": RESULT}`` or ``{"error":
TEXT}``. If a change is in force, but the database could not record it, the answer also has the key
``not_recorded`` with the reason. A connection may carry many requests. An answer may be a stream of lines
without an end (``control_server.Stream``); a stream is the last answer of its connection. The socket is a
unix socket of mode 0660 in the daemon's runtime folder. There is no login: the kernel reports the user and
the process of each client (``control_server.PEER``), and the handlers decide what this user may do.

While a request runs, the daemon sends a blank every half second, which JSON permits before a value. So a
client distinguishes long work from a daemon that hangs.

Here is the side of the commands; ``control_server.py`` is that of the daemon.
"""

import fcntl
import json
import socket
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ringfence.errors import (
    ControlError,
    DaemonUnreachableError,
    HangingError,
    NoAccessError,
    NoAnswerError,
)

_LISTENS = "00010000"  # the flag of a listening socket in /proc/net/unix
CREDENTIALS = struct.Struct("iII")  # struct ucred: process, user, group
OK, END = b'{"ok": ', b"}\n"
MAX_REQUEST = 1024 * 1024
"""The maximum length of one of root's requests, and of a line of a stream (bytes)."""
MAX_ANSWER = 256 * 1024 * 1024  # enough for a list of a million bans
MOST_LISTED = 8_388_608
"""The maximum of the field ``most`` of the request ``bans``: the kernel's sets never have more bans."""
MOST_ENDED = 10_000
"""The maximum number of ended bans that one answer has: those that ended last."""
MOST_PAST = 2_000
"""The maximum number of past alarms that one answer has: those that cleared last."""
LINE_KINDS = ("event", "attempt", "ban", "alarm")
"""The kinds of news lines that the daemon sends to commands that follow it. A command can choose kinds."""
ANSWER_TIMEOUT = 30.0  # seconds that a command waits for its answer while the daemon works on it
SILENCE = 2.0
"""Seconds in which the daemon sends no byte and uses no processor, after which a client calls it hung."""
_PART = 65_536  # bytes of a stream that are read at once
_LOOK = 0.3  # seconds in which a daemon that works uses the processor


def ask(
    path: Path,
    do: str,
    *,
    timeout: float = ANSWER_TIMEOUT,
    unrecorded: list[str] | None = None,
    **arguments: Any,  # noqa: ANN401 - JSON
) -> Any:  # noqa: ANN401 - JSON
    """Send a request to the daemon at the socket ``path``, and return its result.

    ``unrecorded`` gets the reason if the change is in force, but not recorded.

    Wait at most ``timeout`` seconds until the answer begins, and ``SILENCE`` seconds for a sign of the
    daemon: a byte, or use of the processor.
    Raise ControlError if the daemon refuses the request, and DaemonUnreachableError if no daemon answers. Its
    subclass NoAnswerError is raised if the request was sent but no answer came. Then the daemon may have
    carried out the request. If a daemon exists but hangs, it is a HangingError.
    """
    return _result(_exchange(path, do, arguments, timeout), path, unrecorded)


def ask_encoded(path: Path, do: str, **arguments: object) -> bytes:
    """Send a request, and return the result as encoded JSON. Raise the same errors as :func:`ask`."""
    line = _exchange(path, do, arguments)
    if line.startswith(OK) and line.endswith(END):
        return line[len(OK) : -len(END)]
    return json.dumps(_result(line, path)).encode()


def follow(path: Path, do: str, **arguments: object) -> Iterator[dict[str, Any]]:
    """Send a request whose answer is a :class:`Stream`, and yield each of its lines, decoded from JSON.

    The stream never ends normally: raise DaemonUnreachableError when the daemon ends. If the request fails,
    raise the same errors as :func:`ask`.
    """
    with _connect(path) as connection:
        lines = _lines(connection)
        with _errors_named(path, connection):
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            if (first := next(lines, b"")) is None:
                raise TimeoutError
        _result(first, path)
        with suppress(OSError):
            for line in lines:
                if line:
                    yield json.loads(line)
    raise DaemonUnreachableError(f"the daemon at {path} has ended")


def _lines(connection: socket.socket) -> Iterator[bytes | None]:
    """Yield each whole line that arrives, and None whenever nothing arrives within ``SILENCE`` seconds.

    A read may not wait for ever: if Ctrl-C comes just before a read waits, Python handles it after the read.
    """
    connection.settimeout(SILENCE)
    rest = b""  # a killed daemon may leave half a line
    while len(rest) < MAX_REQUEST:
        try:
            part = connection.recv(_PART)
        except TimeoutError:
            yield None
            continue
        if not part:
            return
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def _exchange(path: Path, do: str, arguments: Mapping[str, object], timeout: float = ANSWER_TIMEOUT) -> bytes:
    with _connect(path) as connection, _errors_named(path, connection):
        with suppress(BrokenPipeError):  # a daemon that refuses the connection has sent the reason before
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return _read_line(connection, timeout)


@contextmanager
def _errors_named(path: Path, connection: socket.socket) -> Iterator[None]:
    """Raise NoAnswerError for an OSError in the block, HangingError for a timeout; ``path`` is the socket."""
    try:
        yield
    except TimeoutError:
        raise _hanging(connection) from None
    except OSError as error:
        raise NoAnswerError(
            f"the daemon at {path} gave no answer ({error.strerror}); it may have carried out the request; "
            "see its log, then try again"
        ) from None


def _hanging(connection: socket.socket) -> HangingError:
    """Withdraw the request that was sent on ``connection``; return the error about a daemon that hangs."""
    process = _process_at(connection)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # from here on, the daemon does not begin the request
    # SIOCOUTQ has the same number. The daemon never carries out what it has not read before the shutdown.
    unread = any(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    request = "will not be carried out" if unread else "may still be carried out when the daemon goes on"
    return _hangs(process, f"This request {request}.")


def _hangs(process: int, request: str) -> HangingError:
    which = f" (process {process}{_state_of(process)})" if process else ""
    return HangingError(
        f"the daemon{which} hangs: no sign of it for {SILENCE:.0f} s. The bans in the kernel stay, and "
        "nobody new is banned; fix: systemctl restart ringfence.",
        request,
    )


def _process_at(connection: socket.socket) -> int:
    """Return the id of the process that listens at the other end; 0 if it is in another namespace."""
    process: int = CREDENTIALS.unpack(credentials_of(connection))[0]
    return process


def _time_used(process: int) -> str:
    """Return a process's processor time as text. It grows during work, also if the event loop is blocked."""
    return " ".join(_fields_of(process)[11:13])


def _state_of(process: int) -> str:
    """Return why a process does not run, such as ``, stopped by a signal``; "" if no reason is known."""
    reasons = {"T": ", stopped by a signal", "t": ", stopped by a debugger", "D": ", waiting for a disk"}
    return reasons.get("".join(_fields_of(process)[:1]), "")


def _fields_of(process: int) -> list[str]:
    """Return the fields of /proc/PROCESS/stat from the state on; none if it cannot be read."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(") ")[2].split()
    except OSError:
        return []


def _result(line: bytes, path: Path, unrecorded: list[str] | None = None) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        answer = json.loads(line)
        if "error" not in answer:
            if unrecorded is not None and "not_recorded" in answer:
                unrecorded.append(str(answer["not_recorded"]))
            return answer["ok"]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise NoAnswerError(
            f"the answer at {path} is not valid: is another program listening there?"
        ) from None
    raise ControlError(str(answer["error"]))


def _connect(path: Path) -> socket.socket:
    try:
        return _connected_in_time(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise DaemonUnreachableError(
            f"no daemon listens at {path}; start it: systemctl start ringfence"
        ) from None
    except PermissionError as error:
        raise NoAccessError(f"{path}: {error.strerror}; fix: be root, or in the daemon's group") from None
    except OSError as error:  # this process may have no descriptor left, for example; a daemon may run
        raise NoAccessError(f"cannot connect to the daemon at {path}: {error}; try again") from None


def _connected_in_time(path: Path) -> socket.socket:
    """Return a connection to the daemon's socket ``path``, once its queue of connections has room.

    Raise HangingError if the queue stays full while the daemon uses no processor time, or in any case after
    ``ANSWER_TIMEOUT`` seconds.
    """
    until, process = time.monotonic() + ANSWER_TIMEOUT, 0
    while True:
        try:
            return connected(path)
        except BlockingIOError:
            process = process or _listener_at(path)
            before = _time_used(process)
            time.sleep(_LOOK)
            if _time_used(process) == before or time.monotonic() > until:
                raise _hangs(process, "This request was not sent.") from None


def _listener_at(path: Path) -> int:
    """Return the id of the process that listens at ``path``; 0 if none is found. Only root finds all."""
    with suppress(OSError):
        rows = [line.split() for line in Path("/proc/net/unix").read_text("utf-8", "replace").split("\n")]
        links = {f"socket:[{row[6]}]" for row in rows if row[7:] == [str(path)] and row[3] == _LISTENS}
        for file in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                if str(file.readlink()) in links:
                    return int(file.parts[2])
    return 0


def connected(path: Path) -> socket.socket:
    """Return a connection to the socket ``path``. Raise OSError: BlockingIOError if its queue stays full.

    The kernel waits up to ``SILENCE`` seconds for room in the queue of new connections. With a time limit of
    Python, connect() would not wait.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    seconds = int(SILENCE)
    limit = struct.pack("ll", seconds, int((SILENCE - seconds) * 1_000_000))
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.connect(str(path))
        connection.settimeout(SILENCE)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_line(connection: socket.socket, timeout: float) -> bytes:
    """Return the daemon's answer, a line of JSON, without the blanks before it.

    Raise NoAnswerError if it does not begin within ``timeout`` seconds, or if it is incomplete. Raise
    TimeoutError if the daemon sends nothing for ``SILENCE`` seconds, and does not run either.
    """
    line = bytearray()
    until = time.monotonic() + timeout
    process = _process_at(connection)
    used = _time_used(process)
    while not line.endswith(b"\n"):
        left = SILENCE if line else min(SILENCE, until - time.monotonic())
        part = None
        if left > 0:
            connection.settimeout(left)
            with suppress(TimeoutError):
                part = connection.recv(1024 * 1024)
        if part is None and left == SILENCE:
            before, used = used, _time_used(process)
            if used == before:
                raise TimeoutError
        elif part is None:
            raise NoAnswerError(
                f"the daemon has not answered within {timeout:g} s; it may still carry out the request"
            )
        elif not part or len(line) > MAX_ANSWER:
            raise NoAnswerError(
                "the daemon's answer is incomplete; it may have carried out the request; see its log, then "
                "try again"
            )
        else:
            line += part if line else part.lstrip(b" ")
    return bytes(line)


def credentials_of(connection: socket.socket) -> bytes:
    """Return the ids of the process, user and group at the other end, packed by the struct CREDENTIALS."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
