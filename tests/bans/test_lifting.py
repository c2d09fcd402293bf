"""Letting in: who, with whom, what stays banned, and what is said where the kernel does not let go."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.world import OTHER, START, SUBJECT, World, a_world, said

from ringfence.bans.enforce import CHUNK
from ringfence.bans.ledger import key_of
from ringfence.bans.lifting import Lifted, spare, unban, unban_all
from ringfence.detect.rules import HOUR
from ringfence.errors import ControlError, FirewallError, SetFullError
from ringfence.model import Origin, Scope

PARTS_OF_24 = {
    "192.0.2.0/32",
    "192.0.2.2/31",
    "192.0.2.4/30",
    "192.0.2.8/29",
    "192.0.2.16/28",
    "192.0.2.32/27",
    "192.0.2.64/26",
    "192.0.2.128/25",
}


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> Iterator[World]:
    """Give a world, at its beginning."""
    with a_world(tmp_path / "ringfence.db") as world:
        yield world


def ban(world: World, text: str, seconds: float = 3_600.0) -> None:
    """Ban by hand."""
    assert world.enforcer.ban([ip_network(text)], seconds, "a reason") == []


def let_in(world: World, *texts: str) -> Lifted:
    """Lift bans."""
    return unban(world.enforcer, [ip_network(text) for text in texts])


def test_unban_lifts_exactly_whom_it_is_told(world: World) -> None:
    """A ban of that very address or network ends in every book; others stay; strangers are told."""
    for text in ("2001:db8::/64", "192.0.2.1", "192.0.2.2", "2001:db8:0:1::/64"):
        ban(world, text)
    with said() as names:
        lifted = let_in(world, "2001:db8::5", "192.0.2.1", "203.0.113.1")
    assert names == ["ban.lifted", "ban.lifted"]

    whole = "2001:db8::/64: is let in as a whole, since one sender has all of it"
    assert lifted == Lifted(("203.0.113.1/32: is not banned",), (whole,))
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.2/32", "2001:db8:0:1::/64"}
    assert world.enforcer.counts.lifted == 2


def test_an_address_within_a_banned_network_is_let_in_alone(world: World) -> None:
    """The rest of the /24 stays banned in eight parts, for as long as it was, with reason and origin."""
    ban(world, "192.0.2.0/24")
    world.now += 600
    lifted = let_in(world, "192.0.2.1")

    assert lifted == Lifted(notes=("192.0.2.0/24: the rest of it stays banned, in 8 parts",))
    assert world.in_kernel() == world.in_store() == dict.fromkeys(PARTS_OF_24, 3_000)
    [whole] = {evolve(found, network=SUBJECT) for found in world.store.running(world.now)}
    assert (whole.since, whole.reason, whole.origin) == (START, "a reason", Origin.ADMIN)
    assert (world.held(), world.held(OTHER)) == (False, True)


def test_an_ipv6_address_is_let_in_with_its_64(world: World) -> None:
    """A host owns its /64, so that is let in, of a ban of that size whole and of a wider one in parts."""
    ban(world, "2001:db8::/62")
    lifted = let_in(world, "2001:db8:0:1::5")

    assert lifted == Lifted(notes=("2001:db8::/62: the rest of it stays banned, in 2 parts",))
    assert set(world.in_kernel()) == set(world.in_store()) == {"2001:db8::/64", "2001:db8:0:2::/63"}


def test_a_network_is_let_in_with_all_that_is_in_it(world: World) -> None:
    """Bans within it end, in both scopes; of a ban around it the rest stays."""
    for text in ("192.0.2.7", "192.0.2.128/25", "192.0.2.0/23", "198.51.100.1"):
        ban(world, text)
    world.decide(ip_network("192.0.2.9"), scope=Scope.SIP_UDP)
    lifted = let_in(world, "192.0.2.0/24")

    assert lifted == Lifted(notes=("192.0.2.0/23: the rest of it stays banned, in one part",))
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.3.0/24", "198.51.100.1/32"}


def test_of_bans_one_in_the_other_each_keeps_its_rest(world: World) -> None:
    """A part that two of them leave stays banned until the later end of the two."""
    for around, within in ((60.0, 7_200.0), (7_200.0, 60.0)):
        ban(world, "192.0.2.0/24", around)
        ban(world, "192.0.2.0/30", within)
        assert let_in(world, "192.0.2.1").problems == ()

        left = world.in_kernel()
        assert left == world.in_store()
        assert left.keys() == PARTS_OF_24
        assert (left["192.0.2.128/25"], left["192.0.2.0/32"]) == (around, 7_200)
        assert left["192.0.2.2/31"] == 7_200
        asyncio.run(unban_all(world.enforcer))


def test_a_part_that_is_banned_for_longer_stays_so(world: World) -> None:
    """A ban of its own inside the one that is split keeps its end and its reason."""
    ban(world, "192.0.2.128/25", 7_200.0)
    ban(world, "192.0.2.0/24", 60.0)
    let_in(world, "192.0.2.1")

    assert world.in_kernel() == dict.fromkeys(PARTS_OF_24, 60) | {"192.0.2.128/25": 7_200}
    assert world.in_kernel() == world.in_store()


def test_who_is_let_in_is_counted_from_nothing(world: World) -> None:
    """After an unban the subject is held no more, and its next offence earns the next length."""
    world.decide()
    let_in(world, "192.0.2.1")
    assert not world.held()
    world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": 6 * HOUR}


def test_unban_reaches_what_is_pending(world: World) -> None:
    """A ban that the kernel has not taken yet is given up by an unban."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.backend.refuses.clear()

    assert let_in(world, "192.0.2.1") == Lifted()
    assert (world.enforcer.pending, world.enforcer.firewall_error) == (0, "")
    world.wait(5)
    assert world.in_kernel() == {}


def test_of_a_pending_network_the_rest_is_banned(world: World) -> None:
    """What is said to stay banned is banned, though the kernel had refused the whole."""
    whole = ip_network("192.0.2.0/24")
    world.backend.refuses[whole] = SetFullError("the set is full")
    world.enforcer.ban([whole], 3_600.0, "")
    world.backend.refuses.clear()

    assert let_in(world, "192.0.2.1").notes == ("192.0.2.0/24: the rest of it stays banned, in 8 parts",)
    world.wait(5)
    assert set(world.in_kernel()) == set(world.in_store()) == PARTS_OF_24


@pytest.mark.parametrize(
    ("foreign", "freed", "left"),
    [
        ("192.0.2.1", "192.0.2.1", set()),
        ("192.0.2.1", "192.0.2.0/24", set()),
        ("192.0.2.0/24", "192.0.2.1", PARTS_OF_24),
        ("2001:db8::/64", "2001:db8::7", set()),
    ],
)
def test_what_only_the_kernel_knows_is_let_in(world: World, foreign: str, freed: str, left: set[str]) -> None:
    """An element that somebody else put in is lifted too, and of a wider one the rest is kept."""
    world.backend.put(ip_network(foreign), START + 60)

    assert let_in(world, freed).problems == ()
    assert set(world.in_kernel()) == set(world.in_store()) == left


def test_who_is_not_banned_leaves_the_foreign_alone(world: World) -> None:
    """To ask for a stranger touches nothing, not even what only the kernel knows."""
    world.backend.put(OTHER, START + 60)

    assert let_in(world, "192.0.2.1").problems == ("192.0.2.1/32: is not banned",)
    assert (world.in_kernel(), world.in_store()) == ({"192.0.2.2/32": 60}, {})


def test_a_ban_that_the_kernel_does_not_let_go_is_told(world: World) -> None:
    """What could not be lifted is a line, and stays a ban in every book."""
    world.decide()
    world.decide(OTHER)
    world.backend.refuses[SUBJECT] = FirewallError("no answer")

    assert let_in(world, "192.0.2.1", "192.0.2.2").problems == ("192.0.2.1/32: no answer",)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}
    with pytest.raises(ControlError, match=r"192\.0\.2\.1/32: no answer"):
        asyncio.run(unban_all(world.enforcer))


def test_a_part_that_the_kernel_refuses_is_told_and_tried_again(world: World) -> None:
    """Who is to be let in is, and what is to stay banned is pending."""
    ban(world, "192.0.2.0/24")
    half = ip_network("192.0.2.128/25")
    world.backend.refuses[half] = FirewallError("no memory")
    lifted = let_in(world, "192.0.2.1")

    assert lifted == Lifted(("192.0.2.128/25: no memory",))
    assert set(world.in_kernel()) == PARTS_OF_24 - {"192.0.2.128/25"}
    world.backend.refuses.clear()
    world.wait(5)
    assert set(world.in_kernel()) == PARTS_OF_24


def test_everybody_is_let_in(world: World) -> None:
    """unban_all lifts every ban, also those that only the kernel knows, and says how many."""
    world.decide()
    world.decide(ip_network("2001:db8::/64"))
    world.decide(SUBJECT, scope=Scope.SIP_UDP)
    world.backend.put(OTHER, START + 60)
    world.backend.refuses[ip_network("192.0.2.3")] = SetFullError("the set is full")
    world.decide(ip_network("192.0.2.3"))
    world.backend.refuses.clear()

    assert asyncio.run(unban_all(world.enforcer)) == 4
    assert (world.in_kernel(), world.in_store(), world.enforcer.pending) == ({}, {}, 0)
    assert asyncio.run(unban_all(world.enforcer)) == 0
    assert key_of(OTHER) not in world.enforcer.ledger


def test_while_everybody_is_let_in_new_bans_are_placed(world: World) -> None:
    """Many are lifted in parts; who is banned between two of them stays out."""
    many = [ip_network((0xC6120000 + number, 32)) for number in range(2 * CHUNK)]
    world.enforcer.ban(many, 3_600.0, "")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            lifting = group.create_task(unban_all(world.enforcer))
            while not world.enforcer.counts.lifted:  # noqa: ASYNC110 - between two parts, wherever that is
                await asyncio.sleep(0)
            assert world.enforcer.counts.lifted < len(many)
            world.decide()
        assert lifting.result() == len(many)

    asyncio.run(main())
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}


def test_who_turns_out_to_be_a_friend_is_let_in(world: World) -> None:
    """What was claimed in his name ends, and a network's ban around him; his own and others' stay."""
    friend, other = ip_address("192.0.2.1"), ip_network("192.0.2.2")
    world.decide(ip_network(friend), scope=Scope.SIP_UDP, seconds=600.0)
    world.decide(other, scope=Scope.SIP_UDP, seconds=600.0)
    world.decide(ip_network("192.0.2.0/24"))
    world.decide(ip_network("198.51.100.1"))
    world.enforcer.ban([ip_network("203.0.113.0/24")], HOUR, "by hand")
    spare(world.enforcer, [friend, ip_address("198.51.100.1"), ip_address("203.0.113.1")])

    assert set(world.in_kernel()) == {str(other), "198.51.100.1/32", "203.0.113.0/24"}
