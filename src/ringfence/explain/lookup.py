"""Reads the bans of a network from the kernel and the database."""

from collections.abc import Mapping

from attrs import frozen

from ringfence.errors import FirewallError, FirewallIncompleteError, StoreError
from ringfence.explain.facts import ActiveBan
from ringfence.firewall.contract import Backend, Element
from ringfence.model import Ban, Network, Scope
from ringfence.networks import contains
from ringfence.store.bans import KEEP, BanTable
from ringfence.store.past import Past

MAX_PAST = 50
"""The maximum number of recorded bans that are returned; the latest ones."""


@frozen
class BanRecords:
    """The bans that cover a network, as read from the kernel and from the database.

    ``elements`` are the bans in the kernel. ``past`` are those in the database; some of them may still be in
    force. ``problems`` has a line for each part that could not be read.
    """

    elements: tuple[Element, ...]
    past: tuple[Past, ...]
    problems: tuple[str, ...]


def read_bans(backend: Backend, recorded: BanTable | None, network: Network, now: float) -> BanRecords:
    """Read the bans that cover ``network`` at ``now`` (seconds since the epoch) from kernel and database.

    ``recorded`` is the database's table of bans; None without a database. In the daemon, call this function
    in a thread, because reading many bans from the kernel takes long.
    """
    problems: list[str] = []
    elements: list[Element] = []
    past: list[Past] = []
    try:
        elements.extend(one for one in backend.list() if contains(one.network, network))
    except FirewallIncompleteError as error:
        problems.append(f"the kernel may have more: {error}")
    except FirewallError as error:
        problems.append(f"the kernel's bans are unknown: {error}")
    try:
        past = recorded.past(network, now - KEEP, MAX_PAST) if recorded is not None else []
    except StoreError as error:
        problems.append(f"recorded bans are unknown: {error}")
    return BanRecords(tuple(elements), tuple(past), tuple(problems))


def running_of(
    found: BanRecords, known: Mapping[tuple[Network, Scope], Ban | None], now: float
) -> tuple[ActiveBan, ...]:
    """Return the bans in force at ``now`` (seconds since the epoch), the widest network first.

    ``found`` has the bans in the kernel and in the database. ``known`` has the bans that the daemon knows, by
    network and scope, each with its record or None; it is empty without a daemon. A ban is returned if the
    kernel, the database or the daemon has it.
    """
    recorded = {(one.ban.network, one.ban.scope): one.ban for one in found.past if one.runs(now)}
    elements = {(one.network, one.scope): one for one in found.elements}
    bans = {**known, **recorded}
    every = sorted({*elements, *bans}, key=lambda key: (key[0].prefixlen, str(key[1])))
    return tuple(ActiveBan(*key, bans.get(key), elements.get(key)) for key in every)
