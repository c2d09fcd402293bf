"""The firewall's side of the daemon: who is exempt, what is on the rolls, and what is looked after."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.attempts import ban_of
from tests.support.kept import Kept, kept, settings
from tests.support.world import START

from ringfence.errors import FirewallError, StoreError
from ringfence.firewall.contract import Flooder, Limit, LimitMode, Roll, Usage
from ringfence.friends.known import Ear
from ringfence.model import Ban, Friend, Network, Origin, Roster, Service, Tie, Transport, TrunkHost
from ringfence.settings import LimitSettings
from ringfence.values import Interface, SetSize

OFFICE, OTHER = "198.51.100.0/24", "192.0.2.1"
ENFORCED = settings(limit=LimitSettings(mode=LimitMode.ENFORCE))


@pytest.fixture(name="kept")
def _kept(tmp_path: Path) -> Iterator[Kept]:
    """Give a keeper with a list, before it mounts."""
    with kept(tmp_path, settings(OFFICE, denied=("203.0.113.0/24",))) as made:
        yield made


def ban(made: Kept, *texts: str, force: bool = False) -> list[str]:
    """Ban by hand for an hour."""
    return made.enforcer.ban([ip_network(text) for text in texts], 3_600.0, "", force=force)


def test_the_guard_is_mounted_with_its_lists(kept: Kept) -> None:
    """Lists are in the kernel, and bans of whom they allow or who is this host are not put back."""
    own = ip_network("198.18.0.1")
    for text in (OTHER, "198.51.100.7"):
        kept.store.record([ban_of(text, START)])
    kept.store.record([Ban(own, START, START + 60, "admin", "", Origin.ADMIN)])
    kept.keeper.mount()

    assert kept.banned() == {f"{OTHER}/32"}
    assert kept.backend.rolls[Roll.ALLOW] >= {ip_network(OFFICE)}
    assert kept.backend.rolls[Roll.DENY] == {ip_network("203.0.113.0/24")}
    assert kept.detector.never.covers(own.network_address)
    assert kept.keeper.problems == []


def test_an_interface_that_is_not_there_is_told(kept: Kept) -> None:
    """By a slip of the pen nobody would be dropped: it is a problem, and none for those that are there."""
    wanted = settings()
    named = evolve(wanted.firewall, interfaces=(Interface("lo"), Interface("nosuch0")))
    kept.keeper.configure(evolve(wanted, firewall=named))

    assert kept.keeper.problems == [
        "[firewall] interfaces: there is no nosuch0 here; what comes by others is not dropped"
    ]


def test_own_addresses_are_followed(kept: Kept) -> None:
    """An address that comes to this host is let in at once and never banned; one that went may be."""
    kept.keeper.mount()
    ban(kept, OTHER)
    kept.keeper._addresses_changed(frozenset({ip_network(OTHER)}))

    assert kept.banned() == set()
    assert ban(kept, OTHER) == [
        "192.0.2.1/32: is never banned: an address of this host; --force bans it all the same"
    ]
    kept.keeper._addresses_changed(frozenset())
    assert ban(kept, OTHER) == []


def test_who_is_protected_is_followed(kept: Kept) -> None:
    """So is a new gateway, say: what touches it is let in, with the reason for the next try."""
    kept.keeper.mount()
    ban(kept, "192.0.2.0/24")
    kept.keeper._protected_changed({ip_network(OTHER): "a gateway"})

    assert kept.banned() == set()
    assert "a gateway" in ban(kept, OTHER)[0]


def test_a_new_configuration_is_in_force_at_once(kept: Kept) -> None:
    """The rules are put in anew; with the next look the lists too, and who is allowed is in."""
    kept.keeper.mount()
    ban(kept, OTHER)
    kept.keeper.configure(settings("192.0.2.0/24", limit=LimitSettings(mode=LimitMode.OFF)))
    asyncio.run(kept.keeper.lists.refresh())

    assert kept.banned() == set()
    assert ip_network("192.0.2.0/24") in kept.backend.rolls[Roll.ALLOW]
    assert kept.backend.rolls[Roll.DENY] == frozenset()
    assert kept.backend.plan.limit.mode is LimitMode.OFF


def test_rules_that_cannot_be_put_in_place_are_an_alarm(kept: Kept) -> None:
    """It names what the firewall said, and is over when they are in."""
    kept.keeper.mount()
    kept.backend.gone = FirewallError("no answer")
    kept.keeper.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OFF)))
    assert ("firewall", "plan") in {(alarm.name, alarm.subject) for alarm in kept.keeper.alarms.up}

    kept.backend.gone = None
    kept.keeper.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OBSERVE)))
    assert kept.keeper.alarms.up == []


def test_who_was_exempt_while_it_was_off_is_let_go(kept: Kept) -> None:
    """Switched off and on, what came to be allowed meanwhile is not put back."""
    kept.keeper.mount()
    ban(kept, OTHER, "192.0.2.2")
    kept.enforcer.switch_off()
    kept.keeper._addresses_changed(frozenset({ip_network(OTHER)}))
    kept.keeper.switch_on()

    assert kept.banned() == {"192.0.2.2/32"}


def test_what_another_firewall_left_is_tried_again_when_it_is_switched_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be taken away is an alarm with the mend, and over when the mend has worked."""

    def refuse(_kept: str) -> list[str]:
        raise FirewallError("no right")

    kept.backend.enforces = True
    monkeypatch.setattr("ringfence.bans.enforce.verify", lambda *_: None)  # nothing here drops a packet
    monkeypatch.setattr("ringfence.keeper.flush_the_other", refuse)
    kept.keeper.mount()
    [alarm] = kept.keeper.alarms.up
    assert alarm.text.endswith("no right; mend, as root: ringfence off, ringfence on")

    monkeypatch.setattr("ringfence.keeper.flush_the_other", lambda _kept: [])
    kept.enforcer.switch_off()
    kept.keeper.switch_on()
    assert kept.keeper.alarms.up == []


class Flooded:
    """What a firewall says of its limiter."""

    def __init__(self, made: Kept) -> None:
        self.flooders: Sequence[Flooder] = ()
        self.full = 0
        self.error: FirewallError | None = None
        made.backend.flooding = self.flooding  # type: ignore[method-assign]  # no kernel limits here
        made.backend.usage = self.usage  # type: ignore[method-assign]

    def flooding(self) -> Sequence[Flooder]:
        """Give who was over the limit, or fail."""
        if self.error is not None:
            raise self.error
        return self.flooders

    def usage(self) -> Usage:
        """Give the counters, or fail."""
        if self.error is not None:
            raise self.error
        return Usage(limiter_full=self.full)


def test_a_flooder_is_told_of_for_each_second_that_he_goes_on(kept: Kept) -> None:
    """Only who has sent more since the last look; where the limiter only observes nobody is told of."""
    limiter = Flooded(kept)
    kept.keeper.mount()
    one, other = ip_network("192.0.2.1"), ip_network("2001:db8::/64")
    limiter.flooders = [Flooder(one, 10)]
    kept.keeper._look_at_limiter()
    assert kept.flooded == []

    kept.backend.plan = evolve(kept.backend.plan, limit=Limit(LimitMode.ENFORCE))
    for flooders in ([Flooder(one, 10)], [Flooder(one, 10), Flooder(other, 1)], [Flooder(one, 11)]):
        limiter.flooders = flooders
        kept.keeper._look_at_limiter()
    assert kept.flooded == [one, other, one]

    limiter.error = FirewallError("no answer")
    kept.keeper._look_at_limiter()
    assert [alarm.subject for alarm in kept.keeper.alarms.up] == ["flooding"]
    kept.enforcer.switch_off()
    kept.keeper._look_at_limiter()
    assert len(kept.flooded) == 3


def test_a_limiter_without_room_is_an_alarm(kept: Kept) -> None:
    """For as long as there are more packets for which it had none."""
    limiter = Flooded(kept)
    kept.keeper.mount()
    asyncio.run(kept.keeper.usage())
    assert kept.keeper.alarms.up == []
    for full in (5, 5, 6):
        limiter.full = full
        asyncio.run(kept.keeper.usage())

    assert [(alarm.name, alarm.subject, alarm.times) for alarm in kept.keeper.alarms.up] == [
        ("limiter", "full", 2)
    ]


def test_counters_that_cannot_be_read_are_an_alarm(kept: Kept) -> None:
    """Nothing is claimed of them; the alarm is over with the next answer."""
    limiter = Flooded(kept)
    kept.keeper.mount()
    limiter.error = FirewallError("no answer")
    assert asyncio.run(kept.keeper.usage()) == Usage()
    assert [alarm.subject for alarm in kept.keeper.alarms.up] == ["usage"]
    limiter.error = None
    asyncio.run(kept.keeper.usage())

    assert kept.keeper.alarms.up == []


# -- friends ----------------------------------------------------------------------------------------------

PHONE = Friend("pbx", ip_address(OTHER), "alice", Tie.AUTHENTICATED, START, START, START + 7_200)


def waits(made: Kept) -> tuple[LimitMode, bool, bool]:
    """Give what the limiter does, whether it is told that it waits, and whether rules do."""
    return made.backend.plan.limit.mode, made.keeper.limiter_waits, not made.keeper.friends_known


def test_friends_of_before_are_in_the_kernel_when_the_guard_is_mounted(tmp_path: Path) -> None:
    """They pass the limiter from the first packet on, and so it enforces at once."""
    with kept(tmp_path, ENFORCED) as made:
        made.store.remember_friends([PHONE])
        made.keeper.mount()

        assert made.backend.rolls[Roll.FRIENDS] == {ip_network(OTHER)}
        assert waits(made) == (LimitMode.ENFORCE, False, True)
        assert made.keeper.friends.friends.is_proven(PHONE.address)


def test_the_limiter_drops_nothing_before_friends_are_known(tmp_path: Path) -> None:
    """It observes, and that is told, until every Asterisk has given its roster; off stays off."""
    with kept(tmp_path, ENFORCED) as made:
        made.keeper.mount()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        rostered: list[str] = []
        made.keeper.friends.known.begin(lambda: [Ear(since=0.0, rostered=bool(rostered))], 0.0)
        made.keeper._replan()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        rostered.append("pbx")
        made.keeper._replan()

        assert waits(made) == (LimitMode.ENFORCE, False, False)
        made.keeper.configure(settings(limit=LimitSettings(mode=LimitMode.OFF)))
        assert waits(made) == (LimitMode.OFF, False, False)


def test_friends_that_cannot_be_read_keep_nobody_from_his_post(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard is mounted without them, and what is wrong with the store is shown."""

    def fail(*_: object) -> list[Friend]:
        raise StoreError("broken")

    with kept(tmp_path, ENFORCED) as made:
        monkeypatch.setattr(made.store, "friends", fail)
        made.keeper.mount()

        assert waits(made) == (LimitMode.OBSERVE, True, True)
        assert made.enforcer.enforcing


def test_a_new_friend_is_in_the_kernel_soon(kept: Kept) -> None:
    """While it runs the roll follows, and what does not change it is not written; switched off it waits."""
    friends = kept.keeper.friends
    fills: list[frozenset[str]] = []
    fill = kept.backend.fill

    def count(roll: Roll, networks: Iterable[Network]) -> None:
        fill(roll, networks)
        if roll is Roll.FRIENDS:
            fills.append(frozenset(map(str, kept.backend.rolls[Roll.FRIENDS])))

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(kept.keeper._keep_friends())
            friends.take([PHONE])
            await asyncio.sleep(0.01)
            friends.take([evolve(PHONE, seen=START + 1)])
            await asyncio.sleep(0.2)
            friends.forget(PHONE.address)
            await asyncio.sleep(0.2)
            kept.enforcer.switch_off()
            friends.take([PHONE])
            await asyncio.sleep(0.2)
            kept.keeper.switch_on()
            task.cancel()

    kept.keeper.mount()
    kept.backend.fill = count  # type: ignore[method-assign]
    asyncio.run(run())
    assert list(dict.fromkeys(fills)) == [frozenset({f"{OTHER}/32"}), frozenset()]
    assert fills[:2] == [frozenset({f"{OTHER}/32"}), frozenset()]
    assert fills[-1] == frozenset({f"{OTHER}/32"})


def test_bans_are_looked_up_for_new_friends_alone(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for each of ten thousand takes longer than many bans. Switched on again, all are new."""
    friends = kept.keeper.friends
    asked: list[set[str]] = []
    monkeypatch.setattr("ringfence.keeper.spare", lambda _, new: asked.append(set(map(str, new))))
    others = [evolve(PHONE, address=ip_address(f"198.18.7.{last}")) for last in (1, 2)]

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(kept.keeper._keep_friends())
            for number, friend in enumerate([PHONE, *others], 1):
                friends.take([friend])
                while len(asked) < number:  # noqa: ASYNC110 - it takes turns with what is tested
                    await asyncio.sleep(0.01)
                if friend is others[0]:
                    kept.enforcer.switch_off()
                    kept.keeper.switch_on()
            task.cancel()

    kept.keeper.mount()
    asyncio.run(run())
    assert asked == [{OTHER}, {"198.18.7.1"}, {OTHER, "198.18.7.1", "198.18.7.2"}]


def test_no_more_friends_go_to_the_kernel_than_a_set_holds(tmp_path: Path) -> None:
    """With a small set some pass the limiter, instead of none."""
    small = settings()
    few = evolve(small, firewall=evolve(small.firewall, max_bans=SetSize(1_024)))
    with kept(tmp_path, few) as made:
        made.keeper.friends.take(
            evolve(PHONE, address=ip_address(f"10.0.{n // 250}.{n % 250 + 1}")) for n in range(250)
        )
        for account in range(8):
            made.keeper.friends.take(
                evolve(PHONE, address=ip_address(f"10.{account + 1}.0.{n}"), account=str(account))
                for n in range(1, 251)
            )
        made.keeper.mount()

        assert len(made.backend.rolls[Roll.FRIENDS]) == 1_024


def test_the_names_of_trunks_are_followed_beside_those_of_the_lists(kept: Kept) -> None:
    """Neither side takes the other's away, and both are told where they lead."""
    kept.keeper.mount()
    trunk = TrunkHost("pbx", Service.PJSIP, "carrier", "sip.example", None, Transport.UDP)
    kept.keeper._follow("lists", frozenset({"office.example"}))
    kept.keeper.friends.roster(Roster("pbx", (), (trunk,)))
    assert set(kept.keeper._names._names) == {"office.example", "sip.example"}

    kept.keeper._names_changed({"sip.example": frozenset({ip_network(OTHER)})})
    [friend] = kept.keeper.friends.friends.reasons(PHONE.address)
    assert (friend.tie, friend.account) == (Tie.TRUNK, "carrier")
    kept.keeper._follow("lists", frozenset())
    assert set(kept.keeper._names._names) == {"sip.example"}


def test_where_trunks_names_led_is_known_while_no_dns_answers(tmp_path: Path) -> None:
    """What the last daemon knew of a name is a friend as soon as Asterisk has told of the trunk."""
    with kept(tmp_path) as made:
        made.enforcer.records.name_answers({"sip.example": frozenset({ip_network(OTHER)})})
        made.keeper = Kept(made.store, settings()).keeper
        made.keeper.enforcer.backend = made.backend
        made.keeper.mount()
        trunk = TrunkHost("pbx", Service.PJSIP, "carrier", "sip.example", None, Transport.UDP)
        made.keeper.friends.roster(Roster("pbx", (), (trunk,)))

        assert made.keeper.friends.friends.is_proven(PHONE.address)


def test_this_hosts_own_address_is_no_friend(kept: Kept) -> None:
    """A contact that names the PBX itself makes nobody a friend."""
    kept.keeper.mount()
    kept.keeper.friends.take([evolve(PHONE, address=ip_address("198.18.0.1"))])

    assert len(kept.keeper.friends.friends) == 0
