"""Damage to a database's file, page by page, and a start of the guard with the damaged file."""

import math
import random
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import Factory, define
from structlog.testing import capture_logs
from tests.support.attempts import attempts, ban_of
from tests.support.kept import Kept
from tests.support.kept import settings as kept_settings
from tests.support.recorded import active
from tests.support.world import START

from ringfence.store.database import Store
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.friend import Friend, FriendReason

PAGE = 4_096
IN_KERNEL = ip_network("198.18.0.99")
BANS = 60

Damage = Callable[[bytearray, int, random.Random], None]


def chance_of(seed: object) -> random.Random:
    """Return a random generator that depends only on ``seed``."""
    return random.Random(str(seed))  # noqa: S311 - not for secrets


def zeros(content: bytearray, at: int, _: random.Random) -> None:
    """Overwrite a page with zeros."""
    content[at : at + PAGE] = bytes(PAGE)


def ones(content: bytearray, at: int, _: random.Random) -> None:
    """Overwrite a page with bytes of ones."""
    content[at : at + PAGE] = b"\xff" * PAGE


def noise(content: bytearray, at: int, chance: random.Random) -> None:
    """Overwrite a page with random bytes."""
    content[at : at + PAGE] = chance.randbytes(PAGE)


def behind_the_header(content: bytearray, at: int, chance: random.Random) -> None:
    """Overwrite what follows the first 100 bytes of a page, which are the file's header in the first."""
    content[at + 100 : at + PAGE] = chance.randbytes(PAGE - 100)


def some_bytes(content: bytearray, at: int, chance: random.Random) -> None:
    """Overwrite sixteen single bytes of a page."""
    for _ in range(16):
        content[at + chance.randrange(PAGE)] = chance.randrange(256)


def swapped(content: bytearray, at: int, chance: random.Random) -> None:
    """Swap a page with another one."""
    other = chance.randrange(len(content) // PAGE) * PAGE
    pages = bytes(content[at : at + PAGE]), bytes(content[other : other + PAGE])
    content[other : other + PAGE], content[at : at + PAGE] = pages


def cut(content: bytearray, at: int, chance: random.Random) -> None:
    """End the file within a page."""
    del content[at + chance.randrange(PAGE) :]


KINDS: tuple[Damage, ...] = (zeros, ones, noise, behind_the_header, some_bytes, swapped, cut)


def fill(path: Path) -> None:
    """Create a small database with something in each table, and nothing in its log."""
    office = ListEntry(ListKind.ALLOW, "203.0.113.0/24", "office", 1_000.0)
    with Store.open(path, owner=True) as store:
        store.bans.record(ban_of(f"192.0.2.{n}", START, made=attempts(5)) for n in range(BANS))
        store.entries.add([office, ListEntry(ListKind.DENY, "198.51.100.0/24", "", 1_001.0)])
        store.state.set_positions({"pbx/log /a": "17 4711"})
        store.state.set_fact("names", "{}")
        phone = ip_address("192.0.2.200")
        store.friends.add(
            [Friend("pbx", phone, "alice", FriendReason.AUTHENTICATED, START, START, START + 600)]
        )


def start(path: Path) -> tuple[str, str]:
    """Start like the daemon and check that it bans; return the damage, and why the store is temporary."""
    store = Store.open_or_memory(path)
    with store, capture_logs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("ringfence.host.protected.read_addresses", frozenset)
        patch.setattr("ringfence.host.protected.read_protected", dict)
        guard = Kept(store, kept_settings())
        guard.backend.put(IN_KERNEL, START + 600)
        guard.side.start()
        assert str(IN_KERNEL) in guard.banned()
        assert ip_network(IN_KERNEL) in {ban.network for ban in active(store, START)}
        guard.enforcer.ban([ip_network("198.18.0.98")], 600.0, "by hand")
        guard.enforcer.tick()
        assert guard.side.present_alarms
        store.purge(START)
        store.state.set_positions({"pbx/log /a": "18 1"})
        assert store.state.positions()["pbx/log /a"] == "18 1"
        assert store.best_effort.error == ""
    return store.damage(), store.memory_reason


def damaged(path: Path) -> Iterator[tuple[str, bytes]]:
    """Return each damaged content of a database, with its name."""
    whole = path.read_bytes()
    for number in range(len(whole) // PAGE):
        for kind in KINDS:
            name = f"{kind.__name__} in page {number + 1}"
            content = bytearray(whole)
            kind(content, number * PAGE, chance_of(name))
            yield name, bytes(content)


def clear(path: Path) -> None:
    """Remove the database and every other file of its folder."""
    for file in path.parent.iterdir():
        file.unlink()


@define
class Starts:
    """The results of starts with damaged databases: ``wanted`` is how many there are, ``tried`` how many ran.

    ``noticed`` is how many starts found the damage. ``failed`` describes each start that went wrong.
    """

    wanted: int = 0
    tried: int = 0
    noticed: int = 0
    failed: list[str] = Factory(list)


def start_over_damage(path: Path, seconds: float = math.inf, every: int = 1) -> Starts:
    """Start with each kind of damage to each page of a small database, in random order, for ``seconds``.

    With ``every`` 3, a third of the damages is tried, of every kind.
    """
    fill(path)
    each = list(damaged(path))[::every]
    chance_of("order").shuffle(each)
    starts, end = Starts(wanted=len(each)), time.monotonic() + seconds
    for name, content in each:
        if time.monotonic() > end:
            break
        starts.tried += 1
        clear(path)
        path.write_bytes(content)
        try:
            damage, fleeting = start(path)
        except Exception as error:  # noqa: BLE001 - the result names each failure
            starts.failed.append(f"{name}: {error!r}")
            continue
        if fleeting:
            starts.failed.append(f"{name}: nothing lasts: {fleeting}")
        if damage:
            starts.noticed += 1
            if path.with_name(f"{path.name}.damaged-1").read_bytes() != content:
                starts.failed.append(f"{name}: the damaged file is not kept as it was")
    return starts
