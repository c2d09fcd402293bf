"""The wire as a source: every 401 and 407 that leaves this host by UDP, from the kernel's packet log.

The firewall's log rule (``firewall/iptables.py``) hands them to NFLOG group ``GROUP``, after the drops: a
challenge that was dropped is none. No text can silence this witness; what it says of a packet is what the
kernel saw. One host has one wire, however many Asterisks.

The socket is read in the event loop, at most ``TURN`` datagrams or ``TURN_BYTES`` at a time, so that a flood
of challenges never keeps the manager interface waiting. Nothing is kept here; what is not read waits in the
kernel, 32 MB of its memory at most. What is lost there is noticed: ENOBUFS, or a number left out, is a
*gap*, and soon after one nothing may be concluded from a challenge that was not seen. A binding begins with a
gap too: what left before it was not heard.

What this host sends is its own word. What passes through it, as the answers of bridged containers do, anybody
within reach may have written, under his own address at least (the rule lets no other pass): it counts only
where it comes from a network of ``containers``. Containers come and go, and so do these networks; what came
from a new one before was not counted, so that is a gap too.

Measured on two busy cores (kernel 6.18) with replies of Asterisk 22, of 450 bytes: 13 to 17 µs of CPU each,
8 of them for reading the text. At 6 600 a second (what a brute force at full speed makes), 20 000 and 40 000
none was lost; of 150 000 at once, at 86 000 a second, two thirds were heard and the rest was a gap.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

import structlog
from attrs import define

from ringfence.model import Address, Challenge, Network
from ringfence.parse.challenge import parse_challenge
from ringfence.parse.nflog import Acknowledged, Logged, bind_request, missing, read_datagram
from ringfence.sources.backoff import Backoff
from ringfence.sources.state import Condition, EndError, State, log_condition

GROUP = 21_063
"""The NFLOG group that rule and reader agree on: "RG" as a number, which nobody else is likely to use."""

WELL_AFTER = 30.0
"""A binding that lasted this long (seconds) was a good one: the next try comes soon again."""

MOST_TURNS = 16
"""So many turns are read at once before another source is judged; what is beyond comes in its own."""

TURN = 256
TURN_BYTES = 1 << 20

_NETLINK_NETFILTER = 12
_SO_RCVBUFFORCE = 33  # <asm/socket.h>; Python has no name for it
_BUFFER = 16 << 20  # the kernel doubles it
_MOST_KNOWN = 4096  # addresses
_DATAGRAM = 1 << 17  # the greatest that the kernel makes: one packet, or one message buffer

Sink = Callable[[Sequence[Challenge], float], None]
Gap = Callable[[float], None]


@define
class WireCounts:
    """What came over the wire so far.

    ``gaps``: how often something was lost; ``lost``: how many packets, as far as numbers tell.
    ``unreadable``: packets of the log that were no 401 or 407 over UDP after all. ``passing``: challenges of
    neither this host nor a container.
    """

    challenges: int = 0
    gaps: int = 0
    lost: int = 0
    unreadable: int = 0
    passing: int = 0


class WireSource:
    """Reads this network namespace's wire. :meth:`run` never ends by itself; read ``condition`` any time.

    ``settled`` is set once it is known how it goes. ``sink`` is called with the challenges of each read and
    their monotonic arrival time, ``gap`` with the time at which something was found to be lost, before
    whatever came after it. ``containers`` are the networks whose challenges count where they pass through;
    :meth:`count_containers` changes them.
    """

    def __init__(
        self,
        sink: Sink,
        gap: Gap,
        backoff: Backoff | None = None,
        *,
        containers: Sequence[Network] = (),
        group: int = GROUP,
        buffer: int = _BUFFER,
    ) -> None:
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        self.counts = WireCounts()
        self._sink = sink
        self._gap = gap
        self.containers = tuple(containers)
        self._is_container = _lookup(self.containers)
        self._group = group
        self._buffer = buffer
        self._backoff = backoff if backoff is not None else Backoff()
        self._space = memoryview(bytearray(_DATAGRAM))
        self._last: int | None = None
        self._drained: Callable[[], object] = _nothing
        self._log = structlog.get_logger().bind(source="wire")

    async def run(self) -> None:
        """Bind and read, and begin again when it ends, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._session()
            except EndError as trouble:
                self._become(trouble.condition)
            except Exception as error:  # noqa: BLE001 - whatever it is, the source goes on
                # An error of ours on the way of the evidence: seen in `status`, and the source goes on.
                defect = Condition(State.DEFECT, f"{type(error).__name__}; see the log")
                if defect != self.condition:
                    self._log.exception("source.defect")
                self._become(defect)
            if loop.time() - began >= WELL_AFTER:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next())

    def drain(self) -> None:
        """Read what has come already: before what another source tells later is judged by it."""
        self._drained()

    def count_containers(self, networks: Iterable[Network]) -> None:
        """Take these for the networks of this host's containers from now on."""
        containers = tuple(sorted(networks, key=lambda network: (network.version, network)))
        new = set(containers) - set(self.containers)
        if containers != self.containers:
            self.containers = containers
            self._is_container = _lookup(containers)
        if new:
            self._gap(time.monotonic())

    async def _session(self) -> None:
        """Hold one binding until it fails; raise why."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        with _open(self._buffer) as connection:
            _bind(connection, self._group)
            self._last = None
            self._gap(loop.time())
            loop.add_reader(connection, self._readable, connection, ended)
            self._drained = partial(self._drain, connection, ended)
            try:
                self._become(Condition(State.LISTENING, f"NFLOG group {self._group}"))
                await ended
            finally:
                loop.remove_reader(connection)
                self._drained = _nothing
                self._gap(loop.time())

    def _drain(self, connection: socket.socket, ended: asyncio.Future[None]) -> None:
        for _ in range(MOST_TURNS):
            if not self._readable(connection, ended):
                return

    def _readable(self, connection: socket.socket, ended: asyncio.Future[None]) -> bool:
        """Read one turn, and say whether there may be more; what goes wrong ends the binding, visibly."""
        try:
            return self._turn(connection)
        except Exception as error:  # noqa: BLE001 - raised again where the binding is awaited
            if not ended.done():
                ended.set_exception(error)
            return False

    def _turn(self, connection: socket.socket) -> bool:
        heard: list[Challenge] = []
        taken, more = 0, True
        now = time.monotonic()
        for _ in range(TURN):
            try:
                size = connection.recv_into(self._space)
            except BlockingIOError:
                more = False
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise EndError(State.LOST, f"netlink: {error.strerror}") from error
                self._lose(0, now)
                continue
            self._take(bytes(self._space[:size]), heard, now)
            taken += size
            if taken >= TURN_BYTES:
                break
        if heard:
            self.counts.challenges += len(heard)
            self._sink(heard, now)
        return more

    def _take(self, datagram: bytes, heard: list[Challenge], now: float) -> None:
        for message in read_datagram(datagram):
            if isinstance(message, Logged):
                self._number(message.sequence, now)
                challenge = parse_challenge(message.payload)
                if challenge is None:
                    self.counts.unreadable += 1
                elif message.own or self._is_container(challenge.local_address):
                    heard.append(challenge)
                else:
                    self.counts.passing += 1
            elif message is None:
                self.counts.unreadable += 1

    def _number(self, number: int | None, now: float) -> None:
        if number is not None:
            lacking = missing(self._last, number)
            self._last = number
            if lacking:
                self._lose(lacking, now)

    def _lose(self, number: int, now: float) -> None:
        """Note that packets are lost: the kernel says so, or ``number`` of them by the count."""
        self.counts.gaps += 1
        self.counts.lost += number
        self._gap(now)

    def _become(self, condition: Condition) -> None:
        if condition == self.condition:
            return
        changed, self.condition = condition.state is not self.condition.state, condition
        self.settled.set()
        if changed:
            log_condition(self._log, condition)


def _nothing() -> None:
    """Read nothing: there is nobody to read from."""


def _lookup(networks: Sequence[Network]) -> Callable[[Address], bool]:
    """Give what says whether an address is in one of the networks: there may be many, but few Asterisks."""

    @lru_cache(maxsize=_MOST_KNOWN)
    def is_in(address: Address) -> bool:
        return any(address in network for network in networks)

    return is_in


_NO_NFLOG = (
    "this kernel has no packet log; mend: `modprobe nfnetlink_log xt_NFLOG` "
    "(CONFIG_NETFILTER_NETLINK_LOG; in a container: on its host)"
)


def _open(buffer: int) -> socket.socket:
    """Make the socket, with room for what comes while nobody reads."""
    try:
        connection = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            detail = "the unit's RestrictAddressFamilies= lacks AF_NETLINK; mend: the unit as it is shipped"
            raise EndError(State.DENIED, detail) from error
        if error.errno == errno.EPROTONOSUPPORT:
            raise EndError(State.ABSENT, _NO_NFLOG) from error
        raise EndError(State.LOST, f"netlink: {error.strerror}") from error
    try:
        try:
            connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        except PermissionError:  # a user namespace: as much as the host allows
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.bind((0, 0))
    except OSError as error:
        connection.close()
        raise EndError(State.LOST, f"netlink: {error.strerror}") from error
    return connection


def _bind(connection: socket.socket, group: int) -> None:
    """Take the group; the kernel answers within the request."""
    try:
        connection.send(bind_request(group))
        answers = list(read_datagram(connection.recv(_DATAGRAM)))
    except OSError as error:
        raise EndError(State.LOST, f"netlink: {error.strerror}") from error
    code = next((answer.code for answer in answers if isinstance(answer, Acknowledged)), errno.EPROTO)
    if code in (errno.EPERM, errno.EBUSY):
        detail = (
            f"NFLOG group {group} may not be read: CAP_NET_ADMIN is lacking (the systemd unit grants it, by "
            "hand: run as root), or another program reads it (see /proc/net/netfilter/nfnetlink_log)"
        )
        raise EndError(State.DENIED, detail)
    if code in (errno.EINVAL, errno.EOPNOTSUPP):
        raise EndError(State.ABSENT, _NO_NFLOG)
    if code:
        raise EndError(State.LOST, f"NFLOG group {group}: {errno.errorcode.get(code, code)}")
