"""One Asterisk's manager interface as a source: connect, log in, listen, and never give up.

panoramisk does what it does well: the connection, the actions and the matching of their answers. It is
imported here and nowhere else, and three parts of it are replaced, each for a reason seen in its 1.4:

- what bytes mean: its protocol decodes every TCP chunk by itself (a character cut in two vanishes), keeps an
  unbounded queue and believes any header; ours hands the bytes to :class:`ringfence.parse.ami.AmiDecoder`;
- liveness: its ping never looks at the answer; ours tears the connection down when none comes in 5 s;
- reconnection: its own is fixed at 2 s, cannot be cancelled, and logs whole actions, the login's secret
  with them; ours is in :meth:`AmiSource.run`, and the protocol logs nothing.

Without TLS the secret travels as an MD5 answer to a challenge, with TLS in the clear inside it. Whether the
security class was granted cannot be asked (Asterisk silently cuts the wish down), but the login itself raises
a SuccessfulAuth that only a listener with the class is sent: where it stays out, the source is *deaf*.
"""

import asyncio
import math
import os
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import md5
from ipaddress import ip_address
from typing import Any

import structlog
from attrs import frozen
from panoramisk import Manager
from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from ringfence.model import AMI, Address, Secret, SecurityEvent, Service, SourceId
from ringfence.parse.address import unmapped
from ringfence.parse.ami import AmiCounts, AmiDecoder, Banner, Heard, Reply
from ringfence.parse.roster import Item
from ringfence.sources import roster as rosters
from ringfence.sources.backoff import Backoff
from ringfence.sources.roster import ContactSink, RosterSink, RosterTalk, nobody
from ringfence.sources.state import Condition, EndError, State, log_condition

CONNECT_WITHIN = 10.0
GREET_WITHIN = 5.0
LOGIN_WITHIN = 10.0  # Asterisk itself waits 1 s before it refuses
PROVE_WITHIN = 5.0
PING_EVERY = 5.0
PING_WITHIN = 5.0
WELL_AFTER = 30.0
"""A connection that lasted this long (seconds) was a good one: the next try comes soon again."""

_ROOM = 64 * 1024
_WANTED = "security,system"

Sink = Callable[[Sequence[SecurityEvent], float], None]


@frozen
class AmiTarget:
    """Where an Asterisk's manager interface is and who to be there. ``tls`` is None for plain TCP."""

    asterisk: str
    host: str
    port: int
    username: str
    secret: Secret
    tls: ssl.SSLContext | None = None


class _Protocol(AMIProtocol, asyncio.BufferedProtocol):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's protocol with its ears and its memory replaced.

    Buffered: asyncio would make 256 KiB of room for each read, which takes longer than what else it does
    for one (25 µs a read against 11), and an attack is two reads a guess.
    """

    def __init__(self, decoder: AmiDecoder, hear: "Callable[[list[Heard], _Protocol, float], None]") -> None:
        self._decoder = decoder
        self._hear = hear
        self._room = memoryview(bytearray(_ROOM))
        self._loop = asyncio.get_running_loop()
        self._release: asyncio.TimerHandle | None = None
        self.transport: Any = None
        self.reads = 0
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def send(self, data: Action, as_list: bool = False) -> asyncio.Future[Message]:  # noqa: FBT001, FBT002 - theirs
        data.as_list = as_list
        self.responses[data.id] = data
        self.transport.write(str(data).encode())
        future: asyncio.Future[Message] = data.future
        return future

    def answer(self, text: str) -> None:
        """Hand an answer to the action that waits for it; one that nobody asked for is dropped."""
        try:
            message = Message.from_line(text)
            action = self.responses.pop(message.id, None) if message is not None else None
        except TypeError:  # a header that comes twice is a list in panoramisk
            raise EndError(State.NOT_AMI, "an answer is garbled") from None
        # One answer an action: panoramisk would gather without end where the peer promises more.
        if action is not None and not action.future.done():
            action.future.set_result(message)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.reads += 1
        self._guarded(partial(self._decoder.feed, bytes(self._room[:nbytes])))

    def _guarded(self, read: Callable[[float], list[Heard]]) -> None:
        """Give what was read to those who wait for it; what they raise ends this connection, visibly."""
        now = self._loop.time()
        try:
            self._hear(read(now), self, now)
        except Exception as error:  # noqa: BLE001 - raised again where the connection is awaited
            self._finish(error)
            self.transport.abort()
            return
        if self._decoder.deadline is not None and self._release is None:
            self._release = self._loop.call_at(self._decoder.deadline, self._tick)

    def _tick(self) -> None:
        self._release = None
        self._guarded(self._decoder.tick)

    def connection_lost(self, exc: Exception | None) -> None:
        # What was held back is all there will be.
        self._guarded(lambda _: self._decoder.tick(math.inf))
        reason = f": {exc}" if exc is not None else ""
        self._finish(EndError(State.LOST, f"the connection was closed{reason}"))

    def _finish(self, error: Exception) -> None:
        if self._release is not None:
            self._release.cancel()
        if not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        """End the connection, if it was ever made; may be repeated."""
        self.ended.cancel()
        if self.transport is not None:
            self.closed = True
            self.responses.clear()
            self.transport.abort()


class _Connection(Manager):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's manager for one connection: no login, ping or reconnection of its own."""

    def connection_made(self, f: asyncio.Future[Any]) -> None:
        if not f.cancelled() and f.exception() is None:
            _, self.protocol = f.result()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave it to whoever awaits the protocol's end."""


class AmiSource:
    """Listens to one Asterisk. :meth:`run` never ends by itself; read ``condition`` and ``counts`` any time.

    ``settled`` is set once it is known how it goes. ``sink`` is called with the security events of each read
    and their monotonic arrival time, in the connection's own callback: it is on the path to a ban.

    ``roster`` is called with all that this Asterisk says of its phones and trunks, at the login and every
    minute, and ``contact`` with each change of a phone's between. ``rostered`` is set once this connection's
    first roster was given, or it is known that there will be none; ``lacks`` is what a roster lacks and why.
    """

    def __init__(
        self,
        target: AmiTarget,
        sink: Sink,
        backoff: Backoff | None = None,
        *,
        roster: RosterSink = nobody,
        contact: ContactSink = nobody,
    ) -> None:
        self.id = SourceId(target.asterisk, AMI)
        self.listening_since: float | None = None  # monotonic seconds
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        self.rostered = asyncio.Event()
        self.version = ""
        self._target = target
        self._sink = sink
        self._rosters = RosterTalk(target.asterisk, target.username, roster, contact)
        self._backoff = backoff if backoff is not None else Backoff()
        self._decoder = AmiDecoder(self.id)
        self._past = AmiCounts()
        self._log = structlog.get_logger().bind(source=str(self.id))
        self._greeted = asyncio.Event()
        self._logged_in = asyncio.Event()
        self._proven = asyncio.Event()
        self._own: tuple[Address, int] | None = None

    @property
    def counts(self) -> AmiCounts:
        """What was heard since the start, over all connections."""
        return self._past.plus(self._decoder.counts)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What could not be known of phones and trunks, and what mends it, a line each."""
        return self._rosters.lacks

    async def run(self) -> None:
        """Connect, listen, and begin again when it ends, until cancelled."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        while True:
            began = loop.time()
            try:
                await self._session()
            except EndError as trouble:
                self._become(trouble.condition)
                self.rostered.set()
            except Exception as error:  # noqa: BLE001 - whatever it is, the source goes on
                # An error of ours on the way of the evidence: seen in `status`, and the source goes on.
                defect = Condition(State.DEFECT, f"{type(error).__name__}; see the log")
                if defect != self.condition:
                    self._log.exception("source.defect")
                self._become(defect)
                self.rostered.set()
            if task is not None and task.cancelling():
                # It was cancelled in the moment that the connection ended, and TaskGroup told of the latter.
                raise asyncio.CancelledError
            if loop.time() - began >= WELL_AFTER:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next())

    async def _session(self) -> None:
        """Hold one connection until it ends; raise what ended it."""
        self._past = self.counts
        self._decoder = AmiDecoder(self.id, self._rosters.token)
        self._rosters.begin()
        for sign in (self._greeted, self._logged_in, self._proven, self.rostered):
            sign.clear()
        protocol = _Protocol(self._decoder, self._hear)
        try:
            await self._connect(protocol)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._talk(protocol))
                group.create_task(self._keep_roster(protocol))
                # Within the group's body: waiting at its end would leave the task counted as cancelled.
                await protocol.ended
        except ExceptionGroup as ends:
            # A refusal and the hang-up that follows it may come together: the refusal says more.
            raise min(ends.exceptions, key=_says_little) from None
        finally:
            protocol.close()

    @property
    def _where(self) -> str:
        return f"{self._target.host}:{self._target.port}"

    async def _connect(self, protocol: _Protocol) -> None:
        target = self._target
        manager = _Connection(
            host=target.host,
            port=target.port,
            ssl=target.tls if target.tls is not None else False,
            loop=asyncio.get_running_loop(),
            protocol_factory=lambda: protocol,
        )
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await manager.connect()
        except TimeoutError:
            detail = f"{self._where} did not answer in {CONNECT_WITHIN:.0f} s"
            raise EndError(State.UNREACHABLE, detail) from None
        except ssl.SSLError as error:
            raise EndError(State.TLS_FAILED, f"{self._where}: {error.reason or error}") from None
        except OSError as error:
            raise EndError(State.UNREACHABLE, f"{self._where}: {_why(error)}") from None
        except ValueError as error:  # UnicodeError is one: a name that no DNS can have
            raise EndError(State.UNREACHABLE, f"{self._where}: {error}") from None
        host, port = protocol.transport.get_extra_info("sockname")[:2]
        self._own = (unmapped(ip_address(host)), port)

    async def _talk(self, protocol: _Protocol) -> None:
        """Do what a listener has to say: log in, then ping for ever."""
        try:
            async with asyncio.timeout(GREET_WITHIN):
                await self._greeted.wait()
        except TimeoutError:
            detail = f"{self._where} sent no banner in {GREET_WITHIN:.0f} s"
            raise EndError(State.UNRESPONSIVE, detail) from None
        if not self.version:
            raise EndError(State.NOT_AMI, f"{self._where} does not speak as a manager interface")
        await self._log_in(protocol)
        self._logged_in.set()
        try:
            async with asyncio.timeout(PROVE_WITHIN):
                await self._proven.wait()
        except TimeoutError:
            self._become(Condition(State.DEAF, _DEAF))
        while True:
            if self._proven.is_set():
                detail = "; ".join([f"manager interface {self.version}", *self.lacks])
                self._become(Condition(State.LISTENING, detail))
            await asyncio.sleep(PING_EVERY)
            await self._ping(protocol)

    async def _keep_roster(self, protocol: _Protocol) -> None:
        """Ask for phones and trunks at once, and again and again."""
        await self._logged_in.wait()
        talk = self._rosters
        while True:
            await talk.round(lambda action: protocol.send(Action(action)))
            self.rostered.set()
            try:
                async with asyncio.timeout(rosters.EVERY):
                    await talk.due.wait()
            except TimeoutError:
                await rosters.calm(lambda: self._decoder.counts.events)

    async def _ping(self, protocol: _Protocol) -> None:
        """See that the peer is there: it answers, or goes on telling.

        The answer stands behind the events that were told before it, and during a flood these may be more
        than are read in that time. To hang up then would lose them all.
        """
        answer = protocol.send(Action({"Action": "Ping"}))
        reads = -1
        while not answer.done() and protocol.reads != reads:
            reads = protocol.reads
            await asyncio.wait((answer,), timeout=PING_WITHIN)
        if not answer.done():
            detail = f"{self._where} did not answer Ping in {PING_WITHIN:.0f} s"
            raise EndError(State.UNRESPONSIVE, detail)

    async def _log_in(self, protocol: _Protocol) -> None:
        target = self._target
        login = {"Action": "Login", "Username": target.username, "Events": _WANTED}
        challenge = ""
        if target.tls is None:
            asked = Action({"Action": "Challenge", "AuthType": "MD5"})
            answer = await self._ask(protocol, asked, LOGIN_WITHIN)
            challenge = str(answer.get("Challenge", "")) if answer.success else ""
            if not challenge and not (self._own and self._own[0].is_loopback):
                detail = f"{self._where} refuses MD5; use tls, so that the secret does not travel in clear"
                raise EndError(State.LOGIN_REFUSED, detail)
        if challenge:
            # The protocol's own digest (main/manager.c:authenticate).
            text = f"{challenge}{target.secret.reveal()}"
            login |= {"AuthType": "MD5", "Key": md5(text.encode(), usedforsecurity=False).hexdigest()}
        else:
            login["Secret"] = target.secret.reveal()
        answer = await self._ask(protocol, Action(login), LOGIN_WITHIN)
        if not answer.success:
            said = str(answer.get("Message", "no reason given"))[:80]
            detail = f'{self._where} refuses "{target.username}" ({said}); compare with manager.conf'
            raise EndError(State.LOGIN_REFUSED, detail)

    async def _ask(self, protocol: _Protocol, action: Action, within: float) -> Message:
        """Send an action and give its answer, which must come ``within`` seconds."""
        try:
            async with asyncio.timeout(within):
                return await protocol.send(action)
        except TimeoutError:
            detail = f"{self._where} did not answer {action['Action']} in {within:.0f} s"
            raise EndError(State.UNRESPONSIVE, detail) from None

    def _hear(self, heard: list[Heard], protocol: _Protocol, now: float) -> None:
        events = [item for item in heard if isinstance(item, SecurityEvent)]
        if events:
            self._proven.set()
        if others := [event for event in events if not self._is_own(event)]:
            self._sink(others, now)
        for item in heard:
            if isinstance(item, Item):
                self._rosters.hear(item)
            elif isinstance(item, Reply):
                protocol.answer(item.text)
            elif isinstance(item, Banner):
                self.version = item.version
                self._greeted.set()

    def _is_own(self, event: SecurityEvent) -> bool:
        """Say whether this connection itself made the event, by logging in or asking."""
        remote = event.remote
        return event.service is Service.AMI and (remote.address, remote.port) == self._own

    def _become(self, condition: Condition) -> None:
        if condition == self.condition:
            return
        changed, self.condition = condition.state is not self.condition.state, condition
        if changed:
            listens = condition.state is State.LISTENING
            self.listening_since = asyncio.get_running_loop().time() if listens else None
        self.settled.set()
        if changed:
            log_condition(self._log, condition)


_DEAF = (
    "logged in, but no security events come: give the user read = security,system in manager.conf, "
    "and see that neither disabledevents nor stasis.conf declines them"
)


def _says_little(end: Exception) -> bool:
    return isinstance(end, EndError) and end.condition.state is State.LOST


def _why(error: OSError) -> str:
    """Say why there is no connection: asyncio names the address once more, and not the reason."""
    if error.errno and str(error.strerror).startswith("Connect call failed"):
        return os.strerror(error.errno)
    return error.strerror or str(error)
