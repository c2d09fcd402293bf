"""Collects the facts about an address without a daemon: from kernel, database, configuration and host."""

import asyncio
from functools import partial

from ringfence.bans.exemptions import ITSELF
from ringfence.config.schema import Settings
from ringfence.detect.friends import MOST
from ringfence.errors import HostError, RingfenceError, StoreError
from ringfence.explain.facts import NetworkFacts, read_bans, running_of
from ringfence.firewall import make_backend
from ringfence.host.protected import read_protected
from ringfence.host.routes import read_addresses
from ringfence.lists.manager import Holder, Lists, holders
from ringfence.model import Friend, Network
from ringfence.store.database import Store
from ringfence.store.tables import FriendTable

_OWN = "an address of this host"


def facts_offline(settings: Settings, network: Network, now: float) -> NetworkFacts:
    """Collect the facts about ``network`` at ``now`` (seconds since the epoch).

    What only the daemon knows is missing, such as attempts that led to no ban.
    """
    problems: list[str] = []
    path = settings.store.path
    if not path.exists():
        return _known(settings, network, now, None, problems)
    try:
        with Store.open(path, owner=False) as store:
            return _known(settings, network, now, store, problems)
    except StoreError as error:
        problems.append(str(error))
        return _known(settings, network, now, None, problems)


def _known(
    settings: Settings, network: Network, now: float, store: Store | None, problems: list[str]
) -> NetworkFacts:
    backend = make_backend(settings.firewall.backend)
    try:
        found = read_bans(backend, store.bans if store is not None else None, network, now)
    finally:
        backend.close()
    friends = _friends(store.friends, network, now) if store is not None else []
    return NetworkFacts(
        network=network,
        now=now,
        subject=network,
        running=running_of(found, {}, now),
        past=tuple(past for past in found.past if not past.runs(now)),
        holders=tuple(_holders(settings, store, network, now)),
        protected=_protected(problems),
        friends=tuple(friend for friend in friends if friend.until > now),
        former=tuple(friend for friend in friends if friend.until <= now),
        enforcing=store is None or not store.state.switched_off(),
        live=False,
        problems=(*found.problems, *problems),
    )


def _friends(friends: FriendTable, network: Network, now: float) -> list[Friend]:
    both = (*friends.current(now, MOST), *friends.former(now, MOST))
    return [friend for friend in both if friend.address in network]


def _holders(settings: Settings, store: Store | None, network: Network, now: float) -> list[Holder]:
    """Return the entries of the allow and deny lists that contain ``network``.

    ``store`` is the daemon's database. Without it, only the networks that the configuration lists are
    searched. Its host names and countries are not.
    """
    configured = settings.lists()
    if store is None:
        return list(holders(network, configured.entries, {}, lambda _place, _network: None))
    lists = Lists(store.entries, configured, lambda _rolls: None, now=lambda: now)
    lists.on_resolved(store.names.load())
    lists.load()
    return asyncio.run(lists.holding(network))


def _protected(problems: list[str]) -> dict[Network, str]:
    """Return this host's own addresses and those that it needs, each with the reason.

    For each part that cannot be read, add a line to ``problems``.
    """
    try:
        own = read_addresses()
    except RingfenceError as error:
        problems.append(str(error))
        own = frozenset()
    failed = partial(_add, problems)
    return {**ITSELF, **dict.fromkeys(own, _OWN), **read_protected(failed)}


def _add(problems: list[str], error: HostError) -> None:
    problems.append(str(error))
