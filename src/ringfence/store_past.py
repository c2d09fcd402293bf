"""What the database remembers of one address: its bans, those that are over too, with their attempts."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from attrs import frozen

from ringfence.model import Ban, Network, Origin, Scope
from ringfence.store_rows import ATTEMPT, Execute, attempt_of

_BANS = "SELECT id, network, since, expires, rule, reason, origin, scope, offence, forced, ended FROM bans"


@frozen
class Past:
    """A ban, and when it was lifted or another followed it; None where it runs, or ended by itself."""

    ban: Ban
    ended: float | None

    def runs(self, now: float) -> bool:
        """Say whether it has time left and nobody has lifted it."""
        return self.ended is None and self.ban.expires > now


def past_of(execute: Execute, network: Network, since: float, most: int) -> list[Past]:
    """Read the bans of ``network`` and of the networks around it that ended after ``since``, or run.

    The latest ``most``, the latest first. A row that makes no sense is left out: the others are right.
    """
    around = [str(network.supernet(new_prefix=length)) for length in range(network.prefixlen + 1)]
    marks = ", ".join("?" * len(around))
    wanted = f"network IN ({marks}) AND coalesce(ended, expires) > ? ORDER BY since DESC, id DESC LIMIT ?"
    rows = execute(f"{_BANS} WHERE {wanted}", (*around, since, most)).fetchall()
    found = []
    for identity, *row in rows:
        try:
            found.append(_past(execute, identity, row))
        except ValueError:
            continue
    return found


def _past(execute: Execute, identity: int, row: Sequence[Any]) -> Past:
    network, since, expires, rule, reason, origin, scope, offence, forced, ended = row
    attempts = execute(f"SELECT {ATTEMPT} FROM attempts WHERE ban = ? ORDER BY rowid", (identity,))  # noqa: S608 - ours
    ban = Ban(
        ip_network(network),
        since,
        expires,
        rule,
        reason,
        Origin(origin),
        tuple(attempt_of(one) for one in attempts),
        Scope(scope),
        offence,
        bool(forced),
    )
    return Past(ban, ended)
