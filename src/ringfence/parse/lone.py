"""Lone challenges: half of many a log of security events, and they tell of nothing.

Asterisk says ChallengeSent at the beginning of every registration and of every guess. Under PJSIP it means
something only where its session (a Call-ID) was told of before, by an event of another kind: the fold
(``ringfence.detect.fold``) makes nothing of the others. To find that out here saves them the way there.

A session is remembered for longer than the fold can, by a mark in a table, which others may share with it:
then its challenge is not left out, and to tell too much changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf

from ringfence.model import Address, EventKind, Service
from ringfence.parse.address import parse_endpoint
from ringfence.parse.ordinary import FIELDS, KIND, REMOTE, SERVICE, SESSION, TIME, Parts, Values
from ringfence.parse.security import event_seconds

REMEMBERED = 64.0
"""For so long a session is remembered at least (seconds, by the log's own time)."""

_MARKS = 2**19
_EVENTS_SESSION = FIELDS.index("session")
_PJSIP, _CHALLENGE = Service.PJSIP.value.encode(), EventKind.CHALLENGE_SENT.value.encode()


class LoneChallenges:
    """Leaves them out of one log, and counts them by their addresses."""

    def __init__(self, marks: int = _MARKS) -> None:
        self._since = -inf
        # Whether a session of this hash was told of since then, and in the time before.
        self._lately, self._before = bytearray(marks), bytearray(marks)
        self._left_out: Counter[bytes] = Counter()

    def counted(self) -> list[tuple[Address, int]]:
        """Give how many events of each address were left out since this was asked last."""
        ends = [(parse_endpoint(end), number) for end, number in self._left_out.items()]
        self._left_out.clear()
        return [(end.address, number) for end, number in ends if end is not None]

    def without(self, lines: Sequence[Parts]) -> Sequence[Parts]:
        """Give ordinary lines without them."""
        self._go_on(next((line[TIME] for line in lines if line[KIND]), b""))
        lately, before, left_out, marks = self._lately, self._before, self._left_out, len(self._lately)
        kept = []
        for line in lines:
            if line[SERVICE] == _PJSIP:
                mark = hash(line[SESSION]) % marks
                if line[KIND] != _CHALLENGE:
                    lately[mark] = 1
                elif not (lately[mark] or before[mark]):
                    left_out[line[REMOTE]] += 1
                    continue
            kept.append(line)
        return kept

    def note(self, events: Iterable[Values]) -> None:
        """Take what was told in lines that are not ordinary; none of it is left out."""
        for event in events:
            self._lately[hash(event[_EVENTS_SESSION]) % len(self._lately)] = 1

    def _go_on(self, time: bytes) -> None:
        """Forget the sessions that are old enough at a ``time``."""
        now = event_seconds(time) if time else None
        if now is not None and abs(now - self._since) >= REMEMBERED:
            self._since, self._before, self._lately = now, self._lately, bytearray(len(self._lately))
