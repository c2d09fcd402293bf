"""The control socket: JSON lines between the daemon and its commands.

A request is one line, ``{"do": "ban", …}``; its answer is one line too, ``{"ok": RESULT}`` or
``{"error": TEXT}``. A connection may carry many. The socket is a unix socket of mode 0660 in the daemon's
runtime folder: whoever may open it may do everything, so there is no login. A request is at most 1 MiB; a
client that says nothing for a minute, or takes nothing of its answer, is let go: an answer of 100 000 bans is
18 MB here until it is taken.
"""

import asyncio
import inspect
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import structlog
from attrs import frozen

from ringfence.errors import ControlError, DaemonUnreachableError, RingfenceError

_OK, _END = b'{"ok": ', b"}\n"
MAX_REQUEST = 1024 * 1024
MAX_ANSWER = 256 * 1024 * 1024  # a list of a million bans
IDLE = 60.0  # seconds
PATIENCE = 30.0  # seconds that a command waits for its answer


@frozen
class Encoded:
    """A result that is JSON already, in parts: what would be a hundred thousand objects need not be."""

    parts: Iterable[bytes]


Handler = Callable[[Mapping[str, Any]], object]
"""What answers a request: its result, or a coroutine that gives it."""


@asynccontextmanager
async def serve(path: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
    """Answer on ``path`` while the block runs. A socket left by a dead daemon is replaced.

    A handler gives what JSON can carry; a RingfenceError of its is the client's answer. Raises ControlError
    where the socket cannot be made, or another daemon answers there.
    """
    _clear(path)
    conversation = _Conversation(handlers)
    before = os.umask(0o117)
    try:
        server = await asyncio.start_unix_server(conversation.hold, path, limit=MAX_REQUEST)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}; see [control] socket") from None
    finally:
        os.umask(before)
    try:
        async with server:
            try:
                yield
            finally:
                conversation.end()
    finally:
        with suppress(OSError):  # somebody has cleared it away
            os.unlink(path)  # noqa: PTH108 - no async way is wanted for one system call


def ask(path: Path, do: str, *, patience: float = PATIENCE, **arguments: object) -> Any:  # noqa: ANN401 - JSON
    """Ask the daemon at ``path`` for something and give its answer, which may take ``patience`` seconds.

    Raises DaemonUnreachableError where none answers, ControlError where it refuses.
    """
    return _result(_exchange(path, do, arguments, patience), path)


def ask_encoded(path: Path, do: str, **arguments: object) -> bytes:
    """Ask for something and give the answer as the JSON that it came in; raises what :func:`ask` raises."""
    line = _exchange(path, do, arguments)
    if line.startswith(_OK) and line.endswith(_END):
        return line[len(_OK) : -len(_END)]
    return json.dumps(_result(line, path)).encode()


def _exchange(path: Path, do: str, arguments: Mapping[str, object], patience: float = PATIENCE) -> bytes:
    with _connect(path) as connection:
        connection.settimeout(patience)
        try:
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            return _read_line(connection)
        except OSError as error:
            raise DaemonUnreachableError(f"the daemon at {path} does not answer: {error}") from None


def _result(line: bytes, path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        answer = json.loads(line)
        if "error" not in answer:
            return answer["ok"]
    except (ValueError, TypeError, LookupError):
        raise DaemonUnreachableError(f"the answer at {path} makes no sense: is that ringfence?") from None
    raise ControlError(str(answer["error"]))


def _connect(path: Path) -> socket.socket:
    try:
        return _opened(path)
    except (FileNotFoundError, ConnectionRefusedError):
        raise DaemonUnreachableError(
            f"no daemon listens at {path}; start it: systemctl start ringfence"
        ) from None
    except PermissionError as error:
        raise DaemonUnreachableError(f"{path}: {error.strerror}; be root, or in the daemon's group") from None
    except OSError as error:
        raise DaemonUnreachableError(f"the daemon at {path} does not answer: {error}") from None


def _opened(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
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
            raise DaemonUnreachableError("the daemon broke off its answer; see its log")
        line += part
    return bytes(line)


def _clear(path: Path) -> None:
    """Remove what a dead daemon left; refuse where one is alive."""
    try:
        _opened(path).close()
    except (FileNotFoundError, ConnectionRefusedError):
        with suppress(OSError):
            if path.is_socket():
                path.unlink()
    except OSError as error:  # a daemon that is alive and busy, perhaps: its socket stays
        raise ControlError(f"{path} cannot be taken over: {error}; see [control] socket") from None
    else:
        raise ControlError(f"another daemon answers at {path}")


class _Conversation:
    """One client after another, one line after another."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._clients: set[asyncio.StreamWriter] = set()
        self._log = structlog.get_logger()

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer every line of one client until it leaves."""
        self._clients.add(writer)
        try:
            while line := await self._line(reader):
                for part in await self._answer(line):
                    writer.write(part)
                    async with asyncio.timeout(IDLE):
                        await writer.drain()
                    await asyncio.sleep(0)  # drain alone lets nobody pass as long as the client is quick
        except (ConnectionError, TimeoutError):
            writer.transport.abort()  # the client has gone, or has nothing to say and takes nothing
        finally:
            self._clients.discard(writer)
            writer.close()

    def end(self) -> None:
        """Send everybody home: the end of the daemon waits for no client."""
        for writer in self._clients:
            writer.transport.abort()

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(IDLE):
            try:
                return await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return b""
            except asyncio.LimitOverrunError:
                raise ConnectionError("a request longer than may be") from None

    async def _answer(self, line: bytes) -> Iterable[bytes]:
        try:
            result = await self._result(line)
            encoded = result.get("ok")
            if isinstance(encoded, Encoded):
                return chain((_OK,), encoded.parts, (_END,))
            return (json.dumps(result).encode() + b"\n",)
        except Exception as error:  # noqa: BLE001 - a defect is logged in full and told, and stops no daemon
            self._log.exception("control.defect")
            defect = f"a defect in ringfence ({type(error).__name__}); see the daemon's log"
            return (json.dumps({"error": defect}).encode() + b"\n",)

    async def _result(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            handler = self._handlers[request.pop("do")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"error": "not a request that this daemon knows; is the command of the same version?"}
        try:
            result = handler(request)
            return {"ok": await result if inspect.isawaitable(result) else result}
        except RingfenceError as error:
            return {"error": str(error)}
