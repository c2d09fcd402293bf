"""Unbans: which bans end, which stay, and what is reported if the kernel refuses."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts
from tests.support.recorded import recorded_bans
from tests.support.world import OTHER, RULE, START, SUBJECT, World, said

from ringfence.ban_facts import Unbanned
from ringfence.bans.book import CHUNK
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.listing import listed
from ringfence.bans.unban import UnbanResult, unban, unban_all, unban_claims, unban_friends, unban_known
from ringfence.detect.judgement import Decision
from ringfence.detect.rules import HOUR
from ringfence.errors import ControlError, FirewallError, SetFullError
from ringfence.firewall.contract import Backend, Element
from ringfence.ledger import key_of
from ringfence.store.writer import Writer
from ringfence.values.attempt import Proof
from ringfence.values.ban import BanEnd, Origin, Scope
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Network, NetworkSet

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


def ban(world: World, text: str, seconds: float = 3_600.0) -> None:
    """Place a ban by hand."""
    assert world.enforcer.ban([ip_network(text)], seconds, "a reason") == []


def unban_texts(world: World, *texts: str) -> UnbanResult:
    """Unban addresses and networks."""
    return asyncio.run(unban(world.enforcer, [ip_network(text) for text in texts]))


def test_unban_ends_exactly_the_named_bans(world: World) -> None:
    """An unban ends the ban of exactly that address or network, and reports those without a ban."""
    for text in ("2001:db8::/64", "192.0.2.1", "192.0.2.2", "2001:db8:0:1::/64"):
        ban(world, text)
    with said() as names:
        result = unban_texts(world, "2001:db8::5", "192.0.2.1", "203.0.113.1")
    assert names == ["ban.removed", "ban.removed"]

    whole = "2001:db8::/64: unbanned as a whole, since one sender has all of it"
    assert result == UnbanResult((), (whole,), ("203.0.113.1",), ended=2)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.2/32", "2001:db8:0:1::/64"}
    assert world.enforcer.book.counts.unbanned == 2


def test_an_address_within_a_banned_network_is_unbanned_alone(world: World) -> None:
    """The rest of the /24 stays banned in eight parts, with the same end, reason and origin."""
    ban(world, "192.0.2.0/24")
    world.now += 600
    result = unban_texts(world, "192.0.2.1")

    assert result == UnbanResult(notes=("192.0.2.0/24: the rest of it stays banned, in 8 parts",), ended=1)
    assert world.in_kernel() == world.in_store() == dict.fromkeys(PARTS_OF_24, 3_000)
    [whole] = {evolve(found, network=SUBJECT) for found in recorded_bans(world.store, world.now)}
    assert (whole.since, whole.reason, whole.origin) == (START, "a reason", Origin.ADMIN)
    assert (world.held(), world.held(OTHER)) == (False, True)
    assert world.facts[-1] == Unbanned(SUBJECT)


def test_an_ipv6_address_is_unbanned_with_its_64(world: World) -> None:
    """An unban of an IPv6 address covers its /64; a wider ban stays in parts."""
    ban(world, "2001:db8::/62")
    result = unban_texts(world, "2001:db8:0:1::5")

    assert result == UnbanResult(notes=("2001:db8::/62: the rest of it stays banned, in 2 parts",), ended=1)
    assert set(world.in_kernel()) == set(world.in_store()) == {"2001:db8::/64", "2001:db8:0:2::/63"}


def test_a_network_is_unbanned_with_all_that_is_in_it(world: World) -> None:
    """An unban of a network ends the bans in it, in both scopes, and keeps the rest of a wider ban."""
    for text in ("192.0.2.7", "192.0.2.128/25", "192.0.2.0/23", "198.51.100.1"):
        ban(world, text)
    world.decide(ip_network("192.0.2.9"), scope=Scope.SIP_UDP)
    result = unban_texts(world, "192.0.2.0/24")

    assert result == UnbanResult(notes=("192.0.2.0/23: the rest of it stays banned, in one part",), ended=4)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.3.0/24", "198.51.100.1/32"}


def test_two_commands_at_once_unban_two_addresses_of_a_network(world: World) -> None:
    """Two commands that split one ban take turns: neither bans again what the other one has freed."""
    ban(world, "192.0.2.0/24")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for text in ("192.0.2.7", "192.0.2.9"):
                group.create_task(unban(world.enforcer, [ip_network(text)]))

    asyncio.run(main())
    banned = NetworkSet(ip_network(text) for text in world.in_kernel())
    assert set(world.in_kernel()) == set(world.in_store())
    free = [number for number in range(256) if not banned.contains(ip_network((0xC0000200 + number, 32)))]
    assert free == [7, 9]


def test_while_everybody_is_unbanned_no_part_is_banned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unban of one address that begins while all bans end does not ban the rest of its network."""
    ban(world, "192.0.2.0/24")
    results = list[UnbanResult]()

    async def unban_one() -> None:
        results.append(await unban(world.enforcer, [SUBJECT]))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:

            async def slow_disk() -> str:
                monkeypatch.undo()
                group.create_task(unban_one())
                for _ in range(9):
                    await asyncio.sleep(0)
                return ""

            monkeypatch.setattr(world.store.best_effort, "recorded", slow_disk)
            await unban_all(world.enforcer)

    asyncio.run(main())
    assert (world.in_kernel(), world.in_store()) == ({}, {})
    assert results == [UnbanResult(not_banned=("192.0.2.1",))]


def test_of_bans_one_in_the_other_each_keeps_its_rest(world: World) -> None:
    """A part that two nested bans leave stays banned until the later end of the two."""
    for around, within in ((60.0, 7_200.0), (7_200.0, 60.0)):
        ban(world, "192.0.2.0/24", around)
        ban(world, "192.0.2.0/30", within)
        assert unban_texts(world, "192.0.2.1").problems == ()

        left = world.in_kernel()
        assert left == world.in_store()
        assert left.keys() == PARTS_OF_24
        assert (left["192.0.2.128/25"], left["192.0.2.0/32"]) == (around, 7_200)
        assert left["192.0.2.2/31"] == 7_200
        asyncio.run(unban_all(world.enforcer))


def test_a_part_that_is_banned_for_longer_stays_so(world: World) -> None:
    """A separate ban inside a ban that is split keeps its own end and reason."""
    ban(world, "192.0.2.128/25", 7_200.0)
    ban(world, "192.0.2.0/24", 60.0)
    unban_texts(world, "192.0.2.1")

    assert world.in_kernel() == dict.fromkeys(PARTS_OF_24, 60) | {"192.0.2.128/25": 7_200}
    assert world.in_kernel() == world.in_store()


def test_a_part_that_is_banned_in_another_scope_is_banned_in_both(world: World) -> None:
    """The rest of a ban of the SIP ports stays, although a part of it has a longer full ban."""
    part = ip_network("192.0.2.128/25")
    world.decide(ip_network("192.0.2.0/24"), scope=Scope.SIP)
    ban(world, str(part), 7_200.0)
    unban_texts(world, "192.0.2.1")

    assert key_of(part, Scope.SIP) in world.enforcer.ledger
    assert key_of(part) in world.enforcer.ledger


def test_after_an_unban_attempts_count_from_zero(world: World) -> None:
    """After an unban the attempts are counted from zero, and the next ban has the next length."""
    world.decide()
    unban_texts(world, "192.0.2.1")
    assert not world.held()
    world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": 6 * HOUR}


def test_unban_reaches_what_is_pending(world: World) -> None:
    """An unban also ends a pending ban."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.backend.refuses.clear()

    assert unban_texts(world, "192.0.2.1") == UnbanResult(ended=1)
    assert (len(world.enforcer.ledger.pending), world.enforcer.firewall_error) == (0, "")
    world.wait(5)
    assert world.in_kernel() == {}


def test_of_a_pending_network_the_rest_is_banned(world: World) -> None:
    """The rest of a pending network is banned, although the kernel refused the whole network."""
    whole = ip_network("192.0.2.0/24")
    world.backend.refuses[whole] = SetFullError("the set is full")
    world.enforcer.ban([whole], 3_600.0, "")
    world.backend.refuses.clear()

    assert unban_texts(world, "192.0.2.1").notes == ("192.0.2.0/24: the rest of it stays banned, in 8 parts",)
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
def test_what_only_the_kernel_knows_is_unbanned(
    world: World, foreign: str, freed: str, left: set[str]
) -> None:
    """A foreign element is unbanned too, and of a wider one the rest stays banned."""
    world.backend.put(ip_network(foreign), START + 60)

    assert unban_texts(world, freed).problems == ()
    assert set(world.in_kernel()) == set(world.in_store()) == left


def test_a_foreign_ban_of_a_narrow_scope_is_unbanned(world: World) -> None:
    """A foreign element of a narrow scope is unbanned in that scope, and no other ban ends."""
    world.decide(OTHER, scope=Scope.SIP_UDP)
    world.backend.put(SUBJECT, START + 60, Scope.SIP_UDP)

    assert unban_texts(world, str(SUBJECT)).problems == ()
    assert set(world.in_kernel()) == set(world.in_store()) == {str(OTHER)}


def test_an_unban_without_a_ban_changes_nothing(world: World) -> None:
    """An unban of an address without a ban changes nothing, not even foreign elements."""
    world.backend.put(OTHER, START + 60)

    assert unban_texts(world, "192.0.2.1").not_banned == ("192.0.2.1",)
    assert (world.in_kernel(), world.in_store()) == ({"192.0.2.2/32": 60}, {})


def test_for_addresses_without_a_ban_the_kernel_is_read_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reads the kernel's bans, once for all addresses."""
    in_main_thread = list[bool]()

    def reading(backend: Backend, known: Iterable[int] | None) -> Iterator[Element]:
        in_main_thread.append(threading.current_thread() is threading.main_thread())
        yield from listed(backend, known)

    monkeypatch.setattr("ringfence.bans.unban.listed", reading)
    world.decide()
    world.backend.put(ip_network("203.0.113.7"), START + 60)
    result = unban_texts(world, *(f"203.0.113.{number}" for number in range(9)))

    assert in_main_thread == [False]
    assert (len(result.not_banned), set(world.in_kernel())) == (8, {str(SUBJECT)})


def test_between_two_addresses_without_a_ban_other_work_is_done(world: World) -> None:
    """The event loop continues after each network, also if no network is banned."""
    turns = 0

    async def main() -> None:
        nonlocal turns
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(unban(world.enforcer, [OTHER] * 50))
            while not asking.done():
                turns += 1
                await asyncio.sleep(0)

    asyncio.run(main())
    assert turns >= 50


def test_a_foreign_ban_that_ends_meanwhile_is_not_adopted(world: World) -> None:
    """A foreign element whose time is over when the command comes to its address is not unbanned."""
    ban(world, str(OTHER))
    world.backend.put(SUBJECT, START + 1.0)

    def wait() -> None:
        world.now += 2.0

    world.backend.meanwhile = wait
    assert unban_texts(world, "192.0.2.9", str(SUBJECT)).not_banned == ("192.0.2.9", "192.0.2.1")
    assert world.enforcer.book.counts.unbanned == 0


def test_off_while_the_kernel_is_read_ends_the_unban(world: World) -> None:
    """If enforcement is switched off while the kernel's bans are read, none of them is adopted."""
    world.backend.put(SUBJECT, START + 60)
    world.backend.meanwhile = world.enforcer.switch_off
    with pytest.raises(ControlError, match="switched off"):
        unban_texts(world, str(SUBJECT))

    assert len(world.enforcer.ledger) == 0


def test_a_ban_that_the_kernel_does_not_remove_is_reported(world: World) -> None:
    """A ban that the kernel does not remove is reported, and stays in the kernel and in the store."""
    world.decide()
    world.decide(OTHER)
    world.backend.refuses[SUBJECT] = FirewallError("no answer")

    assert unban_texts(world, "192.0.2.1", "192.0.2.2").problems == ("192.0.2.1: no answer",)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}
    with pytest.raises(ControlError, match=r"192\.0\.2\.1: no answer"):
        asyncio.run(unban_all(world.enforcer))


def test_a_refused_part_is_reported_and_retried(world: World) -> None:
    """If the kernel refuses a part, the address is unbanned, and the part is pending."""
    ban(world, "192.0.2.0/24")
    half = ip_network("192.0.2.128/25")
    world.backend.refuses[half] = FirewallError("no memory")
    result = unban_texts(world, "192.0.2.1")

    assert result == UnbanResult(("192.0.2.128/25: no memory",), ended=1)
    assert set(world.in_kernel()) == PARTS_OF_24 - {"192.0.2.128/25"}
    world.backend.refuses.clear()
    world.wait(5)
    assert set(world.in_kernel()) == PARTS_OF_24


def test_of_an_address_of_nat64_only_that_address_is_unbanned(world: World) -> None:
    """An unban of a NAT64 address leaves the rest of its /64 banned, because it belongs to many hosts."""
    world.decide(ip_network("64:ff9b::c000:200/127"))
    asyncio.run(unban(world.enforcer, [ip_network("64:ff9b::c000:200")]))

    assert set(world.in_kernel()) == {"64:ff9b::c000:201/128"}


def test_all_are_unbanned(world: World) -> None:
    """unban_all ends every ban, foreign and pending ones included, and returns their number."""
    world.decide()
    world.decide(ip_network("2001:db8::/64"))
    world.decide(SUBJECT, scope=Scope.SIP_UDP)
    world.backend.put(OTHER, START + 60)
    world.backend.refuses[ip_network("192.0.2.3")] = SetFullError("the set is full")
    world.decide(ip_network("192.0.2.3"))
    world.backend.refuses.clear()

    assert asyncio.run(unban_all(world.enforcer)) == 4
    assert (world.in_kernel(), world.in_store(), len(world.enforcer.ledger.pending)) == ({}, {}, 0)
    assert asyncio.run(unban_all(world.enforcer)) == 0
    assert key_of(OTHER) not in world.enforcer.ledger


def test_twenty_bans_that_the_kernel_does_not_remove_are_named(world: World) -> None:
    """The error of unban_all is no longer than a screen, however many bans stay."""
    for number in range(1, 23):
        ban(world, f"192.0.2.{number}")
        world.backend.refuses[ip_network(f"192.0.2.{number}")] = FirewallError("busy")

    with pytest.raises(ControlError) as caught:
        asyncio.run(unban_all(world.enforcer))
    assert str(caught.value).count("busy") == 20
    assert len(world.in_kernel()) == 22


def test_while_all_are_unbanned_new_bans_are_placed(world: World) -> None:
    """unban_all works in parts, and a ban that is placed between two parts stays."""
    many = [ip_network((0xC6120000 + number, 32)) for number in range(2 * CHUNK)]
    world.enforcer.ban(many, 3_600.0, "")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            lifting = group.create_task(unban_all(world.enforcer))
            while not world.enforcer.book.counts.unbanned:  # noqa: ASYNC110 - between two parts, wherever that is
                await asyncio.sleep(0)
            assert world.enforcer.book.counts.unbanned < len(many)
            world.decide()
        assert lifting.result() == len(many)

    asyncio.run(main())
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}


def test_while_a_network_is_unbanned_new_bans_are_placed(world: World) -> None:
    """An unban of a network with many bans works in parts, and bans that are placed between two stay."""
    many = [ip_network((0xC6120000 + number, 32)) for number in range(2 * CHUNK)]
    world.enforcer.ban(many, 3_600.0, "")
    unbanned = []

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            unbanning = group.create_task(unban(world.enforcer, [ip_network("198.18.0.0/15")]))
            while not unbanning.done():
                await asyncio.sleep(0)
                unbanned.append(world.enforcer.book.counts.unbanned)
                if unbanned[-1] == CHUNK:
                    world.now += 1.0
                    world.decide()
                    world.enforcer.ban([many[0], many[-1]], 3_600.0, "again")
        assert unbanning.result() == UnbanResult(ended=2 * CHUNK - 1)

    asyncio.run(main())
    assert [*dict.fromkeys(unbanned)] == [0, CHUNK, 2 * CHUNK - 1]
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", str(many[0]), str(many[-1])}


def test_while_enforcement_is_off_no_part_is_banned(world: World) -> None:
    """If enforcement is switched off during a long unban, the rest of a wider ban is not banned."""
    world.decide(ip_network("198.18.0.0/15"), scope=Scope.SIP)
    many = [ip_network((0xC6120000 + number, 32)) for number in range(CHUNK)]
    world.enforcer.ban(many, 3_600.0, "")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(world.enforcer.switch_off)
        await unban(world.enforcer, [ip_network("198.18.0.0/16")])

    with pytest.raises(ControlError, match="switched off"):
        asyncio.run(main())
    assert world.in_kernel() == {}


def test_a_new_friend_loses_claimed_bans(world: World) -> None:
    """A new friend loses claimed bans and a rule's network ban; its other bans and those of others stay."""
    friend, other = ip_address("192.0.2.1"), ip_network("192.0.2.2")
    for claimed in (Scope.SIP_UDP, Scope.SIP_TCP):
        world.decide(ip_network(friend), scope=claimed, seconds=600.0)
    world.decide(other, scope=Scope.SIP_UDP, seconds=600.0)
    world.decide(ip_network("192.0.2.0/24"))
    world.decide(ip_network("192.0.2.0/24"), scope=Scope.SIP)
    world.decide(ip_network("198.51.100.1"))
    world.enforcer.ban([ip_network("203.0.113.0/24")], HOUR, "by hand")
    unban_friends(world.enforcer, [friend, ip_address("198.51.100.1"), ip_address("203.0.113.1")])

    assert set(world.in_kernel()) == {str(other), "198.51.100.1/32", "203.0.113.0/24"}


def test_a_new_friend_loses_pending_bans(world: World) -> None:
    """Bans that the kernel has refused end like confirmed ones, and no retry places them on a new friend."""
    friend, caller = ip_network("192.0.2.1"), ip_network("198.51.100.1")
    around = friend.supernet(new_prefix=24)
    world.backend.refuses |= dict.fromkeys((friend, caller, around), FirewallError("busy"))
    world.decide(friend, scope=Scope.SIP_UDP, seconds=600.0)
    world.decide(caller, scope=Scope.SIP_TCP, seconds=600.0)
    world.decide(around, scope=Scope.SIP)
    assert len(world.enforcer.ledger.pending) == 3
    world.backend.refuses.clear()
    unban_friends(world.enforcer, [friend.network_address])
    address = caller.network_address
    unban_claims(world.enforcer, Friend("pbx", address, "204", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e12))

    assert not world.enforcer.ledger.pending
    world.wait(5)
    assert world.in_kernel() == {}


def test_a_new_trunk_loses_its_full_bans_too(world: World) -> None:
    """If the name of a registrar leads to a banned address, every ban by a rule ends there, and no other."""
    trunk = ip_address("192.0.2.1")
    for scope in (Scope.FULL, Scope.SIP, Scope.SIP_UDP):
        world.decide(ip_network(trunk), scope=scope)
    world.decide(ip_network("198.51.100.1"))
    world.enforcer.ban([ip_network("203.0.113.0/24")], HOUR, "by hand")
    friends = [trunk, ip_address("198.51.100.1"), ip_address("203.0.113.1")]
    unban_friends(world.enforcer, friends, {trunk, friends[-1]})

    assert set(world.in_kernel()) == {"198.51.100.1/32", "203.0.113.0/24"}


def test_bans_that_a_reload_ends(world: World) -> None:
    """Only the bans that are named end, and the log has the reason."""
    for address in ("192.0.2.1", "192.0.2.2"):
        world.decide(ip_network(address), scope=Scope.SIP_TCP, seconds=600.0)
    with capture_logs() as logs:
        unban_known(world.enforcer, [(ip_network("192.0.2.1"), Scope.SIP_TCP)])
        unban_known(world.enforcer, [])

    assert set(world.in_kernel()) == {"192.0.2.2/32"}
    [line] = [one for one in logs if one["event"] == "ban.reloaded"]
    assert (line["number"], line["why"][:33]) == (1, "Asterisk has read its trunks again"[:33])


def decide_proven(world: World, subject: Network, scope: Scope, proof: Proof = Proof.NONCE) -> None:
    """Ban a subject for attempts with this proof."""
    made = tuple(evolve(one, proof=proof) for one in attempts(5, str(subject.network_address)))
    world.enforcer.carry_out(Decision(subject, RULE, made, world.now, scope, 600.0))


def test_proven_bans_that_a_friend_and_a_trunk_lose(world: World) -> None:
    """A friend loses a proven ban of the network around it, a trunk also a proven one of its own address."""
    friend, trunk = ip_network("192.0.2.1"), ip_network("198.51.100.1")
    for subject in (friend, trunk):
        decide_proven(world, subject, Scope.SIP_UDP)
        decide_proven(world, subject.supernet(new_prefix=24), Scope.SIP)
    addresses = [friend.network_address, trunk.network_address]
    unban_friends(world.enforcer, addresses, {trunk.network_address})

    assert set(world.in_kernel()) == {str(friend)}


def test_a_friends_ban_for_proven_guesses_stays(world: World) -> None:
    """Neither a login nor a new start ends a narrow ban on proven attempts; it ends one on claims."""
    for last, proof in ((1, Proof.NONCE), (2, Proof.CLAIMED)):
        decide_proven(world, ip_network(f"192.0.2.{last}"), Scope.SIP_UDP, proof)
    friends = [ip_address("192.0.2.1"), ip_address("192.0.2.2")]
    unban_friends(world.enforcer, friends[:1])
    for one in friends:
        unban_claims(world.enforcer, Friend("pbx", one, "204", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e12))
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


def test_the_64_of_a_friend_stays_banned(world: World) -> None:
    """A ban of a friend's /64 stays, as the kernel passes the friend; one of its exact address ends."""
    friend = ip_network("2001:db8::7")
    for network in (ip_network("2001:db8::/64"), friend):
        world.decide(network, scope=Scope.SIP_UDP, seconds=600.0)
    unban_friends(world.enforcer, [friend.network_address])

    assert set(world.in_kernel()) == {"2001:db8::/64"}


def test_all_are_unbanned_while_the_disk_is_slow(world: World) -> None:
    """The event loop runs while the database records the unbans; the kernel's bans end afterwards."""
    ban(world, "192.0.2.1")
    ban(world, "192.0.2.2")
    turned = threading.Event()
    seen: list[tuple[bool, int]] = []
    end = world.store.bans.end

    def slow(bans: Iterable[tuple[Network, Scope]], when: float, how: BanEnd) -> None:
        seen.append((turned.wait(20), len(world.in_kernel())))
        end(bans, when, how)

    async def unban_everybody() -> int:
        asyncio.get_running_loop().call_later(0.05, turned.set)
        return await unban_all(world.enforcer)

    with Writer() as later, pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store.bans, "end", slow)
        patch.setattr(world.store.best_effort, "_later", later)
        assert asyncio.run(unban_everybody()) == 2

    assert seen == [(True, 2)]
    assert (world.in_kernel(), world.in_store()) == ({}, {})


def test_one_is_unbanned_while_the_disk_is_slow(world: World) -> None:
    """During a slow unban new bans are placed, and a new ban of the same address stays."""
    ban(world, "192.0.2.1")
    ban(world, "192.0.2.2")
    turned = threading.Event()
    seen: list[tuple[bool, set[str]]] = []
    end = world.store.bans.end

    def slow(bans: Iterable[tuple[Network, Scope]], when: float, how: BanEnd) -> None:
        seen.append((turned.wait(20), set(world.in_kernel())))
        end(bans, when, how)

    def go_on() -> None:
        world.now += 1.0
        ban(world, "192.0.2.2")
        ban(world, "192.0.2.3")
        turned.set()

    async def let_two_in() -> UnbanResult:
        asyncio.get_running_loop().call_later(0.05, go_on)
        return await unban(world.enforcer, [ip_network("192.0.2.0/30")])

    with Writer() as later, pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store.bans, "end", slow)
        patch.setattr(world.store.best_effort, "_later", later)
        assert asyncio.run(let_two_in()) == UnbanResult(ended=1)

    left = {"192.0.2.2/32", "192.0.2.3/32"}
    assert seen == [(True, {"192.0.2.1/32", *left})]
    assert (set(world.in_kernel()), set(world.in_store())) == (left, left)


def while_recording(world: World, patch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Call ``meanwhile`` once, while a command waits for the disk."""

    async def recorded() -> str:
        patch.undo()
        meanwhile()
        return ""

    patch.setattr(world.store.best_effort, "recorded", recorded)


@pytest.mark.parametrize("command", [unban_all, lambda enforcer: unban(enforcer, [SUBJECT])])
def test_a_pending_ban_that_is_placed_during_its_unban_stays_ended(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[Enforcer], Coroutine[None, None, object]],
) -> None:
    """If the kernel takes a pending ban while its unban waits for the disk, that ban ends everywhere."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.backend.refuses.clear()
    while_recording(world, monkeypatch, lambda: world.wait(1.0))
    asyncio.run(command(world.enforcer))

    assert (world.in_kernel(), world.in_store()) == ({}, {})
    assert world.ended == [(SUBJECT, Scope.FULL, BanEnd.REMOVED)]
    world.restart(reboot=True)
    assert world.in_kernel() == {}


def test_a_ban_that_is_adopted_while_all_bans_end_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign ban that a comparison adopts while ``unban_all`` waits for the disk ends with the others."""
    world.backend.put(OTHER, START + 60)

    def adopt() -> None:
        world.now += 1.0
        world.adopt(OTHER, 59.0)

    while_recording(world, monkeypatch, adopt)
    assert asyncio.run(unban_all(world.enforcer)) == 1

    assert (world.in_kernel(), world.in_store(), len(world.enforcer.ledger)) == ({}, {}, 0)


def test_an_exempt_address_is_unbanned_without_the_disk(world: World) -> None:
    """An address that becomes exempt is unbanned at once, and the store records it later."""
    ban(world, "192.0.2.1")
    recorded = threading.Event()
    end = world.store.bans.end

    def slow(bans: Iterable[tuple[Network, Scope]], when: float, how: BanEnd) -> None:
        assert recorded.wait(20)
        end(bans, when, how)

    with Writer() as later, pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store.bans, "end", slow)
        patch.setattr(world.store.best_effort, "_later", later)
        world.allow(SUBJECT)
        assert world.in_kernel() == {}
        recorded.set()

    assert world.in_store() == {}


def test_a_login_ends_a_claimed_ban_for_calls_without_credentials(world: World) -> None:
    """Their address is proven, but they show no attacker, so such a ban never hits a friend."""
    friend = ip_network("192.0.2.1")
    made = tuple(
        evolve(one, proof=Proof.HANDSHAKE, credentials=False)
        for one in attempts(3, str(friend.network_address))
    )
    world.enforcer.carry_out(Decision(friend, RULE, made, world.now, Scope.SIP_TCP, 600.0))
    address = friend.network_address
    unban_claims(world.enforcer, Friend("pbx", address, "204", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e12))
    assert world.in_kernel() == {}
