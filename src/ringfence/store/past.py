"""Queries for recorded bans.

One returns the bans of a network and of networks around it, with their attempts. The other returns all ended
bans.
"""

import enum
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

from attrs import frozen

from ringfence.model import Ban, Network, Origin, Scope
from ringfence.store.attempt_counts import AttemptCounts
from ringfence.store.rows import ATTEMPT, INVALID_ROW, Execute, attempts_in, times

_BANS = "SELECT id, network, since, expires, rule, reason, origin, scope, offence, forced, ended FROM bans"


@frozen
class Past:
    """A recorded ban.

    ``ended`` is the time when it was removed or replaced; None if it is active or expired.
    """

    ban: Ban
    ended: float | None

    def runs(self, now: float) -> bool:
        """Whether the ban has time left and was not removed."""
        return self.ended is None and self.ban.expires > now


class End(enum.StrEnum):
    """How a ban ended."""

    EXPIRED = "expired"
    REMOVED = "removed"
    REPLACED = "replaced"  # by another ban of the same network and scope


@frozen
class EndedBan:
    """A ban that ended at ``ended`` (seconds since the epoch), with the counts of its attempts."""

    ban: Ban
    counts: AttemptCounts
    ended: float
    end: End


def ended_bans(execute: Execute, since: float, now: float) -> Iterator[EndedBan]:
    """Yield the bans that ended from ``since`` to ``now``, the latest end first.

    Invalid rows are left out.
    """
    for row in execute(_ENDED, (now, now, since)):
        with suppress(*INVALID_ROW):
            yield _ended(row)


_ENDED = """
    SELECT network, since, expires, rule, reason, origin, scope, offence, forced,
        made, proven, accounts, account, ended,
        ended IS NOT NULL AND EXISTS (
            SELECT 1 FROM bans AS later
            WHERE later.network = bans.network AND later.since = bans.ended AND later.scope = bans.scope
        )
    FROM bans WHERE (ended IS NOT NULL AND ended <= ? OR ended IS NULL AND expires <= ?)
        AND coalesce(ended, expires) >= ?
    ORDER BY coalesce(ended, expires) DESC, id DESC
"""


def _ended(row: Sequence[Any]) -> EndedBan:
    network, since, expires, rule, reason, origin, scope, offence, forced, *counts, ended, replaced = row
    made, proven, accounts, account = counts
    end = End.EXPIRED if ended is None else End.REPLACED if replaced else End.REMOVED
    when = expires if ended is None else ended
    times(since, expires, when)
    ban = Ban(
        ip_network(network),
        since,
        expires,
        rule,
        reason,
        Origin(origin),
        scope=Scope(scope),
        offence=int(offence),
        forced=bool(forced),
    )
    return EndedBan(ban, AttemptCounts(int(made), int(proven), int(accounts), str(account)), when, end)


def past_of(execute: Execute, network: Network, since: float, most: int) -> list[Past]:
    """Return the bans of ``network`` and of networks around it: active ones, or ended after ``since``.

    The ban that began last comes first. If there are more than ``most``, the earliest are left out. Invalid
    rows are left out too.
    """
    around = [str(network.supernet(new_prefix=length)) for length in range(network.prefixlen + 1)]
    marks = ", ".join("?" * len(around))
    wanted = f"network IN ({marks}) AND coalesce(ended, expires) > ? ORDER BY since DESC, id DESC LIMIT ?"
    rows = execute(f"{_BANS} WHERE {wanted}", (*around, since, most)).fetchall()
    found = []
    for identity, *row in rows:
        try:
            found.append(_past(execute, identity, row))
        except INVALID_ROW:
            continue
    return found


def _past(execute: Execute, identity: int, row: Sequence[Any]) -> Past:
    network, since, expires, rule, reason, origin, scope, offence, forced, ended = row
    times(since, expires, *(() if ended is None else (ended,)))
    attempts = execute(f"SELECT {ATTEMPT} FROM attempts WHERE ban = ? ORDER BY rowid", (identity,))  # noqa: S608 - ours
    ban = Ban(
        ip_network(network),
        since,
        expires,
        rule,
        reason,
        Origin(origin),
        tuple(attempts_in(attempts)),
        Scope(scope),
        offence,
        bool(forced),
    )
    return Past(ban, ended)
