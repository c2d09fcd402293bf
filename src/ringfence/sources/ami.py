"""The manager interface of one Asterisk as a source: connect, log in, listen, and reconnect after each end.

The library panoramisk, which only this module imports, provides the connection, the actions and the matching
of replies. Three parts of it are replaced, because of faults in version 1.4:

- Decoding: its protocol decodes every TCP chunk separately (a character at the border of two chunks is lost),
  keeps an unbounded queue and trusts any header. Ours passes the bytes to
  :class:`ringfence.parse.ami.AmiDecoder`.
- Ping: its ping ignores the reply. Ours closes the connection if for 5 s no reply and no event comes.
- Reconnection: its own always waits 2 s, cannot be cancelled, and logs whole actions with the login's secret.
  Ours is in :meth:`AmiSource.run`, and the protocol logs nothing.

The login answers an MD5 challenge, also under TLS, so the secret itself is never sent to an unknown program
on the port. Every Asterisk offers the challenge (``main/manager.c``). Asterisk does not report whether it
granted the class ``security``. But the login causes an event SuccessfulAuth, which only a listener with that
class receives. If the event does not come, the state is *no events*.

Before the login, the user of a program of this host is checked (:meth:`AmiSource._refuse_foreign_user`), and
no event counts.
"""

import asyncio
import contextlib
import math
import os
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import md5
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog
from attrs import frozen
from panoramisk import Manager
from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from ringfence.clock import Backoff
from ringfence.file_rights import open_regular
from ringfence.gathering import patient
from ringfence.netlink.sock_diag import peer_user
from ringfence.parse.address import unmapped
from ringfence.parse.ami import AmiCounts, AmiDecoder
from ringfence.parse.ami_http import AmiItem, Banner, Reply
from ringfence.parse.roster import RosterEvent
from ringfence.sources import roster
from ringfence.sources.roster import AmiListener, Connection, RosterQueries, reason_of
from ringfence.sources.standby import Coverage, Sink
from ringfence.sources.state import Condition, EndError, State, SupervisedSource, numbers_of
from ringfence.values.event import AMI, SecurityEvent, Service, SourceId
from ringfence.values.network import Address
from ringfence.values.secret import Secret

CONNECT_WITHIN = 10.0
GREET_WITHIN = 5.0
LOGIN_WITHIN = 10.0  # seconds; Asterisk itself waits 1 s before it refuses
PROVE_WITHIN = 5.0
PING_EVERY = 5.0
PING_WITHIN = 5.0
REFUSED_PAUSE = 300.0
"""Seconds from a wrong login at another host to the next one. They double with each further wrong login.

A PBX may be guarded too: ringfence bans an address, at every port, after three wrong logins in ten minutes.
"""
MOST_REFUSED_PAUSE = 3_600.0
"""The maximum number of seconds from a wrong login at another host to the next one."""
MOST_CERTIFICATES = 4 * 1024 * 1024
"""The maximum number of bytes that are read of a file of certificates."""

LAG_LASTS = 1.0
"""Seconds for which the lag of an event (from its own time to its arrival) counts."""
MOST_LAGS = 1_024
ASK_PAUSE = 0.002
"""The pause (seconds) between two checks of how far AMI's events have been read."""

MUCH = 2 * 1024
"""Bytes that may gather: the events of five guesses, the default threshold, have some 390 bytes each."""

_ROOM = 64 * 1024
_WANTED = "security,system"


@frozen
class AmiTls:
    """How the certificate of a manager interface (AMI) is verified.

    ``ca`` is a file of certificates to trust; with None those of the system are trusted. With ``verify``
    false, any certificate is accepted.
    """

    ca: Path | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts the certificates that the files hold now.

        Call this for each connection, because certificates are renewed. Raise OSError if ``ca`` is unusable.
        """
        context = ssl.create_default_context(cadata=None if self.ca is None else _certificates(self.ca))
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _certificates(path: Path) -> str:
    """Return the ASCII text of a file of certificates; raise OSError if it cannot be read.

    Asterisk's user may own its folder, and put a FIFO or an endless file there: either would hold a thread.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        text = file.read(MOST_CERTIFICATES).decode("ascii", "ignore")
    return f"{text}\n"  # never "", which would mean the certificates of the system


@frozen
class AmiTarget:
    """Where an Asterisk's manager interface (AMI) is, and its login. ``tls`` is None for plain TCP."""

    asterisk: str
    host: str
    port: int
    username: str
    secret: Secret
    tls: AmiTls | None = None


class _Protocol(AMIProtocol, asyncio.BufferedProtocol):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's protocol with another decoder and another buffer.

    ``source`` gets the items of each read. The protocol has its own buffer, because asyncio would allocate
    256 KiB for each read. That takes 25 µs, and all other work 11 µs. A guess causes two reads.
    """

    def __init__(self, decoder: AmiDecoder, source: "AmiSource") -> None:
        self._decoder = decoder
        self._source = source
        self._read_buffer = memoryview(bytearray(_ROOM))
        self._loop = asyncio.get_running_loop()
        self._release: asyncio.TimerHandle | None = None
        self.transport: Any = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def send(self, data: Action, as_list: bool = False) -> asyncio.Future[Message]:  # noqa: FBT001, FBT002 - theirs
        data.as_list = as_list
        self.responses[data.id] = data
        self.transport.write(str(data).encode())
        future: asyncio.Future[Message] = data.future
        return future

    def request(self, headers: dict[str, str]) -> asyncio.Future[Message]:
        """Send an action with these headers; return the future of its reply."""
        return self.send(Action(headers))

    def answer(self, text: str) -> None:
        """Parse ``text``, a reply of AMI, and complete the future of the action that it answers, if any.

        Raise EndError if the reply is garbled.
        """
        try:
            message = Message.from_line(text)
            action = self.responses.pop(message.id, None) if message is not None else None
        except TypeError:  # a repeated ActionID is a list in panoramisk, and a list cannot be a key
            raise EndError(State.NOT_AMI, "an answer is garbled") from None
        # Only the first reply to an action counts. If the peer announced a list, panoramisk would collect
        # replies without limit.
        if action is not None and not action.future.done():
            action.future.set_result(message)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._decode(bytes(self._read_buffer[:nbytes]))

    def _decode(self, data: bytes = b"", *, ended: bool = False) -> None:
        """Decode ``data``, bytes of AMI, and pass the decoded items to the source.

        Without ``data``, pass the items that the decoder has held back until now; if the connection has
        ``ended``, all of them, because no more bytes will come. An exception ends this connection, and is
        raised again where :attr:`ended` is awaited. If the decoder then has a deadline, because it holds
        items, a timer calls this method at that time.
        """
        now = self._loop.time()
        try:
            items = (
                self._decoder.receive(data, now) if data else self._decoder.tick(math.inf if ended else now)
            )
            self._source.on_items(items, self, now)
        except Exception as error:  # noqa: BLE001 - raised again where the connection is awaited
            self._finish(error)
            self.transport.abort()
            return
        deadline = self._decoder.deadline
        if deadline is None:
            return
        if self._release is not None and self._release.when() > deadline:
            self._release.cancel()
            self._release = None
        if self._release is None:
            self._release = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._release = None
        self._decode()

    def connection_lost(self, exc: Exception | None) -> None:
        self._decode(ended=True)
        reason = f": {exc}" if exc is not None else ""
        self._finish(EndError(State.LOST, f"the connection was closed{reason}"))

    def _finish(self, error: Exception) -> None:
        if self._release is not None:
            self._release.cancel()
        if not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        """End the connection, if there is one; may be repeated."""
        self.ended.cancel()
        if self.transport is not None:
            self.closed = True
            self.responses.clear()
            self.transport.abort()


class _Connection(Manager):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's manager for one connection, without its login, ping and reconnection."""

    def connection_made(self, f: asyncio.Future[Any]) -> None:
        if not f.cancelled() and f.exception() is None:
            _, self.protocol = f.result()

    def connection_lost(self, exc: Exception | None) -> None:
        """Do nothing: the task that awaits the protocol's end handles it."""


class Reading:
    """Finds out how far one AMI connection has been read: all events before ``until`` (monotonic) have.

    Asterisk publishes an event before it sends the answer to the request. Two Pings show that the event has
    been written since: Asterisk writes an action's reply by itself, and the events that wait before it reads
    the next action. Between the two is Asterisk's message bus. The bus's delay shows in the events' own
    times, so the greatest recent *lag* of an event is subtracted.
    """

    def __init__(self, listener: AmiListener) -> None:
        self.until = -math.inf
        """Every event that Asterisk published before this time (monotonic) has been passed on."""
        self._listener = listener
        self._asked = asyncio.Event()
        self.lags: deque[tuple[float, float]] = deque(maxlen=MOST_LAGS)
        """The times (monotonic) at which events arrived, and their lags in seconds."""

    def ask(self) -> None:
        """Make :meth:`run` check once how far AMI's events have been read, and report it to the listener."""
        self._asked.set()

    async def run(self, connection: Connection) -> None:
        """After each :meth:`ask`, send two Pings, and set and report ``until``; run until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._asked.wait()
            at = loop.time()
            await connection.request({"Action": "Ping"})
            await connection.request({"Action": "Ping"})
            self._asked.clear()
            self.until = at - max((lag for came, lag in self.lags if at - came < LAG_LASTS), default=0.0)
            self._listener.on_read()
            await asyncio.sleep(ASK_PAUSE)


class AmiSource(SupervisedSource):
    """A source that listens to the manager interface of one Asterisk, and connects again after each end.

    The argument ``sink`` is called with the security events of each read and their monotonic arrival time. It
    is called directly in the callback of the connection, so that a ban is not delayed. ``listener`` gets all
    phones and trunks of this Asterisk, at the login and every minute, and everything else that AMI reports.
    ``coverage`` records in which period AMI delivers events without interruption. ``foreign_user`` returns a
    name for the user with an id if no Asterisk of this host runs as this user; "" for any other user. It may
    be slow. With None, every user counts as Asterisk's.

    The attribute ``roster_ready`` is set once this connection's first roster was passed on. ``http_checked``
    is set once Asterisk has replied to the question whether AMI is served over HTTP: then ``weaknesses`` is
    complete. If the connection ends before, both are set too, so that nothing waits for them in vain.
    """

    def __init__(
        self,
        target: AmiTarget,
        sink: Sink,
        backoff: Backoff | None = None,
        *,
        listener: AmiListener | None = None,
        coverage: Coverage | None = None,
        foreign_user: Callable[[int], str] | None = None,
    ) -> None:
        listener = listener or AmiListener()
        self.id = SourceId(target.asterisk, AMI)
        super().__init__(structlog.get_logger().bind(source=str(self.id)), backoff)
        self.coverage = coverage if coverage is not None else Coverage()
        self.reading = Reading(listener)
        self.listening_since: float | None = None  # monotonic seconds; None while not listening
        self.logged_in_since: float | None = None  # monotonic seconds; None while not logged in
        self.last_sign: float | None = None
        """The monotonic time of the last packet of Asterisk that could be parsed; None before the first."""
        self.roster_ready = asyncio.Event()
        self.http_checked = asyncio.Event()
        self.version = ""
        self._target = target
        self._foreign_user = foreign_user
        self._refusals = Backoff(REFUSED_PAUSE, MOST_REFUSED_PAUSE)
        self._sink = sink
        self._queries = RosterQueries(target.asterisk, target.username, listener)
        self._decoder = AmiDecoder(self.id)
        self._past, self._garbled = AmiCounts(), 0
        self._greeted = asyncio.Event()
        self._logged_in = asyncio.Event()
        self._proven = asyncio.Event()
        self._own_endpoint: tuple[Address, int] | None = None
        self._peer_endpoint: tuple[Address, int] | None = None
        self._peer = _outside(target.host)
        self._named: Collection[Address] = ()
        self._here = False
        self._http_question = "Ping"
        self._believed = False  # whether events count: not before the login

    @property
    def counts(self) -> AmiCounts:
        """The numbers of messages that AMI sent since the daemon's start, over all connections."""
        return self._past.plus(self._decoder.counts)

    @property
    def addresses(self) -> frozenset[Address] | None:
        """The addresses of this Asterisk outside of loopback that AMI names; None if it names none.

        These are the address to which the connection goes, and those at which Asterisk received requests, as
        its events name them. They stay after the connection's end until the next connection's first event. If
        the connection stays on this host's loopback, all addresses of Asterisk are this host's: empty.
        """
        found = frozenset(self._named) | (frozenset() if self._peer is None else {self._peer})
        return found if found or self._here else None

    @property
    def refused(self) -> tuple[str, ...]:
        """A line for each list of phones or trunks that could not be read, with the reason or the fix."""
        return self._queries.refused

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """Reasons why this Asterisk's AMI cannot be trusted in full, each with the fix; () without any."""
        tls, http = self._target.tls, self._decoder.http.enabled
        unverified = tls is not None and not tls.verify
        found = [_UNVERIFIED] if unverified else []
        if self.http_checked.is_set() and http is not False:
            found.append(_OVER_HTTP if http else _PERHAPS_OVER_HTTP.format(user=self._target.username))
        return tuple(found)

    async def run(self) -> None:
        """Connect to AMI and listen, and reconnect after each end, until cancelled."""
        for weakness in self.weaknesses:
            self._log.warning("source.weak", why=weakness)
        await super().run()

    async def _session(self) -> None:
        """Connect to AMI, log in and listen until the connection ends; raise EndError with the reason."""
        self._past, self._garbled = self.counts, 0
        self._decoder = AmiDecoder(self.id, self._queries.token)
        self._queries.reset()
        self._http_question = "Ping"
        self._believed = False
        for flag in (self._greeted, self._logged_in, self._proven, self.roster_ready, self.http_checked):
            flag.clear()
        protocol = _Protocol(self._decoder, self)
        try:
            await self._connect(protocol)
            with patient(protocol.transport.get_extra_info("socket"), MUCH):
                await self._listen(protocol)
        except ExceptionGroup as ends:
            # A refusal and the following end of the connection may come together. The refusal is the better
            # reason.
            raise min(ends.exceptions, key=_is_loss) from None
        finally:
            self.logged_in_since = None
            self.coverage.end()
            protocol.close()
            self.roster_ready.set()
            self.http_checked.set()

    async def _listen(self, protocol: _Protocol) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._log_in_and_ping(protocol))
            group.create_task(self._keep_roster(protocol))
            group.create_task(self._watch_http(protocol))
            group.create_task(self._keep_reading(protocol))
            # Wait inside the group. If one of its tasks fails, asyncio cancels this task, and Python 3.11
            # undoes that only here. After the group, :meth:`run` would see a cancellation.
            await protocol.ended

    @property
    def _where(self) -> str:
        return f"{self._target.host}:{self._target.port}"

    async def _connect(self, protocol: _Protocol) -> None:
        target = self._target
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                manager = _Connection(
                    host=target.host,
                    port=target.port,
                    ssl=await self._tls_context(),
                    loop=asyncio.get_running_loop(),
                    protocol_factory=lambda: protocol,
                )
                await manager.connect()
        except TimeoutError:
            detail = f"{self._where} did not answer in {CONNECT_WITHIN:.0f} s"
            raise EndError(State.UNREACHABLE, detail) from None
        except ssl.SSLError as error:
            raise EndError(State.TLS_FAILED, f"{self._where}: {error.reason or error}") from None
        except OSError as error:
            raise EndError(State.UNREACHABLE, f"{self._where}: {_reason_of(error)}") from None
        except ValueError as error:  # includes UnicodeError, for a name that is invalid in the DNS
            raise EndError(State.UNREACHABLE, f"{self._where}: {error}") from None
        own, peer = (protocol.transport.get_extra_info(name) for name in ("sockname", "peername"))
        if own is None or peer is None:
            raise EndError(State.LOST, f"{self._where} reset the connection")
        self._own_endpoint, self._peer_endpoint = _endpoint(own), _endpoint(peer)
        self._peer = _outside(peer[0])

    async def _tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS context of one connection, None for plain TCP; raise EndError if it cannot be made.

        It is made in a thread, because the many certificates of a system take a while to load.
        """
        tls = self._target.tls
        if tls is None:
            return None
        try:
            return await asyncio.to_thread(tls.context)
        except OSError as error:  # SSLError is an OSError
            detail = f"the certificates in {tls.ca} cannot be used: {_reason_of(error)}"
            raise EndError(State.TLS_FAILED, detail) from None

    async def _log_in_and_ping(self, protocol: _Protocol) -> None:
        """Log in, then ping until the connection ends; raise EndError if AMI refuses or does not answer."""
        try:
            async with asyncio.timeout(GREET_WITHIN):
                await self._greeted.wait()
        except TimeoutError:
            detail = f"{self._where} sent no banner in {GREET_WITHIN:.0f} s"
            raise EndError(State.UNRESPONSIVE, detail) from None
        if not self.version:
            raise EndError(State.NOT_AMI, f"{self._where} does not speak as a manager interface")
        await self._refuse_foreign_user()
        await self._log_in(protocol)
        self.logged_in_since = asyncio.get_running_loop().time()
        self._logged_in.set()
        try:
            async with asyncio.timeout(PROVE_WITHIN):
                await self._proven.wait()
        except TimeoutError:
            self._set_condition(Condition(State.NO_EVENTS, _NO_EVENTS))
        while True:
            if self._proven.is_set():
                detail = "; ".join([f"manager interface {self.version}", *self.weaknesses, *self.refused])
                self._set_condition(Condition(State.LISTENING, detail))
            await asyncio.sleep(PING_EVERY)
            await self._ping(protocol)

    async def _refuse_foreign_user(self) -> None:
        """Raise EndError if the peer is a program of this host whose user does not run Asterisk.

        While Asterisk is down, any user may listen on its port. The peer has sent its banner, so it has
        accepted the connection, and the kernel knows its user. A verified certificate proves more than that.
        """
        tls, own, peer = self._target.tls, self._own_endpoint, self._peer_endpoint
        if self._foreign_user is None or own is None or peer is None or (tls is not None and tls.verify):
            return
        user = await asyncio.to_thread(peer_user, own, peer)
        name = "" if user is None else await asyncio.to_thread(self._foreign_user, user)
        if name:
            detail = _FOREIGN_USER.format(where=self._where, port=self._target.port, user=name)
            raise EndError(State.FOREIGN_USER, detail)

    async def _keep_roster(self, protocol: _Protocol) -> None:
        """Ask for phones and trunks at once, and then every minute, but not during a flood of events.

        Ask earlier if Asterisk has just finished its start, or a reload.
        """
        await self._logged_in.wait()
        queries = self._queries
        while True:
            await queries.run_round(protocol)
            self.roster_ready.set()
            try:
                async with asyncio.timeout(roster.EVERY):
                    await queries.due.wait()
            except TimeoutError:
                await roster.wait_for_quiet(self._decoder.counts)

    async def _watch_http(self, protocol: _Protocol) -> None:
        """Ask now and every few seconds whether AMI is served over HTTP.

        The action CoreSettings shows that. ListCommands, which needs no right, shows whether this user may
        use CoreSettings. If not, Ping is sent instead, because Asterisk reports each refused action as a
        security event. The reply to Ping does not answer the question. This reply only marks the end of any
        text that a client of AMI over HTTP wrote before it (see :mod:`ringfence.parse.ami`).
        """
        await self._logged_in.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOGIN_WITHIN):
                if "CoreSettings" in await protocol.request({"Action": "ListCommands"}):
                    self._http_question = "CoreSettings"
        await self._ask_http(protocol)
        while True:
            await self._ask_http(protocol)
            self.http_checked.set()
            await asyncio.sleep(PING_EVERY)

    async def _keep_reading(self, protocol: _Protocol) -> None:
        await self._logged_in.wait()
        await self.reading.run(protocol)

    def _ask_http(self, protocol: _Protocol) -> asyncio.Future[Message]:
        return protocol.request({"Action": self._http_question, "ActionID": self._decoder.http.ask()})

    async def _ping(self, protocol: _Protocol) -> None:
        """Check that AMI replies to a Ping or continues to send events; raise EndError if it does neither.

        The reply comes after all events that Asterisk wrote before it. During a flood these may be too many
        to read within the time limit, and closing the connection would lose them all. So events count as a
        reply. Bytes that complete no event do not.
        """
        answer = protocol.request({"Action": "Ping"})
        before = -1
        while not answer.done() and self._events_so_far != before:
            before = self._events_so_far
            await asyncio.wait((answer,), timeout=PING_WITHIN)
        if not answer.done():
            detail = f"{self._where} did not answer Ping in {PING_WITHIN:.0f} s"
            raise EndError(State.UNRESPONSIVE, detail)

    @property
    def numbers(self) -> Mapping[str, object]:
        """The numbers of events, as the status shows them."""
        return numbers_of(self.counts)

    @property
    def _events_so_far(self) -> int:
        counts = self._decoder.counts
        return counts.events + counts.other

    async def _log_in(self, protocol: _Protocol) -> None:
        """Log in by the MD5 challenge, also under TLS, so that the secret itself is never sent.

        Raise EndError if Asterisk gives no challenge or refuses the login. After a wrong login at another
        host it has a pause of minutes. Other refusals are temporary, such as one because the last session has
        not ended yet.
        """
        target = self._target
        asked = Action({"Action": "Challenge", "AuthType": "MD5"})
        answer = await self._ask(protocol, asked, LOGIN_WITHIN)
        challenge = str(answer.get("Challenge", "")) if answer.success else ""
        if not _CHALLENGE.fullmatch(challenge):
            raise EndError(State.NO_CHALLENGE, _NO_CHALLENGE.format(where=self._where, port=target.port))
        # MD5 is required by the protocol (main/manager.c:authenticate).
        key = md5(f"{challenge}{target.secret.reveal()}".encode(), usedforsecurity=False).hexdigest()
        login = {
            "Action": "Login",
            "AuthType": "MD5",
            "Username": target.username,
            "Key": key,
            "Events": _WANTED,
        }
        # The peer has answered after the check of its user, so the kernel listed its socket then.
        self._believed = True
        answer = await self._ask(protocol, Action(login), LOGIN_WITHIN)
        if not answer.success:
            reason = reason_of(str(answer.get("Message", "")))
            detail = f'{self._where} refuses "{target.username}" ({reason}); compare with manager.conf'
            if reason != _WRONG_LOGIN or self._is_local:
                raise EndError(State.LOGIN_REFUSED, detail)
            raise EndError(State.LOGIN_REFUSED, f"{detail}, {_THEN_RELOAD}", self._refusals.next())
        self._refusals.reset()

    @property
    def _is_local(self) -> bool:
        """Whether the connection goes to this host itself, which no guard bans."""
        return self._peer is None or (self._own_endpoint is not None and self._peer == self._own_endpoint[0])

    async def _ask(self, protocol: _Protocol, action: Action, within: float) -> Message:
        """Send an action and return its reply; raise EndError if none comes in ``within`` seconds."""
        try:
            async with asyncio.timeout(within):
                return await protocol.send(action)
        except TimeoutError:
            detail = f"{self._where} did not answer {action['Action']} in {within:.0f} s"
            raise EndError(State.UNRESPONSIVE, detail) from None

    def on_items(self, items: list[AmiItem], protocol: _Protocol, now: float) -> None:
        """Handle the events and replies that one read of ``protocol`` returned, at ``now`` (monotonic)."""
        if not self._believed:  # no Asterisk sends anything else before a login
            items = [item for item in items if isinstance(item, Banner | Reply)]
        self.last_sign = now if items else self.last_sign
        # An unreadable packet may be a lost security event. So AMI's coverage ends, and SECURITY lines of the
        # log are no longer skipped.
        if self._decoder.counts.garbled != self._garbled:
            self._garbled = self._decoder.counts.garbled
            self.coverage.end()
        self._on_events([item for item in items if isinstance(item, SecurityEvent)], now)
        if self._believed and self._decoder.http.wanted:
            self._ask_http(protocol)
        for item in items:
            if isinstance(item, RosterEvent):
                self._queries.on_event(item)
            elif isinstance(item, Reply):
                protocol.answer(item.text)
            elif isinstance(item, Banner):
                self.version = item.version
                self._greeted.set()

    def _on_events(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Pass on events except those that ringfence caused; record up to which time AMI has delivered."""
        if not events:
            return
        self._proven.set()
        self._named = self._decoder.local_addresses
        others = [event for event in events if not self._is_own(event)]
        if len(others) < len(events) and self._own_endpoint is not None:
            # Asterisk sees our own end of the connection, so nothing translates addresses between.
            self._here = self._own_endpoint[0].is_loopback
        # The times show how far AMI's delivery has come. Forgeable events do not count for this, because a
        # client of AMI over HTTP may have chosen their times.
        if times := [event.time for event in events if not event.forgeable]:
            self.coverage.deliver(times[0], times[-1], now)
            self.reading.lags.append((now, max(time.time() - min(times), 0.0)))
        if others:
            self._sink(others, now)

    def _is_own(self, event: SecurityEvent) -> bool:
        """Whether ringfence itself caused the event, by a login or an action in this connection."""
        remote = event.remote
        return event.service is Service.AMI and (remote.address, remote.port) == self._own_endpoint

    def _set_condition(self, condition: Condition) -> None:
        if condition.state is not self.condition.state:
            listens = condition.state is State.LISTENING
            self.listening_since = asyncio.get_running_loop().time() if listens else None
        super()._set_condition(condition)


_CHALLENGE = re.compile(r"[0-9]{1,10}")  # main/manager.c:action_challenge, at most 9 digits
_WRONG_LOGIN = "Authentication failed"
"""Asterisk's answer to a wrong user or secret, or to a denied address (``main/manager.c:action_login``).

A right login never gets it from an Asterisk that starts, which reads its users before it opens the port
(``__init_manager``).
"""
_THEN_RELOAD = (
    "then: ringfence reload (without it, ringfence logs in again after 5 minutes, later each hour: a PBX may "
    "ban a host whose logins fail)"
)
_NO_CHALLENGE = (
    "{where} does not offer the MD5 challenge, as every Asterisk does, so ringfence does not log in, and the "
    "secret was not sent; fix: see which program listens there (ss -ltnp 'sport = :{port}'), and correct "
    "host and port of [asterisk.ami]"
)
_FOREIGN_USER = (
    "the program on {where} runs as the user {user}, but Asterisk here as root, as the user asterisk, as the "
    "owner of /etc/asterisk, /run/asterisk or /var/lib/asterisk, or as one of server_users; so ringfence "
    "does not log in, and no event from there counts; fix: see which program it is (ss -ltnp "
    "'sport = :{port}'); if it is Asterisk (perhaps in a container) or a proxy of yours, add its user to "
    "server_users in [asterisk.ami]; otherwise stop it, and restart Asterisk"
)
_UNVERIFIED = (
    "the server's certificate is not verified (tls_verify = false), so anyone who can redirect the "
    "connection can invent events; fix: tls_ca = the file with its certificate, and tls_verify = true"
)
_UNCONFIRMED = "so failed manager logins that it reports are listed and cause no ban"
_OVER_HTTP = (
    "AMI is also served over HTTP (webenabled = yes), where a user name can hold forged events, "
    f"{_UNCONFIRMED}; fix: webenabled = no in manager.conf [general] (without the line it stays on), then "
    'asterisk -rx "manager reload"; or, if it is needed, the eventfilter line of ringfence.manager.conf'
)
_PERHAPS_OVER_HTTP = (
    f"whether AMI is also served over HTTP is unknown, {_UNCONFIRMED}; fix: write = reporting in [{{user}}] "
    "of manager.conf"
)
_NO_EVENTS = (
    "logged in, but no security events arrive; fix: set read = security,system for the user in manager.conf, "
    "and check that neither disabledevents nor stasis.conf declines them"
)


def _is_loss(end: Exception) -> bool:
    return isinstance(end, EndError) and end.condition.state is State.LOST


def _reason_of(error: OSError) -> str:
    """Return why a connection failed, as text. asyncio's own text has the address instead."""
    if error.errno and str(error.strerror).startswith("Connect call failed"):
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _outside(host: str) -> Address | None:
    """Return ``host`` as an address; None if it is a name, or an address of loopback."""
    try:
        address = unmapped(ip_address(host.partition("%")[0]))
    except ValueError:
        return None
    return None if address.is_loopback else address


def _endpoint(name: tuple[Any, ...]) -> tuple[Address, int]:
    """Return address and port of ``name``, the name of a socket."""
    return unmapped(ip_address(name[0])), name[1]
