"""What hides: challenges that left on the wire, and whether Asterisk tells of them.

Asterisk answers a guess with a challenge, and the wire sees each (PJSIP over UDP). So what the wire saw can
be held against what is told, both ways:

- A line of the log that a sender could have written is *backed* where a challenge was asked for by just that
  address under just that Call-ID.
- A challenge whose request held bytes that silence Asterisk (``Challenge.veiled``) is evidence at once: its
  sender is known, and no phone sends such bytes.
- Any other challenge that AMI has not told of by one event within ``WAIT`` is evidence too. AMI tells of
  each, by ChallengeSent, InvalidAccountID or ChallengeResponseFailed; what silences it without a trace in
  the challenge is, say, a first of two Authorization headers whose nonce is not UTF-8.

Only what is told of UDP counts for it: a ChallengeSent by TCP is no challenge that the wire sees. What AMI
tells may come before the challenge itself, where both waited to be read.

The last is a conclusion from silence, so it is drawn with care, since it would hit every phone where it is
wrong: only of a local address and port for which AMI did tell ChallengeSent within ``VOUCHED`` (who switches
that event off, or has another PJSIP on this host, is not served by it), and only while AMI was listening all
the time, and told in time: under a flood Asterisk itself may come late. PJSIP answers a request that was sent
twice anew, and AMI tells of it anew.

Bounds: 65 536 pairs of address and Call-ID and as many challenges that wait, the oldest go first, which only
loses evidence. Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

from attrs import define

from ringfence.detect.fold import AddressKey, address_key, session_key
from ringfence.model import Address, Challenge, EventKind, SecurityEvent, Service, Transport

LIFE = 10.0
"""How long a challenge backs what is told (seconds); a log line has been seen to be 3 s late."""

WAIT = 5.0
"""How long AMI may take to tell of a challenge (seconds)."""

LATE = 1.0
"""AMI that tells of what is older than this (seconds) has more on its way."""

VOUCHED = 600.0
"""How long one ChallengeSent shows that challenges from where it left are told (seconds)."""

_MAX_PAIRS = 65_536
_MAX_WAITING = 65_536
_MAX_PLACES = 256

Place = tuple[Address, int]
"""Where a challenge left: the local address and port."""

_Key = tuple[AddressKey, bytes]


@define
class _Pair:
    """The challenges to one address under one Call-ID: ``due`` of them should have been ``told`` by now.

    Until one is seen ``place`` is None, and ``sent_by`` is the Asterisk that has told of one already.
    """

    last: float
    place: Place | None = None
    told: int = 0
    due: int = 0
    sent_by: str = ""


class Hidden:
    """Takes what the wire saw and what AMI tells; gives the challenges that nobody tells of."""

    def __init__(self, max_pairs: int = _MAX_PAIRS) -> None:
        self._max_pairs = max_pairs
        self._pairs: OrderedDict[_Key, _Pair] = OrderedDict()
        self._waiting: deque[tuple[float, _Key, Challenge]] = deque(maxlen=_MAX_WAITING)
        self._vouched: dict[Place, tuple[float, str]] = {}
        self._late = -WAIT

    def __len__(self) -> int:
        """How many pairs of address and Call-ID are kept."""
        return len(self._pairs)

    def note(self, challenge: Challenge, sender: Address, now: float) -> None:
        """Take a challenge that ``sender`` asked for."""
        key = address_key(sender), session_key(challenge.call_id)
        place = challenge.local_address, challenge.local_port
        pair = self._pair(key, now)
        pair.place = place
        if pair.sent_by:
            self._vouch(place, now, pair.sent_by)
            pair.sent_by = ""
        if not challenge.veiled:
            self._waiting.append((now, key, challenge))

    def backs(self, event: SecurityEvent, now: float) -> bool:
        """Say whether a challenge was asked for by the address and under the Call-ID of ``event``."""
        pair = self._pairs.get((address_key(event.remote.address), session_key(event.session)))
        return pair is not None and pair.place is not None and now - pair.last < LIFE

    def told(self, event: SecurityEvent, now: float, wall: float) -> None:
        """Take what AMI tells of PJSIP at ``now``, which is ``wall`` seconds since the epoch."""
        if wall - event.time > LATE:
            self._late = now
        if event.service is not Service.PJSIP or event.remote.transport is not Transport.UDP:
            return
        key = address_key(event.remote.address), session_key(event.session)
        pair = self._pairs.get(key) or self._pair(key, now)
        pair.told += 1
        if event.kind is not EventKind.CHALLENGE_SENT:
            return
        if pair.place is None:
            pair.sent_by = event.source.asterisk
        else:
            self._vouch(pair.place, now, event.source.asterisk)

    def asterisk_at(self, challenge: Challenge) -> str | None:
        """Give the name of the Asterisk that has told of challenges from the same place."""
        known = self._vouched.get((challenge.local_address, challenge.local_port))
        return known[1] if known is not None else None

    def untold(self, now: float, listening: Callable[[str], float | None]) -> list[tuple[Challenge, str]]:
        """Give the challenges that AMI should have told of by ``now`` and has not, each once, and whose AMI.

        ``listening`` says since when the AMI of an Asterisk has been heard without a break; None: it is not.
        """
        found = []
        while self._waiting and now - self._waiting[0][0] >= WAIT:
            seen, key, challenge = self._waiting.popleft()
            pair = self._pairs.get(key)
            if pair is None:
                continue
            pair.due += 1
            if pair.told >= pair.due:
                continue
            pair.due -= 1
            place = challenge.local_address, challenge.local_port
            vouched, asterisk = self._vouched.get(place, (-VOUCHED, ""))
            since = listening(asterisk)
            heard = since is not None and since < seen and self._late < seen
            if heard and seen - vouched < VOUCHED:
                found.append((challenge, asterisk))
        return found

    def _pair(self, key: _Key, now: float) -> _Pair:
        """Find or make a pair, as the one that was used last."""
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pairs[key] = _Pair(now)
        else:
            pair.last = now
            self._pairs.move_to_end(key)
        self._purge(now)
        return pair

    def _vouch(self, place: Place, now: float, asterisk: str) -> None:
        self._vouched[place] = now, asterisk
        if len(self._vouched) > _MAX_PLACES:
            del self._vouched[next(iter(self._vouched))]

    def _purge(self, now: float) -> None:
        """Forget pairs that back nothing any more and wait for nothing, and the oldest beyond the bound."""
        while self._pairs:
            key, oldest = next(iter(self._pairs.items()))
            if len(self._pairs) <= self._max_pairs and now - oldest.last < LIFE + WAIT:
                return
            del self._pairs[key]
