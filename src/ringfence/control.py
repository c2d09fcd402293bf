"""The control socket: JSON lines between the daemon and its commands.

A request is one line, ``{"do": "ban", …}``; its answer is one line too, ``{"ok": RESULT}`` or ``{"error":
TEXT}``. A connection may carry many requests. An answer may be a stream of lines without an end
(:class:`Stream`); a stream is the last answer of its connection. The socket is a unix socket of mode 0660 in
the daemon's runtime folder. Its permissions are the only access control: there is no login. A request is at
most 1 MiB.

The daemon closes a connection after a minute without a request. It also closes a connection if the client
does not read its answer for a minute, because an answer with 100,000 bans takes 18 MB of memory until it is
read. A stream has no such limit.
"""

import asyncio
import inspect
import json
import os
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import structlog
from attrs import frozen

from ringfence.errors import ControlError, DaemonUnreachableError, NoAnswerError, RingfenceError

_CREDENTIALS = struct.Struct("iII")  # struct ucred: process, user, group
_OK, _END = b'{"ok": ', b"}\n"
MAX_REQUEST = 1024 * 1024
MAX_ANSWER = 256 * 1024 * 1024  # enough for a list of a million bans
LINE_KINDS = ("event", "attempt", "ban", "alarm")
"""The kinds of lines in the daemon's live feed. A command can choose which kinds it gets."""
USER: ContextVar[int | None] = ContextVar("USER", default=None)
"""The user id of the client whose request is being handled, as the kernel reports it; None if unknown."""
IDLE_TIMEOUT = 60.0  # seconds until the daemon closes a connection on which nothing happens
ANSWER_TIMEOUT = 30.0  # seconds that a command waits for its answer


@frozen
class Encoded:
    """A result that is JSON text already; ``parts`` are its pieces, in order.

    So the daemon can send a list of 100,000 bans without keeping a Python object for each ban.
    """

    parts: Iterable[bytes]


def encoded_rows(rows: Iterable[object]) -> Encoded:
    """Encode a list as JSON; callers run this in a thread.

    Each row is encoded separately. Python runs one thread at a time, so the event loop waits while a row is
    encoded, but it can run between two rows. A whole list at once would stop it for longer.
    """
    return Encoded((b"[", b", ".join(json.dumps(row).encode() for row in rows), b"]"))


@frozen
class Stream:
    """A result that has no end, until the client disconnects: lines of JSON, each with its line feed."""

    lines: AsyncIterator[bytes]


Handler = Callable[[Mapping[str, Any]], object]
"""A function that handles a request: it returns the result, or a coroutine that returns it."""


@asynccontextmanager
async def serve(path: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
    """Serve requests on the socket ``path`` while the block runs. The socket of a dead daemon is replaced.

    ``handlers`` has a handler for each value of ``do``. A handler returns a value that JSON can represent, an
    :class:`Encoded` or a :class:`Stream`. If it raises a RingfenceError, the client gets the text of the
    error. Raise ControlError if the socket cannot be created, or if another daemon answers there.
    """
    _remove_stale(path)
    connections = _Connections(handlers)
    before = os.umask(0o117)
    try:
        server = await asyncio.start_unix_server(connections.serve, path, limit=MAX_REQUEST)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}; see [control] socket") from None
    finally:
        os.umask(before)
    try:
        async with server:
            try:
                yield
            finally:
                connections.abort()
    finally:
        with suppress(OSError):  # another program may have removed it
            os.unlink(path)  # noqa: PTH108 - one short call needs no thread


def ask(path: Path, do: str, *, timeout: float = ANSWER_TIMEOUT, **arguments: object) -> Any:  # noqa: ANN401 - JSON
    """Send a request to the daemon at the socket ``path``, and return its result.

    Wait at most ``timeout`` seconds for each part of the answer. Raise ControlError if the daemon refuses the
    request, and DaemonUnreachableError if no daemon answers. Its subclass NoAnswerError is raised if the
    request was sent but no answer came. Then the daemon may have carried out the request.
    """
    return _result(_exchange(path, do, arguments, timeout), path)


def ask_encoded(path: Path, do: str, **arguments: object) -> bytes:
    """Send a request, and return the result as encoded JSON. Raise the same errors as :func:`ask`."""
    line = _exchange(path, do, arguments)
    if line.startswith(_OK) and line.endswith(_END):
        return line[len(_OK) : -len(_END)]
    return json.dumps(_result(line, path)).encode()


def follow(path: Path, do: str, **arguments: object) -> Iterator[dict[str, Any]]:
    """Send a request whose answer is a :class:`Stream`, and yield each of its lines, decoded from JSON.

    The stream never ends normally: raise DaemonUnreachableError when the daemon ends. If the request fails,
    raise the same errors as :func:`ask`.
    """
    with _connect(path) as connection, connection.makefile("rb") as lines:
        try:
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            first = lines.readline(MAX_REQUEST)
        except OSError as error:
            raise DaemonUnreachableError(f"the daemon at {path} does not answer: {error}") from None
        _result(first, path)
        connection.settimeout(None)
        while (line := _next_line(lines)).endswith(b"\n"):  # a killed daemon may leave half a line
            yield json.loads(line)
    raise DaemonUnreachableError(f"the daemon at {path} has ended")


def _next_line(lines: BinaryIO) -> bytes:
    try:
        return lines.readline(MAX_REQUEST)
    except OSError:
        return b""


def _exchange(path: Path, do: str, arguments: Mapping[str, object], timeout: float = ANSWER_TIMEOUT) -> bytes:
    with _connect(path) as connection:
        connection.settimeout(timeout)
        try:
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            return _read_line(connection)
        except OSError as error:
            raise NoAnswerError(f"the daemon at {path} does not answer: {error}") from None


def _result(line: bytes, path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        answer = json.loads(line)
        if "error" not in answer:
            return answer["ok"]
    except (ValueError, TypeError, LookupError):
        raise NoAnswerError(
            f"the answer at {path} is not valid: is another program listening there?"
        ) from None
    raise ControlError(str(answer["error"]))


def _connect(path: Path) -> socket.socket:
    try:
        return _connected(path)
    except (FileNotFoundError, ConnectionRefusedError):
        raise DaemonUnreachableError(
            f"no daemon listens at {path}; start it: systemctl start ringfence"
        ) from None
    except PermissionError as error:
        raise DaemonUnreachableError(
            f"{path}: {error.strerror}; fix: be root, or in the daemon's group"
        ) from None
    except OSError as error:
        raise DaemonUnreachableError(f"the daemon at {path} does not answer: {error}") from None


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_TIMEOUT)
    try:
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        part = connection.recv(1024 * 1024)
        if not part or len(line) > MAX_ANSWER:
            raise NoAnswerError("the daemon's answer is incomplete; see its log")
        line += part
    return bytes(line)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a dead daemon. Raise ControlError if a daemon is alive, or may be alive."""
    try:
        _connected(path).close()
    except (FileNotFoundError, ConnectionRefusedError):
        with suppress(OSError):
            if path.is_socket():
                path.unlink()
    except OSError as error:  # a daemon may be alive but busy: keep its socket
        raise ControlError(f"cannot replace the socket {path}: {error}; see [control] socket") from None
    else:
        raise ControlError(f"another daemon answers at {path}")


async def _send_until_gone(
    stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send the lines of a stream until the client disconnects or sends anything.

    A client that does not read may keep its stream open for ever: it delays only itself.
    """

    async def send() -> None:
        async with aclosing(cast("AsyncGenerator[bytes, None]", stream.lines)) as lines:
            writer.write(_OK + b"true" + _END)
            async for part in lines:
                writer.write(part)
                await writer.drain()

    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            with suppress(ConnectionError):
                await reader.read(1)
            sending.cancel()
    except* ConnectionError:
        writer.transport.abort()


def _user_of(writer: asyncio.StreamWriter) -> int | None:
    """Return the user id of the client; None if the kernel does not report it."""
    try:
        found = writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
    except (AttributeError, OSError):
        return None
    _, user, _ = _CREDENTIALS.unpack(found)
    return int(user)


class _Connections:
    """Serves the connections of all clients."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._clients: set[asyncio.StreamWriter] = set()
        self._log = structlog.get_logger()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer every request of one client until it disconnects."""
        self._clients.add(writer)
        USER.set(_user_of(writer))  # only for this connection: each one is a task with its own context
        try:
            while line := await self._line(reader):
                answer = await self._answer(line)
                if isinstance(answer, Stream):
                    await _send_until_gone(answer, reader, writer)
                    break
                for part in answer:
                    writer.write(part)
                    async with asyncio.timeout(IDLE_TIMEOUT):
                        await writer.drain()
                    await asyncio.sleep(0)  # let other tasks run: drain() does not wait if the client is fast
        except (ConnectionError, TimeoutError):
            writer.transport.abort()  # the client has disconnected, is idle, or does not read
        finally:
            self._clients.discard(writer)
            writer.close()

    def abort(self) -> None:
        """Abort all connections, so that the daemon's shutdown does not wait for a client."""
        for writer in self._clients:
            writer.transport.abort()

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(IDLE_TIMEOUT):
            try:
                return await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return b""
            except asyncio.LimitOverrunError:
                raise ConnectionError("the request is too long") from None

    async def _answer(self, line: bytes) -> Iterable[bytes] | Stream:
        try:
            result = await self._result(line)
            encoded = result.get("ok")
            if isinstance(encoded, Stream):
                return encoded
            if isinstance(encoded, Encoded):
                return chain((_OK,), encoded.parts, (_END,))
            return (json.dumps(result).encode() + b"\n",)
        except Exception as error:  # noqa: BLE001 - a defect is logged in full and reported, and does not stop the daemon
            self._log.exception("control.defect")
            defect = f"a defect in ringfence ({type(error).__name__}); see the daemon's log"
            return (json.dumps({"error": defect}).encode() + b"\n",)

    async def _result(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            handler = self._handlers[request.pop("do")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"error": "the daemon does not know this request; is the command of the same version?"}
        try:
            result = handler(request)
            return {"ok": await result if inspect.isawaitable(result) else result}
        except RingfenceError as error:
            return {"error": str(error)}
