"""Hidden attempts: challenges that left on the wire, and whether Asterisk reports them.

Asterisk answers a guess with a challenge. The wire sees each challenge by UDP, and by TCP and WebSocket
unless a segment holds only part of it. So challenges and reports are compared, both ways:

- A log line that a sender could have forged is confirmed if exactly that address requested a challenge under
  exactly that Call-ID.
- A challenge whose request held bytes that suppress Asterisk's events (``Challenge.evasive``) is evidence at
  once: its sender is known, and no phone sends such bytes.
- Any other challenge that AMI has not reported by one event within ``WAIT`` is evidence too. AMI reports each
  challenge by ChallengeSent, InvalidAccountID or ChallengeResponseFailed. For example, two Authorization
  headers, the first with a nonce that is not UTF-8, suppress the event and leave no trace in the challenge.

Datagrams and streams are counted separately; otherwise events of one could stand for challenges of the other.
Challenges by TLS are invisible and not counted. An event of AMI may be read before its challenge.

The third conclusion rests on missing events, and a wrong one would affect each phone. So it has conditions.
AMI must have reported a ChallengeSent for the same local address and port within ``VOUCHED``. (It does not
work if ChallengeSent is switched off, or for another PJSIP on this host.) AMI must have been connected all
the time, and its events must not be late, as they may be during a flood. (PJSIP answers a retransmitted
request again, and AMI reports it again, so both counts stay equal.)

Bounds: 65 536 pairs of address and Call-ID, and as many waiting challenges. The oldest are discarded first,
which only loses evidence. Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

from attrs import define

from ringfence.detect.fold import AddressKey, address_key, session_key
from ringfence.model import Address, Challenge, EventKind, SecurityEvent, Service, Transport

LIFE = 10.0
"""How long a challenge confirms reports (seconds). Log lines up to 3 s late were observed."""

WAIT = 5.0
"""How long AMI may take to report a challenge (seconds)."""

LATE = 1.0
"""If AMI reports an event that is older than this (seconds), other events may be delayed too."""

VOUCHED = 600.0
"""Seconds after a ChallengeSent during which AMI counts as reporting the challenges of that local port."""

_MAX_PAIRS = 65_536
_MAX_WAITING = 65_536
_MAX_PORTS = 256

LocalPort = tuple[Address, int]
"""The local address and port that sent a challenge."""

_Key = tuple[AddressKey, bytes, bool]
"""An address, a Call-ID, and whether a datagram carried it."""

_SEEN = {Transport.UDP: True, Transport.TCP: False, Transport.WS: False}


@define
class _Pair:
    """The challenges to one address under one Call-ID: AMI should have reported ``due`` of them by now.

    ``local_port`` is None until a challenge is seen. ``sent_by`` is the Asterisk that has reported a
    challenge.
    """

    last: float
    local_port: LocalPort | None = None
    reported: int = 0
    due: int = 0
    sent_by: str = ""


class Hidden:
    """Compares the challenges on the wire with the events of AMI, and finds unreported challenges."""

    def __init__(self, max_pairs: int = _MAX_PAIRS) -> None:
        self._max_pairs = max_pairs
        self._pairs: OrderedDict[_Key, _Pair] = OrderedDict()
        self._waiting: deque[tuple[float, _Key, Challenge]] = deque(maxlen=_MAX_WAITING)
        self._vouched: dict[LocalPort, tuple[float, str]] = {}
        self._late = -WAIT

    def __len__(self) -> int:
        """Return the number of pairs of address and Call-ID."""
        return len(self._pairs)

    def record(self, challenge: Challenge, sender: Address, now: float) -> None:
        """Record a challenge that ``sender`` requested."""
        key = address_key(sender), session_key(challenge.call_id), challenge.transport is Transport.UDP
        local_port = challenge.local_address, challenge.local_port
        pair = self._pair(key, now)
        pair.local_port = local_port
        if pair.sent_by:
            self._vouch(local_port, now, pair.sent_by)
            pair.sent_by = ""
        if not challenge.evasive:
            self._waiting.append((now, key, challenge))

    def confirms(self, event: SecurityEvent, now: float) -> bool:
        """Whether a challenge left by UDP to the address and Call-ID of ``event``.

        A TCP segment may begin within a body that another sender wrote, so text by TCP needs its connection.
        """
        pair = self._pairs.get((address_key(event.remote.address), session_key(event.session), True))
        return pair is not None and pair.local_port is not None and now - pair.last < LIFE

    def record_event(self, event: SecurityEvent, now: float, wall: float) -> None:
        """Record an event of AMI at ``now``, which is ``wall`` seconds since the epoch."""
        if wall - event.time > LATE:
            self._late = now
        datagram = _SEEN.get(event.remote.transport)
        if event.service is not Service.PJSIP or datagram is None:
            return
        key = address_key(event.remote.address), session_key(event.session), datagram
        pair = self._pairs.get(key) or self._pair(key, now)
        pair.reported += 1
        if event.kind is not EventKind.CHALLENGE_SENT:
            return
        if pair.local_port is None:
            pair.sent_by = event.source.asterisk
        else:
            self._vouch(pair.local_port, now, event.source.asterisk)

    def asterisk_at(self, challenge: Challenge) -> str | None:
        """Return the name of the Asterisk that reported challenges from the same local port."""
        known = self._vouched.get((challenge.local_address, challenge.local_port))
        return known[1] if known is not None else None

    def unreported(self, now: float, listening: Callable[[str], float | None]) -> list[tuple[Challenge, str]]:
        """Return challenges that AMI should have reported by ``now``, with their Asterisk.

        Each is returned once.

        ``listening`` returns since when AMI of an Asterisk has been connected without interruption, or None.
        """
        found = []
        while self._waiting and now - self._waiting[0][0] >= WAIT:
            seen, key, challenge = self._waiting.popleft()
            pair = self._pairs.get(key)
            if pair is None:
                continue
            pair.due += 1
            if pair.reported >= pair.due:
                continue
            pair.due -= 1
            local_port = challenge.local_address, challenge.local_port
            vouched, asterisk = self._vouched.get(local_port, (-VOUCHED, ""))
            since = listening(asterisk)
            heard = since is not None and since < seen and self._late < seen
            if heard and seen - vouched < VOUCHED:
                found.append((challenge, asterisk))
        return found

    def _pair(self, key: _Key, now: float) -> _Pair:
        """Return the pair of ``key``, created if needed, as the most recently used one."""
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pairs[key] = _Pair(now)
        else:
            pair.last = now
            self._pairs.move_to_end(key)
        self._purge(now)
        return pair

    def _vouch(self, local_port: LocalPort, now: float, asterisk: str) -> None:
        self._vouched[local_port] = now, asterisk
        if len(self._vouched) > _MAX_PORTS:
            del self._vouched[next(iter(self._vouched))]

    def _purge(self, now: float) -> None:
        """Discard pairs that are too old to confirm a report, and the oldest beyond the bound."""
        while self._pairs:
            key, oldest = next(iter(self._pairs.items()))
            if len(self._pairs) <= self._max_pairs and now - oldest.last < LIFE + WAIT:
                return
            del self._pairs[key]
