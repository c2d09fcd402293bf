"""Filter for ChallengeSent events without another event of their session: half of many a log, and irrelevant.

Asterisk reports ChallengeSent at the beginning of every registration and of every guess. Under PJSIP it
matters only after an event of another kind in its session (a Call-ID): the detector
(``ringfence.detect.fold``) ignores the others. This module drops them earlier, which saves time.

A session is remembered for longer than the detector can, by a mark in a table. Several sessions may share a
mark. Then a challenge is passed on although it could be dropped, which changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf

from ringfence.model import Address, EventKind, Service
from ringfence.parse.address import parse_endpoint
from ringfence.parse.ordinary import FIELDS, KIND, REMOTE, SERVICE, SESSION, TIME, Parts, Values
from ringfence.parse.security import event_seconds

REMEMBERED = 64.0
"""Sessions are remembered at least for this time (seconds, by the log's own time)."""

_MARKS = 2**19
_EVENTS_SESSION = FIELDS.index("session")
_PJSIP, _CHALLENGE = Service.PJSIP.value.encode(), EventKind.CHALLENGE_SENT.value.encode()


class LoneChallenges:
    """The filter of one log. It counts the dropped challenges by their addresses."""

    def __init__(self, marks: int = _MARKS) -> None:
        self._since = -inf
        # Whether a session with this hash had an event since then, and in the period before.
        self._lately, self._before = bytearray(marks), bytearray(marks)
        self._left_out: Counter[bytes] = Counter()

    def counted(self) -> list[tuple[Address, int]]:
        """Return how many events of each address were dropped since the last call."""
        ends = [(parse_endpoint(end), number) for end, number in self._left_out.items()]
        self._left_out.clear()
        return [(end.address, number) for end, number in ends if end is not None]

    def without(self, lines: Sequence[Parts]) -> Sequence[Parts]:
        """Return ordinary lines without such challenges."""
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
        """Record the sessions of events that come from other lines; none of them is dropped."""
        for event in events:
            self._lately[hash(event[_EVENTS_SESSION]) % len(self._lately)] = 1

    def _go_on(self, time: bytes) -> None:
        """Forget the sessions that are too old at ``time``."""
        now = event_seconds(time) if time else None
        if now is not None and abs(now - self._since) >= REMEMBERED:
            self._since, self._before, self._lately = now, self._lately, bytearray(len(self._lately))
