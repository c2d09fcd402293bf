"""Small conversions of bans and of changes: from and to keys, and to texts for answers and the log."""

from collections.abc import Iterable

from ringfence.bans.ledger import key_of, network_of
from ringfence.firewall.contract import Add, Change, Outcome
from ringfence.model import Ban, Origin, printable

ADOPTED_FOR = 86_400.0
"""Seconds after which an adopted ban ends if it has no end in the kernel. Each ban of ringfence must end.

An adopted ban was found in the kernel, and the database does not have it.
"""


def add_order(key: int, seconds: float) -> Add:
    """Return the change that adds the ban with this key to the kernel, for ``seconds`` from now."""
    network, scope = network_of(key)
    return Add(network, seconds, scope)


def adopted_ban(key: int, now: float, left: float) -> Ban:
    """Return a ban for a key that was found in the kernel without a record. It ends in ``left`` seconds."""
    network, scope = network_of(key)
    rule, reason = str(Origin.ADOPTED), "found in the kernel"
    return Ban(network, now, now + left, rule, reason, Origin.ADOPTED, scope=scope)


def keys_of(changes: Iterable[Change]) -> set[int]:
    """Return the keys of the bans that ``changes`` concern."""
    return {key_of(change.network, change.scope) for change in changes}


def failure_lines(failed: Iterable[Outcome]) -> list[str]:
    """Return a line for each failed change."""
    return [f"{outcome.change.network}: {outcome.error}" for outcome in failed]


def ban_fields(ban: Ban) -> dict[str, object]:
    """Return the fields of a ban for the log."""
    return {
        "address": str(ban.network),
        "seconds": round(ban.expires - ban.since),
        "rule": ban.rule,
        "attempts": len(ban.attempts),
        "accounts": sorted({printable(attempt.account) for attempt in ban.attempts})[:5],
    }
