"""The settings and what is derived from them. test_loader shows how they are read."""

from ipaddress import ip_network
from pathlib import Path

from attrs import evolve
from tests.support.firewalls import firewall
from tests.support.tables import with_tables

from ringfence.config.converters import (
    Burst,
    HostName,
    Interface,
    Paths,
    Rate,
    Region,
    ScopeName,
    SetSize,
    SipPort,
)
from ringfence.config.schema import (
    AllowSettings,
    AsteriskSettings,
    DenySettings,
    FirewallSettings,
    Settings,
    WireSettings,
)
from ringfence.features.bare_address.stage import Asking
from ringfence.features.fence.stage import FenceFilter
from ringfence.features.geo.settings import GeoSettings
from ringfence.features.hep.stage import Export
from ringfence.features.limiter.settings import LimitSettings
from ringfence.features.limiter.stage import Limit
from ringfence.features.ration.settings import RationSettings
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.contract import BanAction, FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.ports import Ports
from ringfence.lists.entries import CONFIGURATION
from ringfence.netlink.nflog import GROUP
from ringfence.values.ban import Scope
from ringfence.values.entry import ListKind

FOUND = Ports(udp=(5060, 5160), tcp=(5060,))


def test_the_plan_of_the_defaults() -> None:
    """By default bans cover every port and interface, and the limiter and both rations enforce."""
    assert Settings().plan(FOUND) == FirewallPlan(
        maxelem=262_144,
        log_group=GROUP,
        every_port=True,
        sip_ports=FOUND,
        interfaces=(),
        action=BanAction.DROP,
        log=False,
        added=(
            Limit(LimitMode.ENFORCE, 50, 200),
            AskingRation(LimitMode.ENFORCE, burst=5, rate=2),
            Ration(LimitMode.ENFORCE, burst=4, rate=2),
            Export(),
            FenceFilter(),
            Asking(),
        ),
        wss=(8089,),
    )


def test_ports_that_are_not_found_are_the_usual_ones() -> None:
    """If no ports are found, the usual ones apply, as a PBX that starts later probably uses them."""
    assert Settings().plan(None).sip_ports == Ports()


def test_the_plan_of_a_configuration() -> None:
    """Every key reaches the plan, and configured ports replace the ports that were found."""
    configured = firewall(
        scope=ScopeName("sip"),
        sip_ports=(SipPort(5080), SipPort(5061, udp=False), SipPort(5060, tcp=False), SipPort(5080)),
        interfaces=(Interface("eth0"),),
        action=BanAction.TCP_RESET,
        log=True,
        max_bans=SetSize(4_096),
        limit=LimitSettings(LimitMode.ENFORCE, Rate(60), Burst(300)),
        ration=RationSettings(LimitMode.ENFORCE, Rate(2), LimitMode.OBSERVE, Rate(3)),
    )

    assert Settings(firewall=configured).without_wire().plan(FOUND) == FirewallPlan(
        maxelem=4_096,
        log_group=None,
        every_port=False,
        sip_ports=Ports(udp=(5060, 5080), tcp=(5061, 5080)),
        interfaces=("eth0",),
        action=BanAction.TCP_RESET,
        log=True,
        added=(
            Limit(LimitMode.ENFORCE, 60, 300),
            AskingRation(LimitMode.OBSERVE, burst=5, rate=3),
            Ration(LimitMode.ENFORCE, burst=4, rate=2),
            Export(),
            FenceFilter(),
            Asking(),
        ),
        wss=(8089,),
    )


def test_who_may_read_web_pages() -> None:
    """By default only the manager interface's ports have answers that are no SIP."""
    asterisk = AsteriskSettings()
    allowed = evolve(asterisk, wire=WireSettings(https_pages=True))

    assert [port for port in (5038, 5039, 5061, 8089) if Settings().has_pages(port)] == [5038, 5039]
    assert Settings(asterisk=(asterisk, allowed)).has_pages(8089)


def test_the_scope_of_a_rule() -> None:
    """A rule covers what the firewall covers, or Asterisk's ports; flood and unexplained have their own."""
    guess = evolve(Settings().rules["guess"], scope=ScopeName("all"))
    manager = evolve(Settings().rules["manager"], scope=ScopeName("sip"))
    settings = Settings(rules={**Settings().rules, "guess": guess, "manager": manager})

    scopes = {rule.name: rule.scope for rule in settings.rule_table()}
    assert (scopes["guess"], scopes["enumeration"], scopes["flood"]) == (
        Scope.FULL,
        Scope.FULL,
        Scope.SIP_UDP,
    )
    assert (scopes["manager"], scopes["slow"], scopes["unexplained"]) == (Scope.SIP, Scope.SIP, Scope.SIP_TCP)
    assert settings.rules["flood"].scope is None


def test_the_lists_of_a_configuration() -> None:
    """Every entry of the lists has its side, its normalized form, and its origin."""
    settings = with_tables(
        allow=AllowSettings((ip_network("192.0.2.1"),), (HostName("sip.carrier.example"),), (Region("DE"),)),
        deny=DenySettings((ip_network("2001:db8::/32"),), (Region("AS64496"),)),
        geo=GeoSettings(Paths((Path("/srv/geo.mmdb"),))),
    )
    lists = evolve(settings, firewall=FirewallSettings(max_bans=SetSize(4_096))).lists()

    assert [(entry.kind, entry.value) for entry in lists.entries] == [
        (ListKind.ALLOW, "192.0.2.1"),
        (ListKind.ALLOW, "sip.carrier.example"),
        (ListKind.ALLOW, "country DE"),
        (ListKind.DENY, "2001:db8::/32"),
        (ListKind.DENY, "AS64496"),
    ]
    assert {(entry.origin, entry.until) for entry in lists.entries} == {(CONFIGURATION, None)}
    assert (lists.databases, lists.most) == ((Path("/srv/geo.mmdb"),), 4_096)
    assert Settings().lists().entries == ()


def test_no_configured_ports_are_those_that_are_found() -> None:
    """An empty list replaces nothing: bans that cover no port would drop nothing."""
    assert Settings(firewall=firewall(sip_ports=())).plan(FOUND).sip_ports == FOUND
