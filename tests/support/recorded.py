"""The bans that a database records, for comparison with those that a test placed."""

from ringfence.store.database import Store
from ringfence.values.ban import Ban


def active(store: Store, now: float) -> list[Ban]:
    """Return every readable active ban without its attempts, first recorded first."""
    return [*filter(None, store.bans.running(now))]


def recorded_bans(store: Store, now: float) -> list[Ban]:
    """Return every readable active ban with its attempts, first recorded first."""
    found = []
    for ban in active(store, now):
        past = store.bans.past(ban.network, 0.0, 1_000)
        same = (one.ban for one in past if one.runs(now) and one.ban.network == ban.network)
        found += [one for one in same if one.scope is ban.scope]
    return found
