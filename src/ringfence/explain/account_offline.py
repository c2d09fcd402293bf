"""Collects the facts of an account from the database, for a command that finds no daemon."""

from ipaddress import ip_network

from ringfence.config.schema import Settings
from ringfence.detect.friends import MOST
from ringfence.errors import StoreError
from ringfence.explain.account import AccountFacts, failures_of, latest_of, merged
from ringfence.store.bans import KEEP
from ringfence.store.database import Store

MOST_ATTEMPTS = 1_000
_MOST_BANS = 5


def account_offline(settings: Settings, account: str, now: float) -> AccountFacts:
    """Collect the facts of ``account`` at ``now`` (seconds since the epoch).

    The database has only failures that led to bans, so all others are missing. If the database cannot be
    read, ``problems`` has the error.
    """
    path = settings.store.path
    if not path.exists():
        return AccountFacts(account, now, live=False)
    try:
        with Store.open(path, owner=False) as store:
            return _known(store, account, now)
    except StoreError as error:
        return AccountFacts(account, now, live=False, problems=(str(error),))


def _known(store: Store, account: str, now: float) -> AccountFacts:
    friends = latest_of(one for one in store.friends.current(now, MOST) if one.account == account)
    former = latest_of(one for one in store.friends.former(now, MOST) if one.account == account)
    failures = merged((), failures_of(store.bans.attempts_on(account, now - KEEP, MOST_ATTEMPTS)))
    addresses = [*(one.address for one in (*friends, *former)), *(one.last.address for one in failures)]
    bans = {
        address: tuple(
            past.ban for past in store.bans.past(ip_network(address), now, _MOST_BANS) if past.runs(now)
        )
        for address in addresses
    }
    return AccountFacts(account, now, friends, former, failures, bans, live=False)
