"""What is asked of the kernel, and what came of it: in numbers for it, in words for people."""

from collections.abc import Iterable

from ringfence.bans.ledger import key_of, network_of
from ringfence.firewall.contract import Add, Change, Outcome
from ringfence.model import Ban, printable


def in_order(key: int, seconds: float) -> Add:
    """Give the order for the ban of a key, for so many seconds from now."""
    network, scope = network_of(key)
    return Add(network, seconds, scope)


def keys_of(changes: Iterable[Change]) -> set[int]:
    """Give the keys of the bans that these are about."""
    return {key_of(change.network, change.scope) for change in changes}


def lines(failed: Iterable[Outcome]) -> list[str]:
    """Say of each outcome what failed."""
    return [f"{outcome.change.network}: {outcome.error}" for outcome in failed]


def described(ban: Ban) -> dict[str, object]:
    """Give a ban as a line of the log has it."""
    return {
        "address": str(ban.network),
        "seconds": round(ban.expires - ban.since),
        "rule": ban.rule,
        "attempts": len(ban.attempts),
        "accounts": sorted({printable(attempt.account) for attempt in ban.attempts})[:5],
    }
