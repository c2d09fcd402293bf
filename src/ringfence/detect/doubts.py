"""What waits for a witness: attempts whose address their sender may have written.

Bound: 10 000, the oldest go first, unjudged: they would have been listed, and banned nobody.
"""

from collections import deque
from collections.abc import Iterator

from attrs import define

from ringfence.detect.fold import session_key
from ringfence.model import Address, Attempt, SecurityEvent

PATIENCE = 1.0
"""How long a doubt waits (seconds) for a source that is trusted to tell of the same."""

_MAX_DOUBTS = 10_000


@define
class Doubt:
    """An attempt that ``event`` told of at ``at`` (monotonic seconds). ``over``: it was settled meanwhile."""

    at: float
    attempt: Attempt
    event: SecurityEvent
    over: bool = False


class Doubts:
    """Holds doubts in the order in which they came, and finds them by address and session."""

    def __init__(self, most: int = _MAX_DOUBTS) -> None:
        self._most = most
        self._queue: deque[Doubt] = deque()
        self._by_key: dict[tuple[Address, bytes], list[Doubt]] = {}

    def __len__(self) -> int:
        """How many wait, the settled among them."""
        return len(self._queue)

    def add(self, doubt: Doubt) -> None:
        """Let ``doubt`` wait."""
        if len(self._queue) >= self._most:
            self._leave(self._queue.popleft())
        self._queue.append(doubt)
        self._by_key.setdefault(_key(doubt), []).append(doubt)

    def settle(self, address: Address, session: bytes) -> list[Doubt]:
        """Give those of ``address`` under ``session``, which wait no longer."""
        if not self._by_key:
            return []
        found = self._by_key.pop((address, session_key(session)), [])
        for doubt in found:
            doubt.over = True
        return found

    def due(self, now: float) -> Iterator[Doubt]:
        """Give those that have waited long enough."""
        while self._queue and now - self._queue[0].at >= PATIENCE:
            doubt = self._queue.popleft()
            if not doubt.over:
                self._leave(doubt)
                yield doubt

    def _leave(self, doubt: Doubt) -> None:
        """Forget where ``doubt`` was to be found: first under its key, since it is the oldest."""
        others = self._by_key.get(_key(doubt))
        if others and others[0] is doubt:
            del others[0]
            if not others:
                del self._by_key[_key(doubt)]


def _key(doubt: Doubt) -> tuple[Address, bytes]:
    return doubt.event.remote.address, session_key(doubt.event.session)
