"""The list of ended bans, as JSON.

The keys are an interface for scripts: keys may be added, but not changed or removed.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ringfence.model import Network, format_network, printable, rfc3339
from ringfence.networks import overlap
from ringfence.report import MOST_ENDED
from ringfence.store.bans import KEEP, BanTable
from ringfence.store.past import EndedBan


def past_bans(
    table: BanTable, since: float, now: float, networks: Sequence[Network] | None
) -> Iterator[dict[str, Any]]:
    """Yield the bans that ended from ``since`` to ``now``, the latest first, at most MOST_ENDED.

    ``since`` and ``now`` are in seconds since the epoch. If ``networks`` is not None, yield only bans that
    overlap one of these networks. Reading a full database takes a second, so the daemon runs this in a
    thread. Raise StoreError if the database cannot be read.
    """
    found = (
        one
        for one in table.ended(since, now)
        if networks is None or any(overlap(one.ban.network, network) for network in networks)
    )
    return map(_as_json, islice(found, MOST_ENDED))


def since_from(request: Mapping[str, Any], now: float) -> float:
    """Return the start of the period that a request asks for: ``seconds`` before ``now``.

    Start and ``now`` are seconds since the epoch. If ``seconds`` is missing in the request or longer than
    KEEP (for so long the database keeps bans), it counts as KEEP.
    """
    return now - min(float(request.get("seconds", KEEP)), KEEP)


def _as_json(one: EndedBan) -> dict[str, Any]:
    ban, counts = one.ban, one.counts
    return {
        "address": format_network(ban.network),
        "since": rfc3339(ban.since),
        "ended": rfc3339(one.ended),
        "end": str(one.end),
        "rule": printable(ban.rule),
        "reason": printable(ban.reason),
        "origin": str(ban.origin),
        "scope": str(ban.scope),
        "offence": ban.offence,
        "attempts": counts.attempts,
        "proven": counts.proven,
        "account": printable(counts.account),
        "accounts": counts.accounts,
    }
