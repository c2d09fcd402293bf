"""The bans in the kernel: refused, pending, renewed, displaced and removed bans."""

import asyncio
from ipaddress import ip_network

import pytest
from tests.support.world import OTHER, START, SUBJECT, World, said

from ringfence import ledger
from ringfence.ban_facts import Forgotten, Over, Placed
from ringfence.bans.unban import unban
from ringfence.detect.rules import DAY, HOUR, RULES
from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall.contract import Add, FirewallPlan
from ringfence.ledger import key_of, network_of, scope_of
from ringfence.values.ban import BanEnd, Scope

FLOOD = next(rule for rule in RULES if rule.name == "flood")


def test_a_refused_ban_is_pending_and_tried_until_it_is_done(world: World) -> None:
    """A refused ban is logged once and retried; it is recorded only after the kernel has accepted it."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    with said() as names:
        world.decide()
        world.wait(5)
        world.wait(5)

    assert names == ["ban.failed"]
    assert (world.in_kernel(), world.in_store(), len(world.enforcer.ledger.pending)) == ({}, {}, 1)
    assert world.enforcer.firewall_error == "the set is full"
    assert (world.enforcer.book.counts.placed, world.enforcer.book.counts.failed) == (0, 1)
    assert world.held()

    world.backend.refuses.clear()
    with said() as names:
        world.wait(5)

    assert names == ["ban.placed"]
    left = {"192.0.2.1/32": round(HOUR) - 15}
    assert (world.in_kernel(), world.in_store(), len(world.enforcer.ledger.pending)) == (left, left, 0)
    assert world.enforcer.firewall_error == ""
    assert world.enforcer.book.counts.placed == 1


def test_new_bans_are_passed_on_when_the_kernel_has_them(world: World) -> None:
    """A refused ban is passed on after its retry; parts of an earlier ban and adopted bans are not."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    assert world.placed == []
    world.backend.refuses.clear()
    world.wait(5)
    assert [ban.network for ban in world.placed] == [SUBJECT]

    world.enforcer.ban([ip_network("203.0.113.0/24")], HOUR, "a reason")
    asyncio.run(unban(world.enforcer, [ip_network("203.0.113.1")]))
    world.adopt(ip_network("203.0.113.77"), HOUR)
    assert [str(ban.network) for ban in world.placed] == ["192.0.2.1/32", "203.0.113.0/24"]


def test_a_restored_ban_is_no_news(world: World) -> None:
    """A ban that a reboot removed is restored in silence, even if the kernel refuses it at first."""
    world.decide()
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.restart(reboot=True)
    assert (len(world.enforcer.ledger.pending), world.in_kernel()) == (1, {})

    world.backend.refuses.clear()
    with said() as names:
        world.wait(5)
    left = {"192.0.2.1/32": round(HOUR) - 5}
    assert (names, world.news, world.in_kernel(), world.in_store()) == ([], [], left, left)
    assert world.enforcer.book.counts.placed == 0


def test_a_lost_ban_that_stays_refused_ends_with_its_time(world: World) -> None:
    """The end of a ban that the kernel lost, and never took again, is reported and recorded."""
    world.decide()
    world.backend.lose()
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    asyncio.run(world.reconciler.compare())
    world.wait(HOUR)

    assert world.ended == [(SUBJECT, Scope.FULL, BanEnd.EXPIRED)]
    assert world.in_store() == {}


def test_a_removal_that_is_tried_again_keeps_how_the_ban_ended(world: World) -> None:
    """If the kernel refuses a removal at first, the end that is reported is the one asked for."""
    world.decide()
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    key = key_of(SUBJECT, Scope.FULL)
    world.enforcer.apply(world.enforcer.book.unban_with_retry([key], BanEnd.DISPLACED))
    assert world.ended == []
    world.backend.refuses.clear()
    world.wait(5)

    assert world.ended == [(SUBJECT, Scope.FULL, BanEnd.DISPLACED)]


def test_a_ban_that_expires_before_its_removal_is_over_once(world: World) -> None:
    """If the kernel refuses to remove a ban until the ban has expired, only that end is reported."""
    world.decide()
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    world.allow(SUBJECT)
    world.wait(HOUR)
    world.backend.refuses.clear()
    world.wait(1)

    assert world.ended == [(SUBJECT, Scope.FULL, BanEnd.EXPIRED)]


def test_a_ban_that_gives_way_in_its_own_batch_stays_ended(world: World) -> None:
    """Of two pending bans for a full set, the shorter one is placed first, and then makes room."""
    world.backend.plan = FirewallPlan(maxelem=1)
    world.backend.gone = FirewallError("the socket is gone")
    world.decide()
    world.enforcer.ban([OTHER], 2 * HOUR, "")
    world.backend.gone = None
    world.wait(5)

    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.2/32"}
    assert [fact.how if isinstance(fact, Over) else None for fact in world.news] == [
        None,
        BanEnd.DISPLACED,
        None,
    ]


def test_nobody_is_notified_of_the_rest_of_a_ban(world: World) -> None:
    """The parts of a network that stay banned are passed on, but not announced, also after a retry."""
    world.enforcer.ban([ip_network("203.0.113.0/30")], HOUR, "a reason")
    world.facts.clear()
    refused = ip_network("203.0.113.2/31")
    world.backend.refuses[refused] = SetFullError("the set is full")
    asyncio.run(unban(world.enforcer, [ip_network("203.0.113.0")]))
    world.backend.refuses.clear()
    world.wait(5)

    placed = [fact for fact in world.facts if isinstance(fact, Placed)]
    assert [str(ban.network) for fact in placed for ban in fact.bans] == ["203.0.113.1/32", str(refused)]
    assert not any(fact.announced for fact in placed)


def test_a_firewall_that_cannot_speak_is_a_refusal_of_all(world: World) -> None:
    """If the firewall fails as a whole, nothing is raised, and every ban is pending."""
    world.backend.gone = FirewallError("the socket is gone")
    world.decide()
    world.decide(OTHER)

    assert (len(world.enforcer.ledger.pending), world.in_store()) == (2, {})
    world.backend.gone = None
    world.wait(5)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", "192.0.2.2/32"}


def test_what_is_pending_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a refused ban is discarded, and its sender's attempts are counted again."""
    monkeypatch.setattr(ledger, "MOST_PENDING", 1)
    world.backend.gone = FirewallError("the socket is gone")
    world.decide()
    world.decide(OTHER)

    assert (len(world.enforcer.ledger.pending), world.enforcer.book.counts.failed) == (1, 2)
    assert (world.held(), world.held(OTHER)) == (True, False)


def test_a_pending_ban_ends_with_its_time(world: World) -> None:
    """A pending ban that was never placed is dropped at its own end, and the firewall error clears."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.wait(HOUR)

    assert (len(world.enforcer.ledger.pending), world.enforcer.firewall_error) == (0, "")
    assert not world.held()


def test_one_success_does_not_hide_what_is_refused(world: World) -> None:
    """While a ban is pending, the firewall's error stays, even if other bans succeed."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.decide(OTHER)

    assert world.enforcer.firewall_error == "the set is full"


def test_a_full_ban_takes_the_place_of_a_narrow_one(world: World) -> None:
    """A sender with a ban from the SIP ports that then proves its address gets one full ban instead."""
    world.decide(scope=Scope.SIP_UDP, seconds=600.0)
    world.decide(scope=Scope.SIP_TCP, seconds=600.0)
    world.decide()

    assert [(str(element.network), element.scope) for element in world.backend.list()] == [
        ("192.0.2.1/32", Scope.FULL)
    ]
    assert world.in_store() == {"192.0.2.1/32": HOUR}
    assert list(world.enforcer.ledger.all_keys()) == [key_of(SUBJECT)]
    assert world.ended == [
        (SUBJECT, Scope.SIP_UDP, BanEnd.REPLACED),
        (SUBJECT, Scope.SIP_TCP, BanEnd.REPLACED),
    ]
    world.restart()
    assert world.in_kernel() == {"192.0.2.1/32": HOUR}


def test_a_ban_of_the_ports_of_asterisk_survives_a_restart(world: World) -> None:
    """A ban with scope SIP is restored and adopted with its scope, and counts as an earlier ban."""
    world.decide(scope=Scope.SIP)
    world.backend.flush()
    world.restart()
    assert [(element.scope, element.network) for element in world.backend.list()] == [(Scope.SIP, SUBJECT)]
    world.backend.apply([Add(OTHER, 100, Scope.SIP)])
    world.restart()

    assert {network_of(key) for key in world.enforcer.ledger.all_keys()} == {
        (SUBJECT, Scope.SIP),
        (OTHER, Scope.SIP),
    }
    assert world.records.offences(SUBJECT, 0.0) == 1


def test_a_ban_longer_than_the_kernel_counts_is_renewed(world: World) -> None:
    """A ban longer than the kernel's limit is renewed below half of its timeout, until its own end."""
    world.backend.cap = 100
    world.decide()
    seen: list[int] = []
    while world.in_kernel() and len(seen) < 200:
        seen.append(world.in_kernel()["192.0.2.1/32"])
        world.wait(20.0)

    assert min(seen[:-5]) >= 40
    assert max(seen) <= 100
    assert len(world.backend.batches) == HOUR / 60  # not at each tick
    assert world.now == START + HOUR
    assert world.store.bans.count_offences(SUBJECT, 0.0) == 1
    assert world.enforcer.book.counts.placed == 1


@pytest.mark.parametrize(("longer", "left"), [(0.0, {Scope.FULL}), (1.0, {Scope.FULL, Scope.SIP})])
def test_a_ban_of_the_sip_ports_ends_unless_it_lasts_longer(
    world: World, longer: float, left: set[Scope]
) -> None:
    """A full ban that lasts as long as the ban of the SIP ports replaces it, a shorter one does not."""
    world.decide(scope=Scope.SIP, seconds=HOUR + longer)
    world.decide(seconds=HOUR)

    assert {scope_of(key) for key in world.enforcer.ledger.keys()} == left  # noqa: SIM118 - no mapping


def test_a_newer_ban_replaces_a_lost_one_that_is_refused(world: World) -> None:
    """If the kernel has lost a ban and refuses a newer one too, the end of the lost ban is reported."""
    world.decide()
    world.backend.lose()
    world.backend.refuses[SUBJECT] = FirewallError("no memory")
    world.enforcer.ban([SUBJECT], 2 * HOUR, "by hand")
    asyncio.run(world.reconciler.compare())

    assert world.ended == [(SUBJECT, Scope.FULL, BanEnd.REPLACED)]


def test_each_refused_removal_is_tried_again(world: World) -> None:
    """If the kernel refuses to remove one ban and later another, both are removed in the end."""
    for subject in (SUBJECT, OTHER):
        world.decide(subject)
        world.backend.refuses[subject] = FirewallError("no answer")
    for subject in (SUBJECT, OTHER):
        world.enforcer.apply(world.enforcer.book.unban_with_retry([key_of(subject)]))
    world.backend.refuses.clear()
    world.wait(1)

    assert world.in_kernel() == world.in_store() == {}


def test_bans_that_wait_are_forgotten_when_ringfence_is_switched_off(world: World) -> None:
    """The listeners learn of each refused ban, with its scope, that it is not tried any more."""
    world.backend.refuses[SUBJECT] = FirewallError("no memory")
    world.decide(scope=Scope.SIP)
    world.enforcer.switch_off()

    forgotten = [fact for fact in world.facts if isinstance(fact, Forgotten)]
    assert forgotten == [Forgotten(SUBJECT, Scope.SIP)]


def test_a_renewal_that_fails_is_tried_again(world: World) -> None:
    """A refused renewal is shown and repeated while the kernel still has the ban."""
    world.backend.cap = 100
    world.decide()
    world.backend.refuses[SUBJECT] = FirewallError("no memory")
    world.wait(60.0)
    assert world.enforcer.firewall_error == "no memory"
    world.backend.refuses.clear()
    world.wait(20.0)

    assert (world.in_kernel(), world.enforcer.firewall_error) == ({"192.0.2.1/32": 100}, "")


def test_in_a_full_set_the_first_ban_to_end_is_removed(world: World) -> None:
    """In a full set the first ban to end is removed, logged and counted; each version and scope has a set."""
    world.backend.plan = FirewallPlan(maxelem=2)
    for text, seconds in (("192.0.2.1", 60.0), ("192.0.2.2", 7_200.0), ("2001:db8::/64", 30.0)):
        world.enforcer.ban([ip_network(text)], seconds, "")
    with said() as names:
        world.decide(ip_network("192.0.2.3"))

    assert names == ["ban.removed", "ban.placed"]
    assert set(world.in_kernel()) == {"192.0.2.2/32", "192.0.2.3/32", "2001:db8::/64"}
    assert world.in_kernel() == world.in_store()
    assert (world.enforcer.book.counts.displaced, len(world.enforcer.ledger.pending)) == (1, 0)
    assert not world.held()


def test_in_a_full_set_a_ban_that_is_over_makes_no_room(world: World) -> None:
    """Bans that have ended, but are not forgotten yet, are left alone: another one makes room at once."""
    world.backend.plan = FirewallPlan(maxelem=2)
    world.enforcer.ban([OTHER], 60.0, "")
    world.enforcer.ban([ip_network("198.51.100.1")], HOUR / 2, "")
    world.now += 60.0
    world.backend.put(ip_network("198.51.100.2"), world.now + DAY)
    world.decide()

    assert set(world.in_kernel()) == {"192.0.2.1/32", "198.51.100.2/32"}
    assert len(world.enforcer.ledger.pending) == 0
    world.wait(1.0)
    assert world.ended == [
        (ip_network("198.51.100.1"), Scope.FULL, BanEnd.DISPLACED),
        (OTHER, Scope.FULL, BanEnd.EXPIRED),
    ]


def test_a_ban_that_gives_way_was_not_removed_by_anybody(world: World) -> None:
    """Its end has a reason of its own, in the report and in the store, unlike that of an unban."""
    world.backend.plan = FirewallPlan(maxelem=1)
    world.enforcer.ban([OTHER], 60.0, "")
    world.decide()
    asyncio.run(unban(world.enforcer, [SUBJECT]))

    ends = {OTHER: BanEnd.DISPLACED, SUBJECT: BanEnd.REMOVED}
    assert world.ended == [(network, Scope.FULL, how) for network, how in ends.items()]
    recorded = world.store.bans.ended(START, world.clock.wall() + 1.0)
    assert {one.ban.network: one.end for one in recorded} == ends


def test_the_like_give_way_to_the_like(world: World) -> None:
    """In a backend with a set for each width, networks replace networks, or addresses if necessary."""
    world.backend.plan = FirewallPlan(maxelem=2)
    world.enforcer.ban([ip_network("198.51.100.0/24")], 60.0, "")
    world.enforcer.ban([ip_network("192.0.2.1")], 120.0, "")
    world.enforcer.ban([ip_network("192.0.2.2")], 7_200.0, "")
    assert set(world.in_kernel()) == {"198.51.100.0/24", "192.0.2.2/32"}
    world.enforcer.ban([ip_network("203.0.113.0/24")], 7_200.0, "")
    assert set(world.in_kernel()) == {"203.0.113.0/24", "192.0.2.2/32"}
    world.enforcer.ban([ip_network("10.0.0.0/8")], 9_000.0, "")
    assert len(world.in_kernel()) == 2
    assert "10.0.0.0/8" in world.in_kernel()


def test_a_shorter_ban_waits_until_the_set_has_room(world: World) -> None:
    """A new ban that would end before all others waits until the set has room."""
    world.backend.plan = FirewallPlan(maxelem=1)
    world.enforcer.ban([OTHER], 2 * HOUR, "")
    world.decide()
    for _ in range(3):
        world.wait(5)

    assert (set(world.in_kernel()), len(world.enforcer.ledger.pending)) == ({"192.0.2.2/32"}, 1)
    assert world.enforcer.book.counts.displaced == 0
    asyncio.run(unban(world.enforcer, [OTHER]))
    world.wait(5)
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


def test_a_ban_that_stayed_can_give_way_to_a_longer_one(world: World) -> None:
    """A ban that did not give way to a short ban can still give way to a longer one."""
    world.backend.plan = FirewallPlan(maxelem=2)
    world.enforcer.ban([ip_network("198.51.100.1")], 2 * HOUR, "")
    world.enforcer.ban([ip_network("198.51.100.2")], 3 * HOUR, "")
    world.decide()
    world.enforcer.ban([OTHER], DAY, "")

    assert set(world.in_kernel()) == {"198.51.100.2/32", "192.0.2.2/32"}


def test_as_many_give_way_as_there_is_need(world: World) -> None:
    """As many bans give way as needed, the shortest first, also beyond one batch of candidates."""
    world.backend.plan = FirewallPlan(maxelem=300)
    old = [ip_network((0xC6336400 + n, 32)) for n in range(300)]
    for number, network in enumerate(old):
        world.enforcer.ban([network], 60.0 + number, "")
    world.enforcer.ban([ip_network((0xCB007100 + n, 32)) for n in range(290)], HOUR, "")

    assert {network for network in old if world.backend._ends.get((network, Scope.FULL))} == set(old[290:])
    assert world.enforcer.book.counts.displaced == 290


def test_the_record_ends_before_the_kernel_lets_go(world: World) -> None:
    """The record of a ban ends before the kernel's ban; if the kernel refuses, the record is restored."""
    world.decide()
    seen: list[dict[str, int]] = []
    world.backend.before_batch = lambda: seen.append(world.in_store())
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    assert len(world.unban(SUBJECT)) == 1

    assert seen == [{}]
    assert set(world.in_store()) == {"192.0.2.1/32"}
