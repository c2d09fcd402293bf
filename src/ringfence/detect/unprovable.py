"""Friends with guesses that cannot be proven. The limiter does not exempt them for a while.

Asterisk checks the password of a request whose nonce it never sent, and answers ``stale`` to the right one.
Such a guess stays unproven for ever, and unproven attempts ban no friend. A phone that answers with an old
nonce makes one such failure. ``UNPROVEN`` in an hour indicate an attacker at the friend's address, or one
that forges it.

Bound: ``MOST`` addresses, the oldest are discarded first. Times are monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Iterator

from ringfence.detect.recent import remember
from ringfence.model import Address, Attempt, EventKind, Transport

UNSHIELDED_FOR = 600.0
"""Seconds after an unprovable guess for which the limiter does not exempt a friend."""

UNPROVEN = 4
"""The number of unproven guesses of a friend in an hour that raises an alarm."""

PROVEN_WITHIN = 2.0
"""How late (seconds) the proof of a guess may come."""

MOST = 1_024

CHECKED = frozenset({EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_PASSWORD, EventKind.HIDDEN})
"""Kinds of events after which Asterisk has, or may have, checked a password."""


class Unprovable:
    """Unproven guesses of friends that wait for a proof, and the friends that the limiter does not exempt."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Address, float] = OrderedDict()
        self._unshielded: OrderedDict[Address, float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of addresses."""
        return len(self._waiting) + len(self._unshielded)

    def record(self, attempt: Attempt, now: float) -> None:
        """Record an unproven attempt of a friend."""
        if attempt.event in CHECKED and attempt.transport is Transport.UDP:
            remember(self._waiting, attempt.address, self._waiting.get(attempt.address, now), MOST)

    def due(self, now: float) -> Iterator[Address]:
        """Yield each address with attempts that should be proven by now."""
        for address, since in list(self._waiting.items()):
            if now - since >= PROVEN_WITHIN:
                del self._waiting[address]
                yield address

    def unshield(self, address: Address, now: float) -> None:
        """Record that the limiter must not exempt a friend any more."""
        remember(self._unshielded, address, now, MOST)

    def unshielded(self, now: float) -> list[Address]:
        """Return the friends that the limiter must not exempt now."""
        while self._unshielded and now - next(iter(self._unshielded.values())) >= UNSHIELDED_FOR:
            self._unshielded.popitem(last=False)
        return list(self._unshielded)
