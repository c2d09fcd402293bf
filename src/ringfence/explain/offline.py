"""Facts of an address without a daemon: from kernel, database, configuration and host."""

import asyncio
from functools import partial

from ringfence.bans.exemptions import ITSELF
from ringfence.config.schema import Settings
from ringfence.detect.friends import MOST
from ringfence.errors import HostError, RingfenceError, StoreError
from ringfence.explain.as_json import Document, document
from ringfence.explain.facts import NetworkFacts
from ringfence.explain.lookup import read_bans, running_of
from ringfence.firewall import make_backend
from ringfence.host.addresses import read_addresses
from ringfence.host.protected import read_protected
from ringfence.lists.lookup import Holder, holders
from ringfence.lists.manager import Lists
from ringfence.model import Friend, Network
from ringfence.store.best_effort import Records
from ringfence.store.database import Store

_OWN = "an address of this host"


def without_daemon(settings: Settings, network: Network, now: float) -> Document:
    """Answer as the daemon would, as far as possible; read errors are among the problems."""
    return document(facts_offline(settings, network, now))


def facts_offline(settings: Settings, network: Network, now: float) -> NetworkFacts:
    """Collect the facts of ``network`` at ``now`` (wall-clock seconds)."""
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
        found = read_bans(backend, store, network, now)
    finally:
        backend.close()
    friends = _friends(store, network, now) if store is not None else []
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
        enforcing=store is None or not store.switched_off,
        live=False,
        problems=(*found.problems, *problems),
    )


def _friends(store: Store, network: Network, now: float) -> list[Friend]:
    both = (*store.friends(now, MOST), *store.former_friends(now, MOST))
    return [friend for friend in both if friend.address in network]


def _holders(settings: Settings, store: Store | None, network: Network, now: float) -> list[Holder]:
    """Return the list entries that contain it; networks of countries are read from the [geo] database."""
    configured = settings.lists()
    if store is None:
        return list(holders(network, configured.entries, {}, lambda _place, _network: None))
    lists = Lists(store, configured, lambda _rolls: None, now=lambda: now)
    lists.on_resolved(Records(store).names())
    lists.load()
    return asyncio.run(lists.holding(network))


def _protected(problems: list[str]) -> dict[Network, str]:
    """Return the host's own addresses, and those that it needs."""
    try:
        own = read_addresses()
    except RingfenceError as error:
        problems.append(str(error))
        own = frozenset()
    failed = partial(_add, problems)
    return {**ITSELF, **dict.fromkeys(own, _OWN), **read_protected(failed)}


def _add(problems: list[str], error: HostError) -> None:
    problems.append(str(error))
