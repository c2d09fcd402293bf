"""Hostile feeds and decisions, which try to cut off phones, trunks, this host, or the administrator.

The parts of the daemon take each list over, with the memory firewall. An address is dropped if the kernel's
rules would drop it: it is on a list that machines make, and on none of the lists that pass these.
"""

import asyncio
import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from attrs import Factory, define, evolve
from tests.support.kept import PHONE, Kept, kept, settings
from tests.support.tables import with_tables

from ringfence.config.converters import Name
from ringfence.config.schema import Settings, StoreSettings
from ringfence.features.feeds.denied import Feeds
from ringfence.features.feeds.formats import FeedFormat
from ringfence.features.feeds.settings import FeedSettings
from ringfence.features.fleet.denied import DecidedNetworks
from ringfence.features.fleet.guard import refusal_of
from ringfence.features.fleet.lapi import parse_page
from ringfence.features.fleet.network_list import LIST as DECIDED
from ringfence.features.fleet.sync import Pull, Sync
from ringfence.firewall import network_lists
from ringfence.firewall.network_lists import PASSING, NetworkList
from ringfence.values.friend import FriendReason
from ringfence.values.network import Address, Network

OWN = "198.18.0.1"
LOGIN, GATEWAY = "203.0.113.77", "192.0.2.254"
FRIENDS = ("192.0.2.1", "198.51.100.20", "2001:db8:5::20")
ALLOWED = ("203.0.113.128/28", "2001:db8:77::/48")
FORMER, NEIGHBOUR, UNSHIELDED = "198.51.100.90", "2001:db8:5::77:1", "198.51.100.91"
EVERYBODY = (
    *(OWN, LOGIN, GATEWAY, *FRIENDS, "203.0.113.130", "2001:db8:77::9"),
    *(FORMER, NEIGHBOUR, UNSHIELDED),
)
"""The addresses that no feed may cut off."""

_FORMS = (
    "{0}",
    "{0} ; SBL1",
    "{0}\t# comment",
    '"{0}"',
    "{0},x",
    '{{"ip":"{0}","x":1}}',
    "a,{0},b",
    "\ufeff{0}",
    "{0}\r",
    "{0} 255.255.255.0",
)
_JUNK = (
    "",
    "#",
    "<html>",
    "0.0.0.0/0",
    "::/0",
    "0/0",
    "x" * 5_000,
    "\x00",
    "é",
    "{",
    "[]",
    "1.2.3.4-1.2.3.1",
)

_DECISION = {"origin": "x", "scenario": "y", "type": "ban", "duration": "60s"}


@define
class Played:
    """Numbers of written lists and of lists that were taken over, and the addresses that were dropped."""

    lists: int = 0
    taken: int = 0
    dropped: list[str] = Factory(list)


def _entry(rng: random.Random) -> str:
    """Return an address, a network or a range that concerns an address of EVERYBODY, or any other one."""
    if rng.random() < 0.2:
        return rng.choice(_JUNK)
    bits = 32
    if rng.random() < 0.3:
        number = rng.getrandbits(32)
        address: Address = ip_address(number)
    else:
        address = ip_address(rng.choice(EVERYBODY))
        bits = address.max_prefixlen
        number = int(address) ^ (rng.getrandbits(bits) & ((1 << rng.randrange(0, 12)) - 1))
    if rng.random() < 0.15:
        first, last = max(number - rng.randrange(300), 0), min(number + rng.randrange(300), (1 << bits) - 1)
        of = type(address)
        return f"{of(first)}-{of(last)}"
    length = rng.choice([bits, bits, rng.randrange(bits + 1), rng.randrange(8, bits + 1)])
    return str(
        (IPv4Network if bits == 32 else IPv6Network)((number >> bits - length << bits - length, length))
    )


def hostile_list(rng: random.Random) -> bytes:
    """Return a list; most have one form of lines, so that some of them are taken over."""
    form, clean = rng.choice(_FORMS), rng.random() < 0.7
    lines = []
    for _ in range(rng.randrange(1, 40)):
        entry = _entry(rng)
        if clean and entry in _JUNK:
            continue
        lines.append((form if clean else rng.choice(_FORMS)).format(entry))
    return rng.choice(["\n", "\r\n"]).join(lines).encode("utf-8", "surrogatepass")


def play(folder: Path, number: int, seed: int = 0) -> Played:
    """Feed so many hostile lists to a daemon, one after the other."""
    played, path = Played(), folder / "list"
    layouts = ((FeedFormat.PLAIN, None), (FeedFormat.JSON, "ip"), (FeedFormat.CSV, "2"))
    feeds = tuple(
        FeedSettings(name=Name(str(form)), file=path.with_name(f"{form}.list"), format=form, key=key)  # type: ignore[arg-type]
        for form, key in layouts
    )
    store = StoreSettings(path=folder / "store" / "db")
    with guarded_parts(folder, with_tables(settings(*ALLOWED), feeds=feeds, store=store)) as made:
        asyncio.run(_play(made, [feed.path for feed in feeds], number, random.Random(seed), played))  # noqa: S311 - a game
    return played


@contextmanager
def guarded_parts(folder: Path, wanted: Settings) -> Iterator[Kept]:
    """Yield a daemon's parts that know EVERYBODY."""
    with kept(folder, wanted, OWN) as made:
        made.side.start()
        made.side.exempt.protected.set_part(
            "gateways", {ip_network(LOGIN): "your login", ip_network(GATEWAY): "the default gateway"}
        )
        made.side.exempt.networks.on_protected()
        made.side.exempt.friends.add(
            evolve(PHONE, address=ip_address(text), reason=reason)
            for text, reason in zip(FRIENDS, (PHONE.reason, *FriendReason), strict=False)
        )
        made.side.exempt.friends.add([evolve(PHONE, address=ip_address(UNSHIELDED))])
        made.detector.friends.remember(evolve(PHONE, address=ip_address(FORMER)))
        made.side.exempt.kernel_friends._passing.refresh(1_000, {ip_address(UNSHIELDED)})
        made.enforcer.filler.fill(*PASSING)
        yield made


def play_decisions(folder: Path, number: int, seed: int = 0) -> Played:
    """Apply so many hostile answers of a local API in a daemon, one after the other."""
    played, sync, rng = Played(), Sync(refusal=refusal_of), random.Random(seed)  # noqa: S311 - a game
    with guarded_parts(folder, settings(*ALLOWED)) as made:
        asyncio.run(_play_decisions(made, sync, number, rng, played))
    return played


async def _play_decisions(made: Kept, sync: Sync, number: int, rng: random.Random, played: Played) -> None:
    lists = made.side.exempt.lists
    [decided] = (other for other in lists.others if isinstance(other, DecidedNetworks))
    for moment in range(number):
        rows = [
            {"id": rng.randrange(50), "value": _entry(rng), "scope": rng.choice(["Ip", "Range"]), **_DECISION}
            for _ in range(rng.randrange(1, 20))
        ]
        page = parse_page(json.dumps({"new": rows, "deleted": rng.sample(rows, 1)}).encode())
        *_, changed = sync.on_page(page, Pull(full=rng.random() < 0.5), float(moment))
        await decided.apply(lists, sync.in_force())
        played.lists += 1
        played.taken += changed
        played.dropped += [f"{text} by {rows}" for text in EVERYBODY if _drops(made, ip_network(text))]
        for _ in sync.in_force():
            if rng.random() < 0.5:
                sync.expire(moment + 100.0)  # so that there is room for others
                break


async def _play(made: Kept, paths: Sequence[Path], number: int, rng: random.Random, played: Played) -> None:
    lists = made.side.exempt.lists
    [feeds] = (other for other in lists.others if isinstance(other, Feeds))
    for _ in range(number):
        path = rng.choice(paths)
        new = path.with_name("new")
        data = hostile_list(rng)
        new.write_bytes(data)
        os.utime(new, (1, 1))
        new.replace(path)
        before = lists.networks.of(network_lists.EXTERNAL)
        if rng.random() < 0.5:
            await lists.in_thread(feeds.accept, frozenset(feeds.all))
        await lists.refresh()
        played.lists += 1
        played.taken += lists.networks.of(network_lists.EXTERNAL) != before
        for text in EVERYBODY:
            if _drops(made, ip_network(text)):
                played.dropped.append(f"{text} by {data[:500]!r}")


def _drops(made: Kept, address: Network) -> bool:
    """Whether the rules drop an address: a list that machines make has it, and no list lets it pass."""

    def on(which: NetworkList) -> bool:
        return any(
            address.version == one.version and address.overlaps(one) for one in made.backend.lists[which]
        )

    denied = on(network_lists.EXTERNAL) or on(DECIDED)
    return denied and not any(map(on, (network_lists.ALLOW, *PASSING)))
