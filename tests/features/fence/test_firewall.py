"""The fence in the daemon: when it drops, which senders it records as outside, and temporary admissions."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from tests.support import mmdb
from tests.support.clock import SetClock
from tests.support.kept import OFFICE, PHONE, Kept, kept, settings
from tests.support.tables import with_tables

from ringfence.config.converters import Paths, Region, SetSize
from ringfence.config.schema import Settings
from ringfence.errors import ControlError, FirewallError
from ringfence.features.fence import services
from ringfence.features.fence.firewall import Admitted, FenceState, fence_of, trial_of
from ringfence.features.fence.guard import UNKNOWN, FenceRequests, by_country
from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.features.fence.rows import rows
from ringfence.features.fence.services import Connection
from ringfence.features.fence.settings import FenceSettings, ServicePort
from ringfence.features.fence.stage import ALSO_OUTSIDERS, OUTSIDERS, FenceFilter
from ringfence.features.geo.settings import GeoSettings
from ringfence.features.limiter.settings import LimitSettings
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Opened, Remembered
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.ports import Ports
from ringfence.friends.startup import SourceReadiness
from ringfence.guard.facts import AddressFactsReader
from ringfence.host.names import ResolvedNames
from ringfence.values.friend import FriendReason

DAY = 86_400.0


def fenced(mode: LimitMode = LimitMode.ENFORCE, allowed: str = OFFICE) -> Settings:
    """Return a configuration with a fence that admits one network, and another that is allowed."""
    fence = FenceSettings(mode=mode, networks=(ip_network("203.0.113.0/24"),))
    return with_tables(settings(allowed), fence=fence)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Kept]:
    """Yield the parts with a fence that shall enforce, and friends that are known."""
    with kept(tmp_path, fenced()) as made:
        begin(made)
        yield made


def begin(made: Kept) -> None:
    """Start the parts; the friends are known."""
    made.side.start()
    made.side.exempt.friends.startup.update([SourceReadiness(since=0.0, roster_ready=True)], 0.0)
    second(made)


def second(made: Kept) -> None:
    """Do what the daemon does each second."""
    fence_of(made.side).check()
    made.side.kernel.rules.update()
    fence_of(made.side).forget_trial()
    fence_of(made.side).save()


def lead(made: Kept, address: str) -> None:
    """Let the DNS answer with this address of the road's name."""
    made.side.exempt.names._take("road.example.net", ResolvedNames(frozenset({ip_network(address)})), 0.0)


def enforced(made: Kept) -> None:
    """Start the fence, and keep it."""
    fence_of(made.side).start(60.0, force=True)
    fence_of(made.side).confirm()
    second(made)
    assert mode(made) is LimitMode.ENFORCE


def alarms(made: Kept) -> list[str]:
    """Return the codes of the present alarms of the fence."""
    return [str(alarm.code) for alarm in fence_of(made.side).alarms]


def mode(made: Kept) -> LimitMode:
    """Return the fence's mode in the firewall."""
    return made.backend.plan.mode("fence")


def test_it_observes_from_its_first_moment(tmp_path: Path) -> None:
    """When it began to observe is known before its first periodic check: phones may come earlier."""
    with kept(tmp_path, fenced()) as made:
        assert fence_of(made.side).summary()["observed"] is not None


def test_it_observes_a_day_before_it_drops(made: Kept) -> None:
    """A fence that shall enforce only observes; it can be started after a day, or by force."""
    fence = fence_of(made.side)
    assert (mode(made), alarms(made)) == (LimitMode.OBSERVE, ["fence.waits"])
    made.now += DAY - 1
    with pytest.raises(ControlError, match="must for a day"):
        fence.start(60.0, force=False)
    fence.start(60.0, force=True)
    second(made)
    assert (mode(made), alarms(made)) == (LimitMode.ENFORCE, ["fence.trial"])


def test_a_trial_ends_by_itself(made: Kept) -> None:
    """Unless it is confirmed, the fence only observes after the trial, and can be started again."""
    fence = fence_of(made.side)
    made.now += DAY
    assert fence.start(60.0, force=False) == made.now + 60
    second(made)
    assert mode(made) is LimitMode.ENFORCE
    made.now += 60
    second(made)
    assert (mode(made), alarms(made)) == (LimitMode.OBSERVE, ["fence.waits"])
    assert not fence.confirm()

    fence.start(60.0, force=False)
    assert fence.confirm()
    made.now += 3600
    second(made)
    assert (mode(made), alarms(made), fence.confirm()) == (LimitMode.ENFORCE, [], False)


def test_a_set_clock_makes_no_trial_longer(made: Kept) -> None:
    """A trial has its length although the wall clock was set back; an earlier end is no harm."""
    fence, mono = fence_of(made.side), made.clock.mono
    for step in (-7_200.0, 7_200.0):

        def wall(step: float = step) -> float:
            return made.now + step

        fence._clock = made.clock
        fence.start(60.0, force=True)
        second(made)
        assert mode(made) is LimitMode.ENFORCE
        fence._clock = SetClock(wall=wall, mono=mono)
        made.now += 60
        second(made)
        assert (mode(made), fence.summary()["left"]) == (LimitMode.OBSERVE, None)


def test_a_day_is_that_of_the_daemon(made: Kept) -> None:
    """A set wall clock and time without enforcement make no day; a restart keeps the time."""
    fence, mono = fence_of(made.side), made.clock.mono
    made.now += 7_200
    fence._clock = SetClock(wall=lambda: made.now + 10 * DAY, mono=mono)
    second(made)
    with pytest.raises(ControlError, match="observed for 2h, and must for a day"):
        fence.start(60.0, force=False)
    made.enforcer.switch_off()
    made.now += DAY
    second(made)
    again = Kept(made.store, fenced())
    made.store.state.set_switched_off(False)
    begin(again)
    assert fence_of(again.side).summary()["watched"] == 7_200


def test_a_restart_continues(made: Kept, tmp_path: Path) -> None:
    """A confirmed fence drops after a restart, as soon as the friends are known; a trial does not."""
    fence = fence_of(made.side)
    fence.start(60.0, force=True)
    fence.confirm()
    again = Kept(made.store, fenced())
    again.side.start()
    assert mode(again) is LimitMode.OBSERVE
    begin(again)
    assert mode(again) is LimitMode.ENFORCE

    end = fence_of(again.side).start(60.0, force=True)
    killed = Kept(made.store, fenced())
    begin(killed)
    assert mode(killed) is LimitMode.OBSERVE
    assert trial_of(made.store) is None

    fence_of(again.side).start(90.0, force=True)
    assert fence_of(again.side).end_trial()
    assert not fence_of(again.side).end_trial()
    assert (trial_of(made.store) or 0.0) >= end  # until the rules are in place
    last = Kept(made.store, fenced())
    begin(last)
    assert mode(last) is LimitMode.OBSERVE


def test_a_trial_is_recorded_until_the_kernel_drops_nothing_for_it(
    made: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that ends a trial if the daemon cannot, needs the record while the rules stay."""
    requests = FenceRequests(made.side)
    fence_of(made.side).start(60.0, force=True)
    second(made)
    made.now += 61

    def refused() -> Opened:
        raise FirewallError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(made.backend, "open", refused)
        for _ in range(2):
            requests._check()
            fence_of(made.side).end_admissions("alice")
            assert trial_of(made.store) is not None
    made.side.kernel.rules.update()
    requests._check()

    assert trial_of(made.store) is None


def test_another_mode_ends_it(made: Kept) -> None:
    """A fence that is switched to observe must be started again."""
    fence_of(made.side).start(60.0, force=True)
    fence_of(made.side).confirm()
    made.side.configure(fenced(LimitMode.OBSERVE))
    made.side.configure(fenced())
    assert mode(made) is LimitMode.OBSERVE
    assert made.backend.lists[INSIDE] == {ip_network("203.0.113.0/24")}
    made.side.configure(fenced(LimitMode.OFF))
    assert mode(made) is LimitMode.OFF
    with pytest.raises(ControlError, match='mode = "enforce"'):
        fence_of(made.side).start(60.0, force=True)
    assert fence_of(made.side).summary()["observed"] is None


def test_phones_from_outside_are_recorded(made: Kept) -> None:
    """A new friend is recorded once, unless the fence lets it in, or it came by DNS."""
    add = made.side.exempt.friends.add
    add([PHONE])
    add([PHONE])
    add([evolve(PHONE, reason=FriendReason.REGISTERED)])
    add([evolve(PHONE, address=ip_address("203.0.113.9"))])
    add([evolve(PHONE, address=ip_address("198.51.100.9"))])
    add([evolve(PHONE, address=ip_address("192.0.2.77"), reason=FriendReason.TRUNK)])

    [found] = fence_of(made.side).summary()["outside"]
    assert (found["account"], found["address"], found["reason"]) == ("alice", "192.0.2.1", "authenticated")


def test_former_friends_are_admitted(made: Kept) -> None:
    """A friend that has gone is on the list of admitted addresses, and is not recorded if it returns."""
    friends = made.side.exempt.friends
    friends.add([PHONE])
    made.now = PHONE.until + 1
    friends.expire()
    second(made)
    assert made.backend.lists[network_lists.ADMITTED] == {ip_network("192.0.2.1")}
    friends.add([evolve(PHONE, account="bob", since=made.now, seen=made.now, until=made.now + 60)])
    assert [one["account"] for one in fence_of(made.side).summary()["outside"]] == ["alice"]


def test_a_phone_may_change_its_address_within_its_64(made: Kept) -> None:
    """The /64 of a friend is admitted, and a friend at another address of it is not recorded."""
    for last in ("1", "2"):
        made.side.exempt.friends.add([evolve(PHONE, address=ip_address(f"2001:db8:1:2::{last}"))])
    second(made)
    assert made.backend.lists[network_lists.ADMITTED] == {ip_network("2001:db8:1:2::/64")}
    assert [one["address"] for one in fence_of(made.side).summary()["outside"]] == ["2001:db8:1:2::1"]


def test_an_address_is_admitted_for_a_time(made: Kept) -> None:
    """An address and the addresses of a host name are admitted until their end."""
    fence = fence_of(made.side)
    assert fence.admit("192.0.2.55", 3600.0) == made.now + 3600
    fence.admit("road.example.net", 7200.0)
    lead(made, "192.0.2.66")
    second(made)
    assert made.backend.lists[network_lists.ADMITTED] == {ip_network("192.0.2.55"), ip_network("192.0.2.66")}
    assert [fence.admits(ip_network(f"192.0.2.{last}")) for last in (55, 56)] == [True, False]
    made.now += 3600
    second(made)
    assert made.backend.lists[network_lists.ADMITTED] == {ip_network("192.0.2.66")}
    made.now += 3600
    second(made)
    assert made.backend.lists[network_lists.ADMITTED] == frozenset()
    for wrong in ("country DE", "AS64496", "0.0.0.0/0", "0.0.0.0/1", "2000::/3", "nonsense"):
        with pytest.raises(ControlError):
            fence.admit(wrong, 60.0)


def test_each_address_of_an_admitted_name_is_admitted(made: Kept) -> None:
    """If each answer of the DNS has another address of the name, all of them are admitted."""
    fence_of(made.side).admit("road.example.net", 7200.0)
    for address in ("192.0.2.66", "192.0.2.67"):
        lead(made, address)
        second(made)
    assert made.backend.lists[network_lists.ADMITTED] == {ip_network("192.0.2.66"), ip_network("192.0.2.67")}


@pytest.mark.parametrize("ahead", [365 * DAY, -365 * DAY])
def test_an_admission_keeps_the_rest_of_its_time_if_the_clock_is_set(made: Kept, ahead: float) -> None:
    """A clock that is wrong for a moment ends no admission; one that was made meanwhile has its length."""
    fence, networks = fence_of(made.side), made.backend.lists
    fence.admit("192.0.2.55", 3600.0)
    made.ahead = ahead
    second(made)
    fence.admit("192.0.2.56", 7200.0)
    made.ahead = 0.0
    second(made)
    assert networks[network_lists.ADMITTED] == {ip_network("192.0.2.55"), ip_network("192.0.2.56")}
    made.now += 3600
    second(made)
    assert networks[network_lists.ADMITTED] == {ip_network("192.0.2.56")}
    made.now += 3600
    second(made)
    assert networks[network_lists.ADMITTED] == frozenset()


def test_a_clock_that_was_slow_makes_no_admission_longer(made: Kept) -> None:
    """A host without a battery boots with a date in the past: what was recorded before has the right end."""
    fence, networks = fence_of(made.side), made.backend.lists
    made.ahead = -365 * DAY
    made.enforcer.now()
    right = made.now + 3600
    fence._state.admitted = [Admitted("192.0.2.55", right, since=made.now)]
    made.ahead = 0.0
    second(made)
    assert networks[network_lists.ADMITTED] == {ip_network("192.0.2.55")}
    made.now += 3600
    second(made)
    assert networks[network_lists.ADMITTED] == frozenset()


def test_a_lasting_link_admits_few_places(made: Kept) -> None:
    """The link of an account admits three addresses at once, and what others admit stays."""
    fence = fence_of(made.side)
    fence.admit("192.0.2.52", 7200.0)
    fence.admit("192.0.2.51", 3600.0, link="bob")
    for last in range(51, 55):
        fence.admit(f"192.0.2.{last}", 3600.0, link="alice")
    places = [(one["what"], one["link"]) for one in fence.summary()["admitted"]]
    assert places == [
        ("192.0.2.52", ""),
        ("192.0.2.51", "bob"),
        *((f"192.0.2.{last}", "alice") for last in range(52, 55)),
    ]
    made.now += 60
    assert fence.admit("192.0.2.52", 3600.0, link="alice") == made.now + 3600

    assert fence.end_admissions("alice") == ["192.0.2.53", "192.0.2.54", "192.0.2.52"]
    second(made)
    assert made.backend.lists[network_lists.ADMITTED] == {ip_network("192.0.2.51"), ip_network("192.0.2.52")}


def test_an_admission_ends_across_a_restart(made: Kept) -> None:
    """An admission whose time ends while the daemon is down is not in the lists of its next start."""
    fence = fence_of(made.side)
    made.now -= 3600
    fence.admit("192.0.2.55", 3600.0, link="alice")
    fence.admit("192.0.2.56", 3601.0, link="bob")
    later = Kept(made.store, fenced())
    assert later.side.kernel.lists.admitted == {ip_network("192.0.2.56")}
    begin(later)
    assert later.backend.lists[network_lists.ADMITTED] == {ip_network("192.0.2.56")}
    assert [one["link"] for one in fence_of(later.side).summary()["admitted"]] == ["bob"]


# -- other services


WEB, TFTP = ServicePort("443/tcp"), ServicePort("69/udp")


def also(*ports: ServicePort, ssh: bool = False) -> Settings:
    """Return a configuration with a fence that shall enforce, also at these ports of other services."""
    return with_tables(
        settings(OFFICE), fence=FenceSettings(mode=LimitMode.ENFORCE, also=ports, also_ssh=ssh)
    )


def closed(made: Kept) -> tuple[LimitMode, Ports, Ports]:
    """Return the fence's mode in the firewall, its ports of other services, and those that are closed."""
    found = made.backend.plan.find(FenceFilter)
    assert found is not None
    return found.mode, found.also, found.closed


def test_a_trial_closes_other_services(tmp_path: Path) -> None:
    """They are closed by a trial, open after it, and stay closed if it is confirmed."""
    web, none = Ports((), (443,)), Ports((), ())
    with kept(tmp_path, also(WEB)) as made:
        begin(made)
        fence = fence_of(made.side)
        assert closed(made) == (LimitMode.OBSERVE, web, none)
        fence.start(60.0, force=True)
        second(made)
        assert closed(made) == (LimitMode.ENFORCE, web, web)
        made.now += 60
        second(made)
        assert closed(made) == (LimitMode.OBSERVE, web, none)
        fence.start(60.0, force=True)
        fence.confirm()
        made.now += 60
        second(made)
        assert closed(made) == (LimitMode.ENFORCE, web, web)
        again = Kept(made.store, also(WEB))
        begin(again)
        assert closed(again) == (LimitMode.ENFORCE, web, web)


def test_no_trial_closes_a_port_that_may_be_of_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel lists no sockets, nobody knows where SSH answers; the settings can force the trial."""

    def refuse(_: int) -> None:
        raise OSError

    monkeypatch.setattr(services, "listening_sockets", refuse)
    with kept(tmp_path, also(WEB)) as made:
        begin(made)
        requests = FenceRequests(made.side)
        asyncio.run(requests._look_for_ssh())
        with pytest.raises(ControlError, match="also_ssh = true"):
            asyncio.run(requests._enforce({"seconds": 60.0, "force": True}))
        assert fence_of(made.side).mode is LimitMode.OBSERVE
        made.side.configure(also(WEB, ssh=True))
        asyncio.run(requests._enforce({"seconds": 60.0, "force": True}))
        assert fence_of(made.side).mode is LimitMode.ENFORCE


def test_another_service_needs_a_trial_of_its_own(tmp_path: Path) -> None:
    """A port that is added to a confirmed fence is only counted, until a trial that ends nothing else."""
    web, both, none = Ports((), (443,)), Ports((69,), (443,)), Ports((), ())
    with kept(tmp_path, also(WEB)) as made:
        begin(made)
        fence = fence_of(made.side)
        fence.start(60.0, force=True)
        fence.confirm()
        made.side.configure(also(WEB, TFTP))
        assert (closed(made), alarms(made)) == ((LimitMode.ENFORCE, both, web), ["fence.waits"])
        for _ in range(2):  # the second trial begins while the first one runs
            fence.start(60.0, force=True)
            second(made)
        assert (closed(made), alarms(made)) == ((LimitMode.ENFORCE, both, both), ["fence.trial"])
        made.now += 60
        second(made)
        assert (closed(made), alarms(made)) == ((LimitMode.ENFORCE, both, web), ["fence.waits"])
        fence.start(60.0, force=True)
        assert fence.confirm()
        second(made)
        assert (closed(made), alarms(made)) == ((LimitMode.ENFORCE, both, both), [])

        made.side.configure(also())
        assert closed(made) == (LimitMode.ENFORCE, none, none)
        made.side.configure(also(WEB, TFTP))
        assert closed(made) == (LimitMode.ENFORCE, both, none)


def test_ssh_stays_open_unless_forced(tmp_path: Path) -> None:
    """A port at which SSH answers is left out, with an alarm; the configuration can force it."""
    web, none = Ports((), (443,)), Ports((), ())
    with kept(tmp_path, also(WEB)) as made:
        begin(made)
        fence = fence_of(made.side)
        fence.leave_open(["443/tcp"])
        fence.start(60.0, force=True)
        fence.confirm()
        second(made)
        assert (closed(made), alarms(made)) == ((LimitMode.ENFORCE, none, none), ["fence.ssh"])
        again = Kept(made.store, also(WEB))  # it remembers this until the programs are asked again
        begin(again)
        assert (closed(again), alarms(again)) == ((LimitMode.ENFORCE, none, none), ["fence.ssh"])
        made.side.configure(also(WEB, ssh=True))
        fence.start(60.0, force=True)
        second(made)
        assert (closed(made), alarms(made)) == ((LimitMode.ENFORCE, web, web), ["fence.trial"])


def test_the_lines_about_other_services(tmp_path: Path) -> None:
    """They name the ports in the order of the settings, and what the fence does there."""
    with kept(tmp_path, also(WEB, TFTP)) as made:
        begin(made)
        fence = fence_of(made.side)
        fence.leave_open(["2222/tcp"])
        made.side.configure(also(WEB, ServicePort("2222/tcp"), TFTP, WEB))
        state = FenceRequests(made.side)._state() | {"packets": 0, "counts": True}

        def line(label: str = "also", **changes: object) -> str:
            return next(row.text for row in rows(state | changes, str) if row.label == label)

        assert line("open") == "2222/tcp: SSH answers there"
        assert line() == "443/tcp, 69/udp: packets from outside are only counted"
        assert line(counts=False) == "443/tcp, 69/udp: everybody reaches them"
        assert line(closed=[WEB, TFTP]) == "443/tcp, 69/udp: packets from outside are dropped"
        some = "packets from outside to 443/tcp are dropped, and to the others only counted"
        assert line(closed=[WEB]) == f"443/tcp, 69/udp: {some}"


def test_present_connections_from_outside_are_named(tmp_path: Path) -> None:
    """Those from outside are named, and those that a login alone lets in; that one is not cut."""
    login = ip_network("192.0.2.50")
    with kept(tmp_path, also(WEB)) as made:
        begin(made)
        why = "the remote host of a login (root on pts/0)"
        made.side.exempt.protected.set_part("logins", {login: why})
        made.side.exempt.networks.on_protected()
        second(made)
        sources = "192.0.2.51", "192.0.2.50", "198.51.100.9"
        connections = [Connection(ip_address(text), 443) for text in sources]
        assert [*FenceRequests(made.side)._connected(connections)] == [
            {"address": "192.0.2.50", "port": "443/tcp", "needed": why},
            {"address": "192.0.2.51", "port": "443/tcp", "needed": None},
        ]
        assert login in made.backend.lists[network_lists.ALLOW]


# -- networks of countries


def reread(made: Kept) -> None:
    """Read the databases of countries, and use their networks."""
    lists = made.side.exempt.lists
    lists.load()
    lists.read_databases()
    made.side.exempt.exemptions.on_lists_changed(lists.load())


def test_a_country_without_networks_only_observes(tmp_path: Path) -> None:
    """The fence drops nothing while a country has no networks; then its networks are in the kernel."""
    path = tmp_path / "geo.mmdb"
    wanted = with_tables(
        fenced(),
        fence=FenceSettings(LimitMode.ENFORCE, (), (Region("DE"),)),
        geo=GeoSettings(database=Paths((path,))),
    )
    with kept(tmp_path, wanted) as made:
        begin(made)
        assert alarms(made) == ["fence.waits", "fence.incomplete"]
        with pytest.raises(ControlError, match="has no networks"):
            fence_of(made.side).start(60.0, force=True)
        mmdb.write(path, [("192.0.2.0/24", {"country": {"iso_code": "DE"}})])
        reread(made)
        fence_of(made.side).start(60.0, force=True)
        second(made)

        assert (mode(made), alarms(made)) == (LimitMode.ENFORCE, ["fence.trial"])
        assert made.backend.lists[INSIDE] == {ip_network("192.0.2.0/24")}


def test_a_cut_database_only_observes(tmp_path: Path) -> None:
    """If one of two databases is cut at the start, the fence drops nothing."""
    record = {"country": {"iso_code": "DE"}}
    whole = mmdb.write(tmp_path / "v4.mmdb", [("192.0.2.0/24", record)])
    cut = mmdb.write(tmp_path / "v6.mmdb", [("2001:db8::/32", record)], aliases=False)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    wanted = with_tables(
        fenced(),
        fence=FenceSettings(LimitMode.ENFORCE, (), (Region("DE"),)),
        geo=GeoSettings(database=Paths((whole, cut))),
    )
    with kept(tmp_path, wanted) as made:
        begin(made)
        with pytest.raises(ControlError, match="its database is unreadable"):
            fence_of(made.side).start(60.0, force=True)
        cut.write_bytes(content)
        reread(made)
        enforced(made)
        # A database that breaks later is no gap: its earlier networks stay.
        cut.write_bytes(b"")
        reread(made)
        second(made)
        assert mode(made) is LimitMode.ENFORCE


def test_damaged_lists_are_written_before_it_drops(made: Kept) -> None:
    """After damage, and after `off` and `on`, the fence drops nothing until its lists are written."""
    enforced(made)
    found: list[tuple[LimitMode, bool]] = []
    opening = made.backend.open

    def opened() -> Opened:
        found.append((made.backend.plan.mode("fence"), not made.enforcer.filler.incomplete))
        return opening()

    made.backend.open = opened  # type: ignore[method-assign]
    made.backend.trouble = "somebody flushed the ruleset"
    made.side.kernel.reconciler.check()
    second(made)
    made.enforcer.switch_off()
    with pytest.raises(ControlError, match="ringfence on"):
        fence_of(made.side).start(60.0, force=True)
    made.side.kernel.manager.switch_on()
    second(made)
    assert [mode for mode, _ in found] == [LimitMode.OBSERVE, LimitMode.ENFORCE] * 2
    assert all(whole for mode, whole in found if mode is LimitMode.ENFORCE)


def test_a_refused_list_only_observes(made: Kept) -> None:
    """While the kernel refuses a list of admitted networks, the fence drops nothing."""
    enforced(made)
    made.backend.unfillable = FirewallError("no memory")
    made.enforcer.filler.fill(INSIDE)
    second(made)
    assert (mode(made), alarms(made)) == (LimitMode.OBSERVE, ["fence.incomplete"])
    made.backend.unfillable = None
    made.enforcer.filler.fill(INSIDE)
    second(made)
    assert (mode(made), alarms(made)) == (LimitMode.ENFORCE, [])


def test_a_cut_allow_list_only_observes(tmp_path: Path) -> None:
    """If the kernel has no room for the whole allow list, the fence drops nothing, and reports it."""
    few = settings(*(f"10.0.{n >> 8}.{n & 255}" for n in range(0, 4_096, 2)))
    wanted = evolve(fenced(), allow=few.allow, firewall=evolve(few.firewall, max_bans=SetSize(1_024)))
    with kept(tmp_path, wanted) as made:
        begin(made)
        with pytest.raises(ControlError, match="raise max_bans"):
            fence_of(made.side).start(60.0, force=True)
        found = fence_of(made.side).summary()
        assert (found["whole"], len(found["gaps"])) == (False, 1)
        made.side.configure(evolve(wanted, firewall=few.firewall))
        fence_of(made.side).start(60.0, force=True)
        second(made)
        assert (mode(made), fence_of(made.side).summary()["whole"]) == (LimitMode.ENFORCE, True)


def test_the_summary_has_the_mode_and_the_rest_of_a_trial(made: Kept) -> None:
    """A trial of ten minutes has 600 seconds left at its start; switched off, the mode is off."""
    made.now += 0.123
    fence_of(made.side).start(600.0, force=True)
    second(made)
    found = fence_of(made.side).summary()
    assert (found["mode"], found["enforcing"], found["left"]) == ("enforce", True, 600)
    made.now += 0.25
    assert fence_of(made.side).summary()["left"] == 600
    made.enforcer.switch_off()
    found = fence_of(made.side).summary()
    assert (found["mode"], found["enforcing"]) == ("off", False)


def test_a_fence_waits_for_the_friends(tmp_path: Path) -> None:
    """The fence observes until every Asterisk sent its roster, and reports it, without a limiter too."""
    unlimited = settings(limit=LimitSettings(mode=LimitMode.OFF)).firewall
    with kept(tmp_path, evolve(fenced(), firewall=unlimited)) as made:
        made.side.start()
        rules = made.side.kernel.rules
        fence_of(made.side).start(60.0, force=True)
        rules.update()
        before = mode(made), rules.waiting
        made.side.exempt.friends.startup.update([SourceReadiness(since=0.0, roster_ready=True)], 0.0)
        rules.update()
        after = mode(made), rules.waiting

    assert before == (LimitMode.OBSERVE, {"asking", "fence"})
    assert after == (LimitMode.ENFORCE, set())


def test_without_a_fence_an_address_is_admitted_too(tmp_path: Path) -> None:
    """While the fence is off, an admitted address is in the kernel, to pass what machines deny."""
    with kept(tmp_path) as made:
        made.side.start()
        fence_of(made.side).admit("203.0.113.7", 60.0)
        assert made.backend.lists[network_lists.ADMITTED] == {ip_network("203.0.113.7")}


def test_why_has_the_fence_and_what_it_dropped(tmp_path: Path) -> None:
    """The answer has the mode of the fence, whether it admits the address, and how many packets came."""
    with kept(tmp_path, settings(OFFICE)) as made:
        made.side.start()

        def ask(network: str) -> Any:  # noqa: ANN401 - the JSON of an answer
            return asyncio.run(AddressFactsReader(made.side).answer({"network": network}))["fence"]

        assert ask("192.0.2.1") is None
        made.side.configure(fenced(LimitMode.OBSERVE))
        seen = [Remembered(ip_network("192.0.2.1"), 7), Remembered(ip_network("192.0.2.2"), 1)]
        at_web = [Remembered(ip_network("192.0.2.1"), 2)]
        tables = {OUTSIDERS: seen, ALSO_OUTSIDERS: at_web}
        made.backend.remembered = lambda table: tables[table]  # type: ignore[method-assign]
        assert ask("192.0.2.1") == {"mode": "observe", "inside": False, "outside": True, "packets": 9}
        assert ask("192.0.2.0/24")["packets"] == 10
        assert ask("198.51.100.7")["inside"]
        made.enforcer.switch_off()
        assert ask("192.0.2.1") is None


def test_the_status_has_the_fence(made: Kept) -> None:
    """Its part are its state, whether it waits for the friends, and the number of packets from outside."""
    assert FenceRequests(made.side).section().as_json() == {
        "fenced": 0,
        "fenced_also": 0,
        "fence_waits": False,
        "fence": fence_of(made.side).summary() | {"counts": False},
    }


@pytest.mark.parametrize("text", [None, "{", "[]", '{"trial": "x"}', '{"outside": [{"a": 1}]}'])
def test_a_damaged_record_is_a_new_one(text: str | None) -> None:
    """A recorded state that cannot be read is that of a fence that was never used."""
    assert FenceState.parse(text) == FenceState()


def test_drops_are_counted_by_country() -> None:
    """Sources and packets are added up by country, the most packets first."""
    outsiders = [Remembered(ip_network(f"192.0.2.{n}"), n) for n in (1, 2, 4)]
    found = by_country(outsiders, [{"country": "FR"}, {}, {"country": "FR"}])
    assert found == [
        {"country": "FR", "sources": 2, "packets": 5},
        {"country": UNKNOWN, "sources": 1, "packets": 2},
    ]
