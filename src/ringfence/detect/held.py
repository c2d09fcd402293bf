"""Who is held, and until when: for whoever drives the detector without a firewall of his own.

A subject is held by a scope; a prefix holds all subjects in it. Times are monotonic seconds.
"""

from heapq import heapify, heappop, heappush
from math import inf

from ringfence.detect.history import Key, key_of, network_of
from ringfence.detect.places import PREFIX_LENGTHS, Place, prefix_of
from ringfence.model import Network, Scope

_MOST_LET_GO = 1_000

_What = tuple[Key, Scope]


class Held:
    """Subjects and prefixes that are banned, or about to be."""

    def __init__(self) -> None:
        self._until: dict[_What, float] = {}
        self._releases: list[tuple[float, int, _What]] = []  # a heap: when to drop whom, in order
        self._wide = 0  # how many of them are prefixes

    def __len__(self) -> int:
        """How many are held."""
        return len(self._until)

    def has(self, place: Place, scope: Scope, now: float) -> bool:
        """Say whether a subject is held at ``now``."""
        if not self._until:
            return False
        if self._until.get((place.key, scope), now) > now:
            return True
        return bool(self._wide) and self._until.get((key_of(prefix_of(place.address)), scope), now) > now

    def hold(self, subject: Network, until: float, scope: Scope) -> None:
        """Hold a subject until then; the last word counts."""
        what = key_of(subject), scope
        self._wide += what not in self._until and _is_wide(what)
        self._until[what] = until
        heappush(self._releases, (until, id(what), what))
        if len(self._releases) > 2 * len(self._until) + _MOST_LET_GO:  # most of them are held no longer
            self._releases = [(end, id(held), held) for held, end in self._until.items()]
            heapify(self._releases)

    def release(self, subject: Network) -> None:
        """Let a subject go, whatever it is held for."""
        for scope in Scope:
            self._let_go((key_of(subject), scope))

    def expire(self, now: float) -> None:
        """Let those go whose time is over."""
        while self._releases and self._releases[0][0] <= now:
            _, _, what = heappop(self._releases)
            if self._until.get(what, inf) <= now:  # else it is held anew, or was let go
                self._let_go(what)

    def _let_go(self, what: _What) -> None:
        if self._until.pop(what, None) is not None:
            self._wide -= _is_wide(what)


def _is_wide(what: _What) -> bool:
    return network_of(what[0]).prefixlen in PREFIX_LENGTHS
