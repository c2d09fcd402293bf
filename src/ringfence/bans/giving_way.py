"""Selects the bans that are removed early if a set is full: those with the least time left."""

from attrs import Factory, define

from ringfence.bans.ledger import Ledger
from ringfence.model import Ban, Scope

AT_ONCE = 256
"""The number of bans that one search returns. A search takes long, because it goes through all bans."""


@define
class GivingWay:
    """Finds the bans of a full set that end first, so that they can make room for a longer ban."""

    _waiting: dict[tuple[int, int, Scope], list[int]] = Factory(dict)

    def next(self, ledger: Ledger, ban: Ban) -> int | None:
        """Return the key of the ban to remove for ``ban``; None if no ban ends earlier than ``ban``."""
        like = (ban.network.version, ban.network.prefixlen, ban.scope)
        waiting = self._waiting.get(like)
        if not waiting:
            waiting = self._waiting[like] = ledger.soonest(ban.network, ban.scope, AT_ONCE)[::-1]
        while waiting:
            record = ledger.get(waiting[-1])
            if record is not None and record.expires >= ban.expires:  # kept for a longer ban
                return None
            key = waiting.pop()
            if record is not None:
                return key
        return None

    def clear(self) -> None:
        """Forget the bans that were found."""
        self._waiting.clear()
