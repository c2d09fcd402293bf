"""The kernel's lists: what fits into them, and friends that come and go."""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.kept import OTHER, PHONE, Kept, kept, settings
from tests.support.world import START

from ringfence.config.converters import SetSize
from ringfence.detect.friends import identity_of
from ringfence.detect.judgement import guessing
from ringfence.detect.observation import MANY, NEW_FOR
from ringfence.features.fleet.network_list import LIST as DECIDED
from ringfence.firewall import network_lists
from ringfence.firewall.contract import ListSteps
from ringfence.firewall.network_lists import PASSING, NetworkList
from ringfence.lists.prefixes import Prefixes
from ringfence.values.network import Network
from ringfence.values.packet import CopiedAnswer


def test_a_new_friend_is_in_the_kernel_soon(kept: Kept) -> None:
    """The kernel's friends follow changes; unchanged friends are not written, and `off` stops writes."""
    friends = kept.side.exempt.friends
    fills: list[frozenset[str]] = []
    filling = kept.backend.replace_list_in_steps

    def count(which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        yield from filling(which, networks)
        if which is network_lists.FRIENDS:
            fills.append(frozenset(map(str, kept.backend.lists[network_lists.FRIENDS])))

    async def until(friends_there: frozenset[str]) -> None:
        while fills[-1:] != [friends_there]:  # noqa: ASYNC110 - it takes turns with what is tested
            await asyncio.sleep(0.01)

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(kept.side.exempt.kernel_friends.run())
            friends.add([PHONE])
            await asyncio.sleep(0.01)
            friends.add([evolve(PHONE, seen=START + 1)])
            await until(frozenset({f"{OTHER}/32"}))
            await asyncio.sleep(0.2)
            friends.forget(PHONE.address)
            await until(frozenset())
            kept.enforcer.switch_off()
            friends.add([PHONE])
            await asyncio.sleep(0.2)
            kept.side.kernel.manager.switch_on()
            task.cancel()

    kept.side.start()
    kept.backend.replace_list_in_steps = count  # type: ignore[method-assign]
    asyncio.run(run())
    assert list(dict.fromkeys(fills)) == [frozenset({f"{OTHER}/32"}), frozenset()]
    assert fills[:2] == [frozenset({f"{OTHER}/32"}), frozenset()]
    assert fills[-1] == frozenset({f"{OTHER}/32"})


def test_bans_are_looked_up_for_new_friends_alone(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bans are looked up for new friends only, as each look-up is slow; after `on` all friends are new."""
    friends = kept.side.exempt.friends
    asked: list[set[str]] = []
    monkeypatch.setattr(
        "ringfence.guard.exemptions.unban_friends", lambda _, new, _trunks: asked.append(set(map(str, new)))
    )
    others = [evolve(PHONE, address=ip_address(f"198.18.7.{last}")) for last in (1, 2)]

    async def until(number: int) -> None:
        while len(asked) < number:  # noqa: ASYNC110 - it takes turns with what is tested
            await asyncio.sleep(0.01)

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(kept.side.exempt.kernel_friends.run())
            for number, friend in enumerate([PHONE, *others], 1):
                friends.add([friend])
                await until(number if number < 3 else 4)
                if friend is others[0]:
                    kept.enforcer.switch_off()
                    kept.side.kernel.manager.switch_on()
                    await until(3)
            task.cancel()

    kept.side.start()
    asyncio.run(run())
    assert asked == [{OTHER}, {"198.18.7.1"}, {OTHER, "198.18.7.1"}, {"198.18.7.2"}]


def test_no_more_of_a_list_goes_to_the_kernel_than_a_set_holds(tmp_path: Path) -> None:
    """A list that exceeds the set size is cut, and an alarm names the limit; a larger set takes all."""
    networks = [ip_network((0x0B000000 + 2 * n, 32)) for n in range(1_100)]
    texts = tuple(map(str, networks))
    small = settings(*texts, denied=texts)
    few = evolve(small, firewall=evolve(small.firewall, max_bans=SetSize(1_024)))
    with kept(tmp_path, few) as made:
        made.side.start()
        for roll in (network_lists.DENY, network_lists.ALLOW):
            assert made.backend.lists[roll] >= set(networks[:1_024])
            assert not made.backend.lists[roll] & set(networks[1_024:])
        assert {(alarm.code, alarm.subject) for alarm in made.side.exempt.lists.alarms} == {
            ("list.full", "allow list"),
            ("list.full", "deny list"),
        }
        assert "is allowed" in made.ban(str(networks[-1]))[0]

        made.side.configure(small)
        for roll in (network_lists.DENY, network_lists.ALLOW):
            assert made.backend.lists[roll] >= set(networks)
        assert made.side.exempt.lists.alarms == []


def test_no_more_friends_go_to_the_kernel_than_a_set_holds(tmp_path: Path) -> None:
    """If there are more friends than a set holds, as many as fit pass the limiter."""
    small = settings()
    few = evolve(small, firewall=evolve(small.firewall, max_bans=SetSize(1_024)))
    with kept(tmp_path, few) as made:
        made.side.exempt.friends.add(
            evolve(PHONE, address=ip_address(f"10.{n // 250}.0.{n % 250 + 1}"), account=str(n))
            for n in range(2_250)
        )
        made.side.start()

        assert len(made.backend.lists[network_lists.FRIENDS]) == 1_024


def test_an_unshielded_friend_is_on_a_list_of_its_own(kept: Kept) -> None:
    """A friend without the exemption from the limiter still has no ration, and passes external networks."""
    friend, side = ip_network(OTHER), kept.side
    side.start()
    side.exempt.friends.add([PHONE])
    for unshielded in (True, False):
        side.exempt.kernel_friends._passing.refresh(1_000, {friend.network_address} if unshielded else ())
        lists = (network_lists.FRIENDS, network_lists.UNSHIELDED)
        kept.enforcer.filler.fill(*lists)
        assert [friend in kept.backend.lists[one] for one in lists] == [not unshielded, unshielded]


def test_a_friend_never_leaves_the_lists_that_pass(kept: Kept) -> None:
    """A friend that becomes unshielded, former, or a friend again passes the fence after each write."""
    friend, side, friends = ip_network(OTHER), kept.side, kept.detector.friends
    filling = kept.backend.replace_list_in_steps
    passed: list[bool] = []

    def watched(which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        yield from filling(which, networks)
        passed.append(any(friend in kept.backend.lists[one] for one in PASSING))

    def written() -> None:
        kernel_friends.select()
        kept.enforcer.filler.fill(
            *kernel_friends._lists.stale(), network_lists.FRIENDS, network_lists.UNSHIELDED
        )

    kernel_friends = side.exempt.kernel_friends
    side.start()
    side.exempt.friends.add([PHONE])
    written()
    kept.backend.replace_list_in_steps = watched  # type: ignore[method-assign]
    for unshielded in ({friend.network_address}, set()):
        kernel_friends._passing.refresh(1_000, unshielded)
        kept.enforcer.filler.fill(network_lists.FRIENDS, network_lists.UNSHIELDED)
    friends.remove(identity_of(PHONE), kept.now)
    written()
    side.exempt.friends.add([PHONE])
    written()
    assert passed == [True] * len(passed)
    assert len(passed) == 8


def test_a_long_list_stays_compact_on_its_way_to_the_kernel(kept: Kept) -> None:
    """The networks of a list that fits are no objects of their own; of a longer one, the first remain."""
    lists = kept.side.exempt.kernel_friends._lists
    networks = Prefixes.of(map(ip_network, ("192.0.2.1", "192.0.2.9")))
    others = dict.fromkeys((network_lists.EXTERNAL, DECIDED), networks)
    lists.networks = evolve(lists.networks, deny=networks, others=others)
    for which in (network_lists.DENY, *others):
        lists.most = 2
        assert lists.contents(which) is networks
        lists.most = 1
        assert [*lists.contents(which)] == [ip_network("192.0.2.1")]


def test_what_machines_deny_is_on_two_lists(kept: Kept) -> None:
    """Those of block lists, and those that other hosts banned, are written alone when they change."""
    side = kept.side
    side.start()
    listed, decided = ip_network("192.0.2.0/24"), ip_network("203.0.113.0/24")
    external = {network_lists.EXTERNAL: Prefixes.of([listed])}
    networks = evolve(side.exempt.lists.networks, others=external | {DECIDED: Prefixes.of([decided])})
    side.exempt.exemptions.on_lists_changed(networks)

    assert kept.backend.lists[network_lists.EXTERNAL] == {listed}
    assert kept.backend.lists[DECIDED] == {decided}
    lists = side.exempt.kernel_friends._lists
    assert lists.stale() == []
    lists.networks = evolve(networks, others=external)
    assert lists.stale() == [DECIDED]


def test_former_friends_and_neighbours_pass_what_machines_deny(kept: Kept) -> None:
    """Without a fence too, former friends, the /64s of friends and admitted addresses are in the kernel."""
    side = kept.side
    side.start()
    side.exempt.friends.add([evolve(PHONE, address=ip_address("2001:db8:1:2::1"))])
    kept.detector.friends.remember(PHONE)
    side.kernel.lists.admitted = frozenset({ip_network("203.0.113.7")})
    kept.enforcer.filler.fill(*side.kernel.lists.stale())

    passing = {OTHER, "2001:db8:1:2::/64", "203.0.113.7"}
    assert kept.backend.lists[network_lists.ADMITTED] == {*map(ip_network, passing)}
    for text in (*passing, "2001:db8:1:2::9"):
        assert side.kernel.lists.passes(ip_network(text)), text
    for text in ("2001:db8:1::/48", "192.0.2.0/24", "203.0.113.8"):
        assert not side.kernel.lists.passes(ip_network(text)), text


def test_an_observed_friend_is_on_two_lists(kept: Kept) -> None:
    """The kernel copies the conversation of an observed friend, which stays a friend."""
    side = kept.side
    side.start()
    side.exempt.friends.add([PHONE])
    kept.detector.friends.first_day.expire(START + NEW_FOR)
    friends, number = side.exempt.kernel_friends, count()

    def refuse(times: int) -> None:
        for _ in range(times):
            call = b"%d" % next(number)
            refusal = CopiedAnswer(
                PHONE.address, 5062, ip_address("198.18.0.1"), 5060, call, b"", PHONE.address
            )
            friends._detector.observe_answers([refusal], friends._clock.mono(), 0.0, "pbx")

    friends.select()
    refuse(MANY)
    assert not friends.select()
    refuse(1)
    assert friends.select()
    kept.enforcer.filler.fill(network_lists.FRIENDS, network_lists.OBSERVED)
    for one in (network_lists.FRIENDS, network_lists.OBSERVED):
        assert kept.backend.lists[one] == {ip_network(PHONE.address)}


def test_a_guilty_account_is_known_after_a_restart(tmp_path: Path) -> None:
    """Its alarm is in the store, and so are the friends that it has made: it makes no more of them."""
    alarm = guessing(PHONE.asterisk, PHONE.account)
    others = [evolve(PHONE, address=ip_address(f"198.18.7.{last}")) for last in (1, 2)]
    for which in range(2):
        with kept(tmp_path) as made:
            made.side.start()
            friends = made.side.exempt.friends
            friends.add([PHONE, others[which]])
            known = [friends.friends.has(one) for one in (PHONE.address, others[which].address)]
            assert known == [True, which == 0]
            made.alarms.activate(alarm.code, alarm.subject, alarm.text, alarm.lasts)
            made.side.common.kept_alarms.save()
            friends.write()
