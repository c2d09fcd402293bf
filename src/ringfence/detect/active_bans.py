"""Active bans of a detector that has no firewall, such as in a replay.

A subject (an IPv4 address, or the /64 of an IPv6 address) or a prefix (the /24 or /48 around it) is banned
with a scope (the traffic that the ban drops). A banned prefix includes all subjects in it. Times are
monotonic seconds. At most ``MOST`` bans are active: as many as the kernel's set of bans holds by default.
Beyond that, the bans that end first are removed, and attempts of their subjects count again.
"""

from heapq import heapify, heappop, heappush
from math import inf

from ringfence.detect.history import Key, key_of, network_of
from ringfence.detect.subjects import Subject
from ringfence.model import Network, Scope
from ringfence.networks import PREFIX_LENGTHS, prefix_of

MOST = 262_144
_MOST_OUTDATED = 1_000

_BanKey = tuple[Key, Scope]


class ActiveBans:
    """Subjects and prefixes that are banned, each with a scope and an end."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._until: dict[_BanKey, float] = {}
        # A heap of the ends of bans. A ban that was renewed or removed leaves its old end in it.
        self._ends: list[tuple[float, int, _BanKey]] = []
        self._wide = 0  # the number of banned prefixes

    def __len__(self) -> int:
        """Return the number of active bans."""
        return len(self._until)

    def has(self, subject: Subject, scope: Scope, now: float) -> bool:
        """Whether a subject, or the prefix around it, is banned with ``scope`` at ``now``."""
        if not self._until:
            return False
        if self._until.get((subject.key, scope), now) > now:
            return True
        return bool(self._wide) and self._until.get((key_of(prefix_of(subject.address)), scope), now) > now

    def add(self, subject: Network, until: float, scope: Scope) -> None:
        """Ban a subject or prefix until ``until``. Replace the end of a ban with the same scope."""
        key = key_of(subject), scope
        self._wide += key not in self._until and _is_wide(key)
        self._until[key] = until
        heappush(self._ends, (until, id(key), key))
        while len(self._until) > self._most:
            end, _, first = heappop(self._ends)
            if self._until.get(first) == end:  # otherwise the ban was renewed or removed
                self._discard(first)
        if len(self._ends) > 2 * len(self._until) + _MOST_OUTDATED:  # most entries are outdated
            self._ends = [(end, id(key), key) for key, end in self._until.items()]
            heapify(self._ends)

    @property
    def subjects(self) -> set[Network]:
        """The banned subjects and prefixes."""
        return {network_of(key) for key, _ in self._until}

    def remove(self, subject: Network) -> None:
        """Remove the bans of a subject or prefix, whatever their scope."""
        for scope in Scope:
            self._discard((key_of(subject), scope))

    def expire(self, now: float) -> None:
        """Remove expired bans."""
        while self._ends and self._ends[0][0] <= now:
            _, _, key = heappop(self._ends)
            if self._until.get(key, inf) <= now:  # otherwise it was renewed or removed
                self._discard(key)

    def _discard(self, key: _BanKey) -> None:
        if self._until.pop(key, None) is not None:
            self._wide -= _is_wide(key)


def _is_wide(key: _BanKey) -> bool:
    return network_of(key[0]).prefixlen in PREFIX_LENGTHS
