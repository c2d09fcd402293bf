"""The daemon's side of the control socket (``control.py`` has the protocol, and the side of the commands).

A request does not begin after its client has closed the connection.

No client can stop the daemon. Each user has a limited share of connections, of running requests, of lists and
of memory (:class:`_Share`), and all users except root together have one more such share. So root always finds
room. Three rules bound what becomes of a client's bytes:

- A request of a user except root is at most 64 KiB long. Its Python objects take some 2 MB at most, and
  decoding it takes a millisecond or two, also if each byte is a bracket.
- A request has its place among the running requests before it is decoded, also if the daemon does not know
  it.
- A list (:class:`Encoded`) is made after it has a place among the lists, which it keeps until the client has
  read all of it. Its parts are made as the client reads them.

The daemon closes a connection after a minute without a request, and if a client needs longer than a minute to
read an answer. A stream has no such limit.
"""

import asyncio
import inspect
import json
import math
import os
import select
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import structlog
from attrs import define, frozen

from ringfence.control import CREDENTIALS, END, MAX_REQUEST, OK, connected, credentials_of
from ringfence.errors import ControlError, RingfenceError
from ringfence.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

MAX_REQUEST_OF_OTHERS = 64 * 1024
"""The maximum length (bytes) of a request of a user except root: enough for 1,000 addresses, IPv6 too.

1 MiB of empty lists, ``[[],[],…``, would become 38 MB of Python objects.
"""
IDLE_TIMEOUT = 60.0
"""Seconds until the daemon closes a connection on which no request arrives, or whose answer is not read."""
SIGN_EVERY = 0.5
"""Seconds between two blanks that the daemon sends to a client to show that it works on a request."""
MOST_CONNECTIONS = 128
"""The maximum number of connections of all users except root together. Root has as many of its own."""
MOST_OF_USER = 32
"""The maximum number of connections of one user except root."""
MOST_RUNNING, MOST_RUNNING_OF_USER = 4, 3
"""The maximum number of requests that run at the same time: of all users except root, and of one user.

It is smaller than the number of threads for such work (``threads.SHARED``), so root never waits.
"""
MOST_LISTS, MOST_LISTS_OF_USER = 2, 1
"""The maximum number of lists that are sent at the same time: of all users except root, and of one user.

The list of 262,000 bans takes some 20 MB while it is sent, and 40 MB more while the kernel is read.
"""
MOST_HELD, MOST_HELD_OF_USER = 32 * 1024 * 1024, 8 * 1024 * 1024
"""The maximum bytes that the daemon keeps in memory for all users except root, and for one user.

These are answers that are not read yet, and long requests that are incomplete or not handled yet. A user who
has none of them may get one longer answer. While half of the bytes are in use, no other request is handled.
"""
REST = 8.0
"""The seconds that a request keeps its place among the running ones for each second that it ran.

So the requests of users other than root take only a part of the daemon's time. Between two parts of a list of
such a user, the daemon pauses as long as the earlier part took.
"""
SHORTEST_REST, LONGEST_REST = 0.005, 1.0
_UNREAD = "too many answers wait until you read them; read them first"
_TOO_LONG = "the request is longer than {} bytes; send fewer values at once, or be root"
_STOP = 2.0  # seconds that requests have to end when the daemon stops
_BACKLOG = 8  # connections that are accepted before other tasks run, so that a flood of them delays no ban
_READ = 16 * 1024  # bytes that are read from a client at once
_WRITE = 256 * 1024  # bytes that are passed to the kernel at once
_WARN_EVERY = 60.0  # seconds between two log lines about the limit of connections


@frozen
class Peer:
    """The user id and the process id of a client when it connected, as the kernel reports them."""

    user: int
    process: int


PEER: ContextVar[Peer | None] = ContextVar("PEER", default=None)
"""The client whose request is being handled; None if it is unknown."""


_THREAD: ContextVar[Threads | None] = ContextVar("_THREAD", default=None)


async def in_thread(action: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run ``action``, which takes long, in a thread; return its result.

    The requests of all users except root share one thread. So root's requests contend with one thread for
    Python's lock, and the work of several requests is not in memory at the same time.
    """
    return await asyncio.get_running_loop().run_in_executor(
        _THREAD.get(), partial(action, *arguments, **named)
    )


@frozen
class Encoded:
    """The result of a request as JSON text in ``parts``, in order, each of some 100 kB.

    Each part ends between two tokens of JSON, because the daemon sends blanks while it makes the next one.

    The daemon makes each part in a thread, as the client reads them. So a list of 262,000 bans is never in
    memory as a whole. The iterator of the parts must do all the work, because it starts only when few enough
    other lists are sent. If the first part fails, the client gets the error. If a later part fails, its
    connection ends. So whatever may fail belongs to the first part.
    """

    parts: Iterable[bytes]


_ROWS = 500  # the number of rows in one part of a list


def encoded_rows(rows: Iterable[object]) -> Encoded:
    """Return ``rows`` as a JSON list in parts. All rows are read, perhaps from the database, for the first.

    Each row is encoded separately. Python runs one thread at a time, so the event loop waits while a row is
    encoded, but it can run between two rows. A whole list at once would stop it for longer.
    """
    return Encoded(_parts_of_list(rows))


def _parts_of_list(rows: Iterable[object]) -> Iterator[bytes]:
    encoded = [json.dumps(row).encode() for row in rows]
    between = b"["
    for start in range(0, len(encoded), _ROWS):
        yield between + b", ".join(encoded[start : start + _ROWS])
        between = b", "
    yield b"]" if encoded else b"[]"


@frozen
class Unrecorded:
    """The result of a change that is in force, but that the database could not record. ``why`` is the reason.

    The answer to the client is ``{"ok": RESULT, "not_recorded": WHY}``.
    """

    result: object
    why: str


@frozen
class Stream:
    """An answer that ends only when the client disconnects: lines of JSON, each with its newline."""

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
    clients = _Clients(handlers)
    before = os.umask(0o117)
    try:
        server = await asyncio.start_unix_server(clients.serve, path, limit=_READ, backlog=_BACKLOG)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}; see [control] socket") from None
    finally:
        os.umask(before)
    try:
        async with server:
            try:
                yield
            finally:
                await clients.end()
    finally:
        with suppress(OSError):  # another program may have removed it
            os.unlink(path)  # noqa: PTH108 - one short call needs no thread


def _remove_stale(path: Path) -> None:
    """Remove the socket ``path`` of a dead daemon. Raise ControlError if a daemon is or may be alive."""
    try:
        connected(path).close()
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
            writer.write(OK + b"true" + END)
            async for part in lines:
                writer.write(part)
                await writer.drain()

    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            with suppress(OSError):
                await reader.read(1)
            sending.cancel()
    except* OSError:
        writer.transport.abort()


def _peer_of(writer: asyncio.StreamWriter) -> Peer | None:
    """Return the client of a connection; None if the kernel does not report it."""
    try:
        found = credentials_of(writer.get_extra_info("socket"))
    except (AttributeError, OSError):
        return None
    process, user, _ = CREDENTIALS.unpack(found)
    return Peer(user, process)


@contextmanager
def _signs_of_life(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Send a blank every ``SIGN_EVERY`` seconds while the block runs, because its request may take long."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def send() -> None:
        nonlocal timer
        if not writer.is_closing():
            writer.write(b" ")
        timer = loop.call_later(SIGN_EVERY, send)

    timer = loop.call_later(SIGN_EVERY, send)
    try:
        yield
    finally:
        timer.cancel()


@define(eq=False)
class _Share:
    """The limits and the present use of the daemon by one user, or by all users except root together.

    ``connections`` is the number of open connections. ``held`` is the number of bytes of unread answers and
    of requests that are not handled yet. ``running`` limits the requests that run, and ``lists`` the lists
    that are sent. ``making`` is held while a part of a list is made. ``resting`` is the number of places that
    become free after a pause.
    """

    most_connections: int
    most_held: int
    running: asyncio.Semaphore
    lists: asyncio.Semaphore
    making: asyncio.Semaphore
    connections: int = 0
    held: int = 0
    resting: int = 0

    def has_room(self, size: int) -> bool:
        """Whether ``size`` more bytes may be kept in memory. If none are kept now, any size may be."""
        return self.held == 0 or self.held + size <= self.most_held


def _share(connections: int, held: int, running: int, lists: int, making: int = 1) -> _Share:
    """Return the share of one user, or of all users except root, with these limits and nothing in use."""
    return _Share(
        connections, held, asyncio.Semaphore(running), asyncio.Semaphore(lists), asyncio.Semaphore(making)
    )


class _Clients:
    """Serves the connections of all clients, and limits what each user can use up."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: dict[asyncio.Task[Any] | None, asyncio.Task[None]] = {}
        most = MOST_CONNECTIONS  # so no request of root waits for another one
        self._root = _share(most, MOST_HELD, running=most, lists=most, making=most)
        self._others = _share(most, MOST_HELD, MOST_RUNNING, MOST_LISTS)
        self._users: dict[int | None, _Share] = {}
        self._thread = Threads(1, "guests")
        self._thread.start()
        self._warned = -math.inf
        self._log = structlog.get_logger()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer every request of one client until it disconnects. Refuse a connection above the limits."""
        peer = _peer_of(writer)
        user = peer.user if peer is not None else None
        shares = self._shares(user)
        if any(share.connections >= share.most_connections for share in shares):
            self._warn(user)
            writer.write(_error("too many connections to the daemon are open; close some of them"))
            writer.close()
            return
        PEER.set(peer)  # only for this connection: each one is a task with its own context
        _THREAD.set(None if user == 0 else self._thread)
        self._writers.add(writer)
        for share in shares:
            share.connections += 1
        longest = MAX_REQUEST if user == 0 else MAX_REQUEST_OF_OTHERS
        connection, own = _Connection(self._handlers, shares, reader, writer, longest), asyncio.current_task()
        try:
            # A task of its own, because end() may cancel it. If asyncio's task of a client is cancelled,
            # Python 3.11.7 logs a traceback.
            async with asyncio.TaskGroup() as group:
                self._serving[own] = group.create_task(connection.serve())
        finally:
            self._serving.pop(own, None)
            self._writers.discard(writer)
            writer.close()
            for share in shares:
                share.connections -= 1

    def _shares(self, user: int | None) -> tuple[_Share, ...]:
        """Return the shares (limits and present use) that apply to a user; the user's own share is the last.

        The shares of other users are forgotten if they have no connection and no place that is still taken.
        """
        if user == 0:
            return (self._root,)
        self._users = {one: share for one, share in self._users.items() if share.connections or share.resting}
        if user not in self._users:
            self._users[user] = _share(
                MOST_OF_USER, MOST_HELD_OF_USER, MOST_RUNNING_OF_USER, MOST_LISTS_OF_USER
            )
        return (self._others, self._users[user])

    def _warn(self, user: int | None) -> None:
        """Log that a user has reached the limit of connections, at most once a minute for all users."""
        now = asyncio.get_running_loop().time()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            self._log.warning("control.limited", user=user, what="connections")

    async def end(self) -> None:
        """Abort all connections, so that the daemon's shutdown does not wait for a client.

        Requests that run have two seconds to end. Then they are cancelled.
        """
        for writer in self._writers:
            writer.transport.abort()
        clients = [client for client in self._serving if client is not None]
        if clients:
            await asyncio.wait(clients, timeout=_STOP)
        for serving in self._serving.values():
            serving.cancel()
        if self._serving:
            await asyncio.wait(clients)
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Connection:
    """One connection of a client. ``shares`` limit its user, ``longest`` the length of a request (bytes)."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        shares: Sequence[_Share],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        longest: int,
    ) -> None:
        self._handlers = handlers
        self._shares = shares
        self._reader = reader
        self._writer = writer
        self._longest = longest
        self._unread = bytearray()
        self._held = 0
        self._patience = 0.0  # seconds that the client has to read the rest of the present answer
        self._log = structlog.get_logger()

    async def serve(self) -> None:
        """Answer the client's requests until it disconnects, is idle, or does not read its answer."""
        try:
            while line := await self._line():
                with _signs_of_life(self._writer):
                    answer = await self._answer(line)
                if isinstance(answer, Stream):
                    self._hold(0)
                    await _send_until_gone(answer, self._reader, self._writer)
                    break
                self._patience = IDLE_TIMEOUT
                if isinstance(answer, Encoded):
                    await self._send_list(answer)
                else:
                    await self._send(answer)
        except OSError:
            self._writer.transport.abort()  # the client has disconnected, is idle, or does not read
        finally:
            self._hold(0)

    def _hold(self, size: int) -> None:
        """Count ``size`` bytes as kept in memory for this connection, instead of those counted before."""
        for share in self._shares:
            share.held += size - self._held
        self._held = size

    async def _line(self) -> bytes:
        """Return the next request, a line; b"" if the client disconnects before its end.

        If the request is too long, send an error and return b"". A long request stays counted until its
        answer is known. Raise ConnectionError if the user's share has no room for it, TimeoutError if it is
        incomplete after ``IDLE_TIMEOUT`` seconds.
        """
        async with asyncio.timeout(IDLE_TIMEOUT):
            searched = 0
            while (end := self._unread.find(b"\n", searched, self._longest)) < 0:
                searched = len(self._unread)
                if searched >= self._longest:
                    self._writer.write(_error(_TOO_LONG.format(self._longest)))
                    return b""
                if searched > _READ:
                    if not all(share.has_room(_READ) for share in self._shares):
                        raise ConnectionError("too many long requests")
                    self._hold(searched)
                part = await self._reader.read(_READ)
                if not part:
                    return b""
                self._unread += part
        line = bytes(self._unread[: end + 1])
        del self._unread[: end + 1]
        return line

    async def _send(self, answer: bytes) -> None:
        """Send an answer, a line of JSON; replace one of more than 16 KiB by an error if memory is short.

        That is so if a share (of the user, or of all users except root) has no room for the answer beside the
        unread answers and the requests that are not handled yet.
        """
        self._hold(0)  # the request
        if len(answer) > _READ and not all(share.has_room(len(answer)) for share in self._shares):
            answer = _error(_UNREAD)
        self._hold(len(answer))
        await self._write(answer)
        self._hold(0)

    async def _send_list(self, answer: Encoded) -> None:
        """Make and send the parts of a list, after waiting until few enough lists of the user are sent.

        Raise ConnectionError if the client has disconnected, or if a part after the first one fails.
        """
        self._hold(0)
        async with AsyncExitStack() as stack:
            with _signs_of_life(self._writer):
                for share in reversed(self._shares):
                    await stack.enter_async_context(share.lists)
            self._require_client()  # it may have waited for long
            parts = iter(answer.parts)
            try:
                part = await self._next_part(parts)
            except Exception as error:  # noqa: BLE001 - as in _answer
                await self._write(self._failed(error))
                return
            await self._write(OK)
            try:
                while part is not None:
                    await self._write(part)
                    part = await self._next_part(parts)
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                self._log.exception("control.defect")
                raise ConnectionError("the list is incomplete") from error
            await self._write(END)

    async def _next_part(self, parts: Iterator[bytes]) -> bytes | None:
        """Return the next of ``parts``, which a thread makes; None after the last one.

        Of all users except root, one part is made at a time.
        """
        loop = asyncio.get_running_loop()
        taken: list[asyncio.Semaphore] = []
        began = loop.time()
        try:
            with _signs_of_life(self._writer):
                for share in reversed(self._shares):
                    await share.making.acquire()
                    taken.append(share.making)
                began = loop.time()
                return await in_thread(next, parts, None)
        finally:
            self._rest(taken, min(LONGEST_REST, loop.time() - began))

    async def _write(self, data: bytes) -> None:
        """Write bytes to the client.

        Raise TimeoutError if the client has not read its answer in time, and ConnectionError if the kernel
        refuses.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(self._patience):
            for start in range(0, len(data), _WRITE):
                self._writer.write(data[start : start + _WRITE])
                try:
                    await self._writer.drain()
                except OSError as error:
                    raise ConnectionError("the answer cannot be sent") from error
                await asyncio.sleep(0)  # drain() does not wait if the client is fast: let other tasks run
        self._patience -= loop.time() - began

    async def _answer(self, line: bytes) -> bytes | Encoded | Stream:
        """Return the answer to the request ``line``, after waiting until few enough of the user's run.

        An error of the request is an answer, too. Raise ConnectionError if the client has disconnected.
        """
        if any(share.held > share.most_held // 2 for share in self._shares):
            return _error(_UNREAD)
        loop = asyncio.get_running_loop()
        taken: list[asyncio.Semaphore] = []
        began = loop.time()
        try:
            for share in reversed(self._shares):  # the user's own share first: one user blocks no other
                await share.running.acquire()
                taken.append(share.running)
            self._require_client()
            began = loop.time()
            result = await self._result(line)
            if isinstance(result, Encoded | Stream):
                return result
            if isinstance(result, Unrecorded):
                return json.dumps({"ok": result.result, "not_recorded": result.why}).encode() + b"\n"
            return json.dumps({"ok": result}).encode() + b"\n"
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect is logged in full and reported, and does not stop the daemon
            return self._failed(error)
        finally:
            # The places become free after a pause, although the answer is sent at once.
            self._rest(taken, min(LONGEST_REST, max(SHORTEST_REST, REST * (loop.time() - began))))

    async def _result(self, line: bytes) -> object:
        try:
            request = json.loads(line)
            handler = self._handlers[request.pop("do")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ControlError(
                "the daemon does not know this request; is the command of the same version?"
            ) from None
        result = handler(request)
        return await result if inspect.isawaitable(result) else result

    def _require_client(self) -> None:
        """Raise ConnectionError if the client has closed its socket: its request then causes no work."""
        if self._writer.is_closing():
            raise ConnectionError("the connection is closed")
        found = select.poll()
        found.register(self._writer.get_extra_info("socket"), 0)
        if found.poll(0):
            raise ConnectionError("the client has disconnected")

    def _failed(self, error: Exception) -> bytes:
        """Return the answer (a line of JSON) to a request that failed with ``error``; log a defect."""
        if isinstance(error, RingfenceError):
            return _error(str(error))
        self._log.exception("control.defect")
        return _error(f"a defect in ringfence ({type(error).__name__}); see the daemon's log")

    def _rest(self, places: Sequence[asyncio.Semaphore], pause: float) -> None:
        """Release the places that a request took, after ``pause`` seconds. Root never runs out of places."""
        if places:
            for share in self._shares:
                share.resting += 1
            asyncio.get_running_loop().call_later(pause, _release, places, self._shares)


def _release(places: Iterable[asyncio.Semaphore], shares: Iterable[_Share]) -> None:
    for place in places:
        place.release()
    for share in shares:
        share.resting -= 1


def _error(text: str) -> bytes:
    return json.dumps({"error": text}).encode() + b"\n"
