"""Selects the bans that are removed early if a set is full: those with the least time left."""

from attrs import Factory, define

from ringfence.ledger import Ledger
from ringfence.model import Ban, Scope

AT_ONCE = 256
"""The number of bans that one search returns. A search takes long, because it goes through all bans."""


@define
class GivingWay:
    """Finds the bans of a full set that end first, so that they can make room for a longer ban."""

    # The ends and keys of the bans found, by IP version, prefix length and scope. The earliest end is last.
    _waiting: dict[tuple[int, int, Scope], list[tuple[float, int]]] = Factory(dict)

    def next(self, ledger: Ledger, ban: Ban) -> int | None:
        """Return the key of the ban to remove for ``ban``; None if no ban ends earlier than ``ban``."""
        like = (ban.network.version, ban.network.prefixlen, ban.scope)
        waiting = self._waiting.setdefault(like, [])
        while waiting and not _still_ends(ledger, *waiting[-1]):
            waiting.pop()
        if not waiting:
            waiting += ledger.soonest(ban.network, ban.scope, AT_ONCE)[::-1]
        # If the bans found end too late for ``ban``, they are kept for a later call with a longer ban.
        if not waiting or waiting[-1][0] >= ban.expires:
            return None
        return waiting.pop()[1]


def _still_ends(ledger: Ledger, expires: float, key: int) -> bool:
    """Whether a ban was neither removed nor replaced since it was found with this end."""
    record = ledger.get(key)
    return record is not None and record.expires == expires
