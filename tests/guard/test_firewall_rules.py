"""The rules of the firewall: which ones are wanted, and their changes."""

import asyncio
import contextlib
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.kept import OFFICE, Kept, kept, settings
from tests.support.netns import run

from ringfence.config.converters import Port, Text, UserName
from ringfence.config.schema import AmiSettings, AsteriskSettings
from ringfence.errors import FirewallError
from ringfence.features.limiter.settings import LimitSettings
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Opened
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.ports import Ports
from ringfence.guard import firewall_manager
from ringfence.guard.firewall_manager import ABSENT_LOOKS, SipSockets, find_sip_sockets
from ringfence.host.listening import ListeningPorts, NamedUsers
from ringfence.values.event import Endpoint, Transport


def test_rules_that_cannot_be_put_in_place_are_an_alarm(kept: Kept) -> None:
    """Rules that the firewall refuses are an alarm with the firewall's error, until they are in place."""
    kept.side.start()
    kept.backend.gone = FirewallError("no answer")
    kept.side.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OFF)))
    assert "firewall.not_changed" in {alarm.code for alarm in kept.alarms.active}

    kept.backend.gone = None
    kept.side.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OBSERVE)))
    assert kept.alarms.active == []


def test_new_rules_do_not_undo_an_off_that_the_daemon_has_not_seen(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `ringfence off` could not reach the daemon, a change of the rules puts nothing in place again."""
    kept.side.start()
    written: list[str] = []
    monkeypatch.setattr(kept.backend, "open", lambda: written.append("rules"))
    kept.enforcer.records.set_switched_off(True)
    kept.side.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OFF)))

    assert (kept.enforcer.enforcing, written) == (False, [])


def test_an_off_that_comes_while_rules_are_written_removes_them(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `ringfence off` is recorded while the daemon writes rules, the daemon removes them again."""
    kept.side.start()
    opened = kept.backend.open

    def off_meanwhile() -> Opened:
        kept.enforcer.records.set_switched_off(True)
        return opened()

    monkeypatch.setattr(kept.backend, "open", off_meanwhile)
    kept.side.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OFF)))

    assert not kept.enforcer.enforcing
    assert kept.backend.lists[network_lists.ALLOW] == frozenset()


def test_lists_that_were_emptied_are_filled_with_the_new_rules(tmp_path: Path) -> None:
    """A change of the rules that finds damage repairs the lists too: no later check would see it."""
    with kept(tmp_path, settings(OFFICE)) as made:
        made.side.start()
        made.backend.lists[network_lists.ALLOW] = frozenset()
        made.backend.trouble = "a list was emptied"
        made.side.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OFF)))

        assert ip_network(OFFICE) in made.backend.lists[network_lists.ALLOW]


def test_the_ports_of_a_proxy_join_those_of_asterisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules guard the ports of both; if Asterisk's are unknown, its standard ports.

    A UDP port that the kernel assigned to the proxy is none of them.
    """
    sockets = frozenset(Endpoint(ip_address("127.0.0.1"), port, Transport.UDP) for port in (5070, 40_000))
    monkeypatch.setattr(firewall_manager, "find_named_users", lambda _: NamedUsers())
    monkeypatch.setattr(firewall_manager, "find_proxy_sockets", lambda _: sockets)
    pbx = evolve(AsteriskSettings(), proxies=(ip_network("127.0.0.1"),))
    behind = evolve(settings(), asterisk=(pbx,))

    monkeypatch.setattr(firewall_manager, "find_ports", lambda *_, **__: ListeningPorts((5080,), ()))
    assert find_sip_sockets(behind) == SipSockets(Ports((5070, 5080), Ports().tcp), sockets)
    assert find_sip_sockets(settings()) == SipSockets(Ports((5080,), Ports().tcp), frozenset(), unnamed=True)
    monkeypatch.setattr(firewall_manager, "find_ports", lambda *_, **__: None)
    assert find_sip_sockets(behind) == SipSockets(
        Ports(tuple(sorted({5070, *Ports().udp})), Ports().tcp), sockets
    )
    assert find_sip_sockets(settings()) == SipSockets(None, frozenset(), unnamed=True)


def test_the_users_that_a_configuration_names_may_run_asterisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of every PBX count when the sockets of Asterisk are looked up."""
    asked: list[str] = []

    def find_named_users(users: Iterable[str]) -> NamedUsers:
        asked.extend(users)
        return NamedUsers()

    monkeypatch.setattr(firewall_manager, "find_named_users", find_named_users)
    monkeypatch.setattr(firewall_manager, "find_ports", lambda *_, **__: None)
    pbxs = [AsteriskSettings(ami=AmiSettings(server_users=(UserName(one),))) for one in ("1000", "pbx")]
    find_sip_sockets(evolve(settings(), asterisk=tuple(pbxs)))
    assert asked == ["1000", "pbx"]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(
    ("ami", "port"),
    [
        (AmiSettings(host=Text("192.0.2.7"), port=Port(5039)), 5039),
        (AmiSettings(host=Text("192.0.2.8")), None),
        (AmiSettings(host=Text("192.0.2.7"), enabled=False), None),
    ],
    ids=["own address", "another host", "off"],
)
def test_ami_at_an_own_address_identifies_asterisk(
    monkeypatch: pytest.MonkeyPatch, ami: AmiSettings, port: int | None
) -> None:
    """If AMI listens at an address of this host, its port identifies Asterisk's sockets and their user."""
    run("ip", "address", "add", "192.0.2.7/24", "dev", "lo")
    asked: list[int | None] = []

    def find_users(ports: Iterable[int], _named: NamedUsers) -> frozenset[int]:
        asked.extend(ports)
        return frozenset()

    monkeypatch.setattr(firewall_manager, "find_ports", lambda port, **_: asked.append(port))
    monkeypatch.setattr(firewall_manager, "find_users", find_users)
    mine = evolve(settings(), asterisk=(AsteriskSettings(ami=ami),))
    find_sip_sockets(mine)

    assert asked == ([None] if port is None else [port, port])


def test_ports_that_answer_as_their_numbers_say_change_no_rule(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules are written again only if a port speaks another protocol than its number suggests."""
    kept.side.start()
    kept.side.kernel.rules.use(SipSockets(Ports(), frozenset()))
    opened, written = kept.backend.open, list[str]()

    def open_again() -> Opened:
        written.append("rules")
        return opened()

    monkeypatch.setattr(kept.backend, "open", open_again)
    answered = evolve(Ports(), sip=(5060,), sips=(5061,), other=(8089,))
    kept.side.kernel.rules.use(SipSockets(answered, frozenset()))
    assert written == []
    kept.side.kernel.rules.use(SipSockets(evolve(Ports(), sip=(5060, 8089)), frozenset()))
    assert written == ["rules"]


def test_ports_that_asterisk_has_not_opened_yet_stay_guarded(kept: Kept) -> None:
    """A starting Asterisk opens HTTP and AMI first; a port that stays closed leaves the rules."""
    kept.side.start()
    rules, whole = kept.side.kernel.rules, Ports((5060, 5070), (5038, 5061, 8088), sips=(5061,))
    starting = Ports((), (5038, 8088))

    def guarded() -> Ports:
        return kept.backend.plan.sip_ports

    rules.use(SipSockets(whole, frozenset()))
    for _ in range(ABSENT_LOOKS - 1):
        rules.use(SipSockets(starting, frozenset()))
        assert guarded() == whole
    rules.use(SipSockets(whole, frozenset()))  # the count begins again
    for _ in range(ABSENT_LOOKS - 1):
        rules.use(SipSockets(evolve(whole, udp=(5060,)), frozenset()))
        assert guarded() == whole
    rules.use(SipSockets(evolve(whole, udp=(5060,)), frozenset()))
    assert guarded() == evolve(whole, udp=(5060,))


@pytest.mark.parametrize(
    "first",
    [
        ListeningPorts((), (5038, 8088)),
        ListeningPorts((4569,), (5038,)),
        ListeningPorts((), (5038, 5060), other=(5060,)),
    ],
)
def test_an_asterisk_without_sip_is_taken_for_a_starting_one(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, first: ListeningPorts
) -> None:
    """HTTP, AMI and IAX2 open first; until SIP does, its usual ports are guarded, and earlier ones stay."""
    monkeypatch.setattr(firewall_manager, "find_proxy_sockets", lambda _: frozenset())
    monkeypatch.setattr(firewall_manager, "find_ports", lambda *_, **__: first)
    kept.side.start()
    rules = kept.side.kernel.rules

    def guarded() -> Ports:
        return kept.backend.plan.sip_ports

    rules.use(find_sip_sockets(settings()))
    assert {*Ports().udp, *first.udp} == {*guarded().udp}
    assert {*Ports().tcp, *first.tcp} == {*guarded().tcp}
    rules.use(SipSockets(Ports((5070,), (5038, 8088)), frozenset()))
    for _ in range(9):
        rules.use(find_sip_sockets(settings()))
    assert 5070 in guarded().udp


def test_the_ports_of_a_starting_asterisk_are_looked_up_soon(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIP port of any number is guarded at once, but not for ever: an Asterisk may have none."""
    starting = SipSockets(Ports(), frozenset(), starting=True)
    whole = SipSockets(Ports((5070,), (5038,)), frozenset())
    looks: list[SipSockets] = []
    monkeypatch.setattr(firewall_manager, "PORTS_EVERY", 999.0)
    monkeypatch.setattr(firewall_manager, "STARTING_EVERY", 0.0)
    monkeypatch.setattr(firewall_manager, "STARTING_LOOKS", 9)
    monkeypatch.setattr(firewall_manager, "find_sip_sockets", lambda *_: looks.pop(0))
    kept.side.start()

    async def run() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(kept.side.kernel.rules.run(), 2)

    looks[:] = [SipSockets(None, frozenset()), *[starting] * 4, whole, whole]
    asyncio.run(run())
    assert kept.backend.plan.sip_ports.udp == (4569, 5060, 5070)

    looks[:] = [starting] * 99
    asyncio.run(run())
    assert len(looks) == 99 - 1 - 9


def test_a_missing_proxy_is_an_alarm(kept: Kept) -> None:
    """If proxies are configured and none listens, an alarm reports it until one is found."""
    rules = kept.side.kernel.rules
    missing, found = SipSockets(None, frozenset()), Endpoint(ip_address("127.0.0.1"), 5070, Transport.UDP)
    rules.use(missing)
    assert kept.alarms.active == []

    pbx = evolve(AsteriskSettings(), proxies=(ip_network("127.0.0.1"),))
    kept.side.configure(evolve(settings(), asterisk=(pbx,)))
    rules.use(missing)
    assert [str(alarm.code) for alarm in kept.alarms.active] == ["proxy.missing"]
    rules.use(SipSockets(None, frozenset([found])))
    assert kept.alarms.active == []
