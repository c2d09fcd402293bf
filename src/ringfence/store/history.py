"""The recorded bans of one address, with their attempts, including ended ones."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from attrs import frozen

from ringfence.model import Ban, Network, Origin, Scope
from ringfence.store.rows import ATTEMPT, INVALID_ROW, Execute, attempts_in, times

_BANS = "SELECT id, network, since, expires, rule, reason, origin, scope, offence, forced, ended FROM bans"


@frozen
class Past:
    """A ban, and the time when it was removed or replaced; None if it is active or expired."""

    ban: Ban
    ended: float | None

    def runs(self, now: float) -> bool:
        """Whether the ban has time left and was not removed."""
        return self.ended is None and self.ban.expires > now


def past_of(execute: Execute, network: Network, since: float, most: int) -> list[Past]:
    """Read the bans of ``network`` and of the networks around it that ended after ``since`` or are active.

    Return the latest ``most``, the latest first. Unreadable rows are left out; the others are valid.
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
