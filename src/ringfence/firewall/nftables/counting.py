"""Reads the numbers that nftables counts: dropped packets, elements of sets, and sources over the limit."""

from collections.abc import Iterable

from ringfence.firewall.contract import Counters, Flooder, RuleCounter
from ringfence.firewall.nftables import elements, messages
from ringfence.firewall.nftables.listing import read_part
from ringfence.firewall.nftables.messages import NftSetHeader
from ringfence.firewall.nftables.ruleset import COUNTERS, TABLE, BanSet, base_name
from ringfence.firewall.nftables.state import read_sets
from ringfence.netlink.connection import NetlinkConnection
from ringfence.networks import VERSIONS

_OWN_FIELDS = ("over_limit", "no_room", "rationed", "ration_full")
"""The counters with a field of their own, in the order of ``Counters``."""
_KINDS = {
    "rate": "limiter",
    "flood": "flooding",
    "flood_tcp": "flooding",
    "observe": "observed",
    "ration": "rationed",
    "ration_bytes": "rationed",
}


def read_counters(kernel: NetlinkConnection) -> Counters:
    """Return the counters of the rules, and the sizes of the sets."""
    counters = {one.name: one for one in messages.counters_of(kernel.request(messages.get_counters(TABLE)))}
    sets: dict[str, int | None] = {}
    for head in read_sets(kernel):
        kind = _kind_of_set(head.name)
        if kind is not None:
            number, so_far = head.elements, sets.get(kind, 0)
            sets[kind] = None if number is None or so_far is None else so_far + number
    return Counters(
        tuple(
            RuleCounter(label, counters[name].packets, counters[name].bytes)
            for name, label in COUNTERS.items()
            if name in counters and name not in _OWN_FIELDS
        ),
        sets,
        *(counters[name].packets if name in counters else 0 for name in _OWN_FIELDS),
    )


def read_flooders(kernel: NetlinkConnection) -> list[Flooder]:
    """Return the sources that were over the limit within the last ten seconds."""
    return [
        flooder
        for version in VERSIONS
        for tcp in (False, True)
        for answer in read_part(kernel, f"flood{'_tcp' * tcp}{version}")
        for flooder in elements.flooders_of(answer, tcp=tcp)
    ]


def total_bans(heads: Iterable[NftSetHeader]) -> int | None:
    """Return the number of bans in the kernel; None if the kernel does not count elements (before 6.16).

    ``heads`` are the headers of all our sets.
    """
    numbers = [head.elements for head in heads if BanSet.parse(head.name) is not None]
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _kind_of_set(name: str) -> str | None:
    if BanSet.parse(name) is not None:
        return "bans"
    base = base_name(name)
    return base[:-1] if base is not None else _KINDS.get(name[:-1])
