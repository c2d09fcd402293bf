"""The firewall side of the daemon: exempt addresses, kernel lists, and periodic checks."""

import asyncio
from collections.abc import Generator, Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.attempts import ban_of
from tests.support.kept import Kept, kept, settings
from tests.support.world import START

from ringfence.config.converters import Interface, SetSize
from ringfence.config.schema import LimitSettings
from ringfence.errors import FirewallError, HostError, StoreError
from ringfence.firewall.contract import Counters, Flooder, Limit, LimitMode, NetworkList
from ringfence.firewall.probe import Verification
from ringfence.friends.readiness import SourceReadiness
from ringfence.model import Ban, Friend, FriendReason, Network, Origin, Roster, Service, Transport, TrunkHost

OFFICE, OTHER = "198.51.100.0/24", "192.0.2.1"
ENFORCED = settings(limit=LimitSettings(mode=LimitMode.ENFORCE))


@pytest.fixture(name="kept")
def _kept(tmp_path: Path) -> Iterator[Kept]:
    """Return a keeper with lists, not yet mounted."""
    with kept(tmp_path, settings(OFFICE, denied=("203.0.113.0/24",))) as made:
        yield made


def ban(made: Kept, *texts: str, force: bool = False) -> list[str]:
    """Place a ban by hand for an hour."""
    return made.enforcer.ban([ip_network(text) for text in texts], 3_600.0, "", force=force)


def test_the_guard_is_mounted_with_its_lists(kept: Kept) -> None:
    """Mounting puts the lists into the kernel and restores no ban of an allowed address or of this host."""
    own = ip_network("198.18.0.1")
    for text in (OTHER, "198.51.100.7"):
        kept.store.record([ban_of(text, START)])
    kept.store.record([Ban(own, START, START + 60, "admin", "", Origin.ADMIN)])
    kept.keeper.mount()

    assert kept.banned() == {f"{OTHER}/32"}
    assert kept.backend.lists[NetworkList.ALLOW] >= {ip_network(OFFICE)}
    assert kept.backend.lists[NetworkList.DENY] == {ip_network("203.0.113.0/24")}
    assert kept.detector.exempt.covers(own.network_address)
    assert kept.keeper.problems == []


def test_a_failure_to_read_own_addresses_does_not_end_the_start(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If rtnetlink fails, the error is a problem, and the guard is mounted; the daemon reads again later."""

    def fail() -> frozenset[Network]:
        raise HostError("this host's own addresses cannot be read by rtnetlink: no buffer space")

    monkeypatch.setattr("ringfence.daemon.keeper.read_addresses", fail)
    kept.store.record([ban_of(OTHER, START)])
    kept.keeper.mount()

    assert kept.banned() == {f"{OTHER}/32"}
    assert kept.keeper.problems == ["this host's own addresses cannot be read by rtnetlink: no buffer space"]


def test_an_interface_that_is_not_there_is_told(kept: Kept) -> None:
    """A configured interface that does not exist is a problem: nothing would be dropped on it."""
    wanted = settings()
    named = evolve(wanted.firewall, interfaces=(Interface("lo"), Interface("nosuch0")))
    kept.keeper.configure(evolve(wanted, firewall=named))

    assert kept.keeper.problems == [
        "[firewall] interfaces: there is no nosuch0 here; what comes by others is not dropped"
    ]


def test_own_addresses_are_followed(kept: Kept) -> None:
    """A new own address is unbanned and never banned; after the host loses it, it can be banned."""
    kept.keeper.mount()
    ban(kept, OTHER)
    kept.keeper._addresses_changed(frozenset({ip_network(OTHER)}))

    assert kept.banned() == set()
    assert ban(kept, OTHER) == [
        "192.0.2.1/32: is never banned: an address of this host; --force bans it anyway"
    ]
    kept.keeper._addresses_changed(frozenset())
    assert ban(kept, OTHER) == []


def test_who_is_protected_is_followed(kept: Kept) -> None:
    """A new protected address, such as a gateway, ends bans that touch it and is the reason of a refusal."""
    kept.keeper.mount()
    ban(kept, "192.0.2.0/24")
    kept.keeper._protected_changed({ip_network(OTHER): "a gateway"})

    assert kept.banned() == set()
    assert "a gateway" in ban(kept, OTHER)[0]


def test_a_new_configuration_is_in_force_at_once(kept: Kept) -> None:
    """A new configuration changes rules at once, and lists with the next refresh, which also unbans."""
    kept.keeper.mount()
    ban(kept, OTHER)
    kept.keeper.configure(settings("192.0.2.0/24", limit=LimitSettings(mode=LimitMode.OFF)))
    asyncio.run(kept.keeper.lists.refresh())

    assert kept.banned() == set()
    assert ip_network("192.0.2.0/24") in kept.backend.lists[NetworkList.ALLOW]
    assert kept.backend.lists[NetworkList.DENY] == frozenset()
    assert kept.backend.plan.limit.mode is LimitMode.OFF


def test_rules_that_cannot_be_put_in_place_are_an_alarm(kept: Kept) -> None:
    """Rules that the firewall refuses are an alarm with the firewall's error, until they are in place."""
    kept.keeper.mount()
    kept.backend.gone = FirewallError("no answer")
    kept.keeper.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OFF)))
    assert "firewall.not_changed" in {alarm.code for alarm in kept.keeper.alarms.active}

    kept.backend.gone = None
    kept.keeper.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OBSERVE)))
    assert kept.keeper.alarms.active == []


def test_who_was_exempt_while_it_was_off_is_let_go(kept: Kept) -> None:
    """An address that became exempt while enforcement was off is not banned when it is switched on."""
    kept.keeper.mount()
    ban(kept, OTHER, "192.0.2.2")
    kept.enforcer.switch_off()
    kept.keeper._addresses_changed(frozenset({ip_network(OTHER)}))
    kept.keeper.switch_on()

    assert kept.banned() == {"192.0.2.2/32"}


def test_what_another_firewall_left_is_tried_again_when_it_is_switched_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another backend's rules cannot be removed, an alarm names the fix and clears when it worked."""

    def refuse(_kept: str) -> list[str]:
        raise FirewallError("no right")

    kept.backend.enforces = True
    # This backend drops no packet.
    monkeypatch.setattr("ringfence.bans.enforcer.verify", lambda *_: Verification(()))
    monkeypatch.setattr("ringfence.daemon.keeper.flush_other_backends", refuse)
    kept.keeper.mount()
    [alarm] = kept.keeper.alarms.active
    assert alarm.text.endswith("no right; fix, as root: ringfence off, ringfence on")

    monkeypatch.setattr("ringfence.daemon.keeper.flush_other_backends", lambda _kept: [])
    kept.enforcer.switch_off()
    kept.keeper.switch_on()
    assert kept.keeper.alarms.active == []


class Flooded:
    """A firewall with a limiter whose reports a test sets."""

    def __init__(self, made: Kept) -> None:
        self.flooders: Sequence[Flooder] = ()
        self.full = 0
        self.error: FirewallError | None = None
        made.backend.flooders = self.flooding  # type: ignore[method-assign]  # no kernel limits here
        made.backend.counters = self.usage  # type: ignore[method-assign]

    def flooding(self) -> Sequence[Flooder]:
        """Return the senders over the limit, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.flooders

    def usage(self) -> Counters:
        """Return the counters, or raise the error."""
        if self.error is not None:
            raise self.error
        return Counters(limiter_full=self.full)


def test_a_flooder_is_told_of_for_each_second_that_he_goes_on(kept: Kept) -> None:
    """A sender is reported for each second in which its drops grow, and only if the limiter enforces."""
    limiter = Flooded(kept)
    kept.keeper.mount()
    one, other = ip_network("192.0.2.1"), ip_network("2001:db8::/64")
    limiter.flooders = [Flooder(one, 10)]
    kept.keeper._check_limiter()
    assert kept.flooded == []

    kept.backend.plan = evolve(kept.backend.plan, limit=Limit(LimitMode.ENFORCE))
    for flooders in ([Flooder(one, 10)], [Flooder(one, 10), Flooder(other, 1)], [Flooder(one, 11)]):
        limiter.flooders = flooders
        kept.keeper._check_limiter()
    assert [flooder.network for flooder in kept.flooded] == [one, other, one]
    limiter.flooders = [Flooder(one, 11), Flooder(one, 11, tcp=True)]
    kept.keeper._check_limiter()
    assert kept.flooded[3:] == [Flooder(one, 11, tcp=True)]

    limiter.error = FirewallError("no answer")
    kept.keeper._check_limiter()
    assert [alarm.code for alarm in kept.keeper.alarms.active] == ["limiter.unreadable"]
    kept.enforcer.switch_off()
    kept.keeper._check_limiter()
    assert len(kept.flooded) == 4


def test_a_limiter_without_room_is_an_alarm(kept: Kept) -> None:
    """A full limiter raises the alarm each time that more packets found no room."""
    limiter = Flooded(kept)
    kept.keeper.mount()
    asyncio.run(kept.keeper.counters())
    assert kept.keeper.alarms.active == []
    for full in (5, 5, 6):
        limiter.full = full
        asyncio.run(kept.keeper.counters())

    assert [(alarm.code, alarm.times) for alarm in kept.keeper.alarms.active] == [("limiter.full", 2)]


def test_counters_that_cannot_be_read_are_an_alarm(kept: Kept) -> None:
    """Unreadable counters are zero and an alarm, which clears with the next answer."""
    limiter = Flooded(kept)
    kept.keeper.mount()
    limiter.error = FirewallError("no answer")
    assert asyncio.run(kept.keeper.counters()) == Counters()
    assert [alarm.code for alarm in kept.keeper.alarms.active] == ["firewall.counters"]
    limiter.error = None
    asyncio.run(kept.keeper.counters())

    assert kept.keeper.alarms.active == []


# -- friends ----------------------------------------------------------------------------------------------

PHONE = Friend("pbx", ip_address(OTHER), "alice", FriendReason.AUTHENTICATED, START, START, START + 7_200)


def waits(made: Kept) -> tuple[LimitMode, bool, bool]:
    """Return the limiter's mode, whether the limiter waits, and whether the rules wait."""
    return made.backend.plan.limit.mode, made.keeper.limiter_waits, not made.keeper.friends_known


def test_friends_of_before_are_in_the_kernel_when_the_guard_is_mounted(tmp_path: Path) -> None:
    """Stored friends are in the kernel at mount and pass the limiter, so it enforces at once."""
    with kept(tmp_path, ENFORCED) as made:
        made.store.remember_friends([PHONE])
        made.keeper.mount()

        assert made.backend.lists[NetworkList.FRIENDS] == {ip_network(OTHER)}
        assert waits(made) == (LimitMode.ENFORCE, False, True)
        assert made.keeper.friends.friends.is_proven(PHONE.address)


def test_the_limiter_drops_nothing_before_friends_are_known(tmp_path: Path) -> None:
    """The limiter observes and reports a wait until every Asterisk sent its roster; off stays off."""
    with kept(tmp_path, ENFORCED) as made:
        made.keeper.mount()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        roster_ready: list[str] = []
        made.keeper.friends.startup.begin(
            lambda: [SourceReadiness(since=0.0, roster_ready=bool(roster_ready))], 0.0
        )
        made.keeper._replan()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        roster_ready.append("pbx")
        made.keeper._replan()

        assert waits(made) == (LimitMode.ENFORCE, False, False)
        made.keeper.configure(settings(limit=LimitSettings(mode=LimitMode.OFF)))
        assert waits(made) == (LimitMode.OFF, False, False)


def test_friends_that_cannot_be_read_keep_nobody_from_his_post(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the friends cannot be read, the guard is mounted without them, and the limiter observes."""

    def fail(*_: object) -> list[Friend]:
        raise StoreError("broken")

    with kept(tmp_path, ENFORCED) as made:
        monkeypatch.setattr(made.store, "friends", fail)
        made.keeper.mount()

        assert waits(made) == (LimitMode.OBSERVE, True, True)
        assert made.enforcer.enforcing


def test_a_new_friend_is_in_the_kernel_soon(kept: Kept) -> None:
    """The kernel's friends follow changes; unchanged friends are not written, and `off` stops writes."""
    friends = kept.keeper.friends
    fills: list[frozenset[str]] = []
    filling = kept.backend.replace_list_in_steps

    def count(which: NetworkList, networks: Iterable[Network]) -> Generator[None, None, None]:
        yield from filling(which, networks)
        if which is NetworkList.FRIENDS:
            fills.append(frozenset(map(str, kept.backend.lists[NetworkList.FRIENDS])))

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(kept.keeper._update_friends())
            friends.add([PHONE])
            await asyncio.sleep(0.01)
            friends.add([evolve(PHONE, seen=START + 1)])
            await asyncio.sleep(0.2)
            friends.forget(PHONE.address)
            await asyncio.sleep(0.2)
            kept.enforcer.switch_off()
            friends.add([PHONE])
            await asyncio.sleep(0.2)
            kept.keeper.switch_on()
            task.cancel()

    kept.keeper.mount()
    kept.backend.replace_list_in_steps = count  # type: ignore[method-assign]
    asyncio.run(run())
    assert list(dict.fromkeys(fills)) == [frozenset({f"{OTHER}/32"}), frozenset()]
    assert fills[:2] == [frozenset({f"{OTHER}/32"}), frozenset()]
    assert fills[-1] == frozenset({f"{OTHER}/32"})


def test_bans_are_looked_up_for_new_friends_alone(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bans are looked up for new friends only, as each look-up is slow; after `on` all friends are new."""
    friends = kept.keeper.friends
    asked: list[set[str]] = []
    monkeypatch.setattr(
        "ringfence.daemon.keeper.unban_friends", lambda _, new: asked.append(set(map(str, new)))
    )
    others = [evolve(PHONE, address=ip_address(f"198.18.7.{last}")) for last in (1, 2)]

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(kept.keeper._update_friends())
            for number, friend in enumerate([PHONE, *others], 1):
                friends.add([friend])
                while len(asked) < number:  # noqa: ASYNC110 - it takes turns with what is tested
                    await asyncio.sleep(0.01)
                if friend is others[0]:
                    kept.enforcer.switch_off()
                    kept.keeper.switch_on()
            task.cancel()

    kept.keeper.mount()
    asyncio.run(run())
    assert asked == [{OTHER}, {"198.18.7.1"}, {OTHER, "198.18.7.1", "198.18.7.2"}]


def test_no_more_of_a_list_goes_to_the_kernel_than_a_set_holds(tmp_path: Path) -> None:
    """A list that exceeds the set size is cut, and a problem names the limit; a larger set takes all."""
    networks = [ip_network((0x0B000000 + 2 * n, 32)) for n in range(1_100)]
    texts = tuple(map(str, networks))
    small = settings(*texts, denied=texts)
    few = evolve(small, firewall=evolve(small.firewall, max_bans=SetSize(1_024)))
    with kept(tmp_path, few) as made:
        made.keeper.mount()
        for roll in (NetworkList.DENY, NetworkList.ALLOW):
            assert made.backend.lists[roll] >= set(networks[:1_024])
            assert not made.backend.lists[roll] & set(networks[1_024:])
        assert [problem for problem in made.keeper.problems if "max_bans" in problem] == [
            f"{side} list: 1100 networks, of which the first 1024 are in force: raise [firewall] max_bans"
            for side in ("allow", "deny")
        ]
        assert "is allowed" in ban(made, str(networks[-1]))[0]

        made.keeper.configure(small)
        for roll in (NetworkList.DENY, NetworkList.ALLOW):
            assert made.backend.lists[roll] >= set(networks)
        assert made.keeper.problems == []


def test_no_more_friends_go_to_the_kernel_than_a_set_holds(tmp_path: Path) -> None:
    """If there are more friends than a set holds, as many as fit pass the limiter."""
    small = settings()
    few = evolve(small, firewall=evolve(small.firewall, max_bans=SetSize(1_024)))
    with kept(tmp_path, few) as made:
        made.keeper.friends.add(
            evolve(PHONE, address=ip_address(f"10.0.{n // 250}.{n % 250 + 1}")) for n in range(250)
        )
        for account in range(8):
            made.keeper.friends.add(
                evolve(PHONE, address=ip_address(f"10.{account + 1}.0.{n}"), account=str(account))
                for n in range(1, 251)
            )
        made.keeper.mount()

        assert len(made.backend.lists[NetworkList.FRIENDS]) == 1_024


def test_the_names_of_trunks_are_followed_beside_those_of_the_lists(kept: Kept) -> None:
    """The names of trunks and of lists are followed side by side, and each side receives its addresses."""
    kept.keeper.mount()
    trunk = TrunkHost("pbx", Service.PJSIP, "carrier", "sip.example", None, Transport.UDP)
    kept.keeper._follow("lists", frozenset({"office.example"}))
    kept.keeper.friends.on_roster(Roster("pbx", (), (trunk,)))
    assert set(kept.keeper._names._names) == {"office.example", "sip.example"}

    kept.keeper._names_changed({"sip.example": frozenset({ip_network(OTHER)})})
    [friend] = kept.keeper.friends.friends.reasons(PHONE.address)
    assert (friend.reason, friend.account) == (FriendReason.TRUNK, "carrier")
    kept.keeper._follow("lists", frozenset())
    assert set(kept.keeper._names._names) == {"sip.example"}


def test_where_trunks_names_led_is_known_while_no_dns_answers(tmp_path: Path) -> None:
    """While no DNS answers, a trunk's name has the addresses that the last daemon recorded for it."""
    with kept(tmp_path) as made:
        made.enforcer.records.name_answers({"sip.example": frozenset({ip_network(OTHER)})})
        made.keeper = Kept(made.store, settings()).keeper
        made.keeper.enforcer.backend = made.backend
        made.keeper.mount()
        trunk = TrunkHost("pbx", Service.PJSIP, "carrier", "sip.example", None, Transport.UDP)
        made.keeper.friends.on_roster(Roster("pbx", (), (trunk,)))

        assert made.keeper.friends.friends.is_proven(PHONE.address)


def test_this_hosts_own_address_is_no_friend(kept: Kept) -> None:
    """A contact that names the PBX's own address makes no friend."""
    kept.keeper.mount()
    kept.keeper.friends.add([evolve(PHONE, address=ip_address("198.18.0.1"))])

    assert len(kept.keeper.friends.friends) == 0
