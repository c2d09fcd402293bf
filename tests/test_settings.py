"""The settings: what follows of what the configuration says. That it is read is shown in test_config."""

from ipaddress import ip_network
from pathlib import Path

from attrs import evolve

from ringfence.firewall.contract import Limit, LimitMode, Plan, Ports, Verdict
from ringfence.lists.entries import CONFIGURATION
from ringfence.model import Side
from ringfence.settings import (
    AllowSettings,
    DenySettings,
    FirewallSettings,
    GeoSettings,
    LimitSettings,
    Settings,
)
from ringfence.values import (
    Burst,
    HostName,
    Interface,
    Paths,
    Place,
    Rate,
    ScopeName,
    SetSize,
    SipPort,
)

FOUND = Ports(udp=(5060, 5160), tcp=(5060,))


def test_the_plan_of_the_defaults() -> None:
    """Everything is dropped on every port and interface, and the limiter drops what is too much."""
    assert Settings().plan(FOUND, 7) == Plan(
        maxelem=262_144,
        log_group=7,
        every_port=True,
        sip_ports=FOUND,
        interfaces=(),
        verdict=Verdict.DROP,
        log=False,
        limit=Limit(LimitMode.ENFORCE, 50, 200),
    )


def test_ports_that_are_not_found_are_the_usual_ones() -> None:
    """A PBX that was not running yet has them most likely."""
    assert Settings().plan(None, None).sip_ports == Ports()


def test_the_plan_of_a_configuration() -> None:
    """Every key comes through; ports that are named go before those that are found."""
    firewall = FirewallSettings(
        scope=ScopeName("sip"),
        sip_ports=(SipPort(5080), SipPort(5061, udp=False), SipPort(5060, tcp=False), SipPort(5080)),
        interfaces=(Interface("eth0"),),
        action=Verdict.TCP_RESET,
        log=True,
        max_bans=SetSize(4_096),
        limit=LimitSettings(LimitMode.ENFORCE, Rate(60), Burst(300)),
    )

    assert Settings(firewall=firewall).plan(FOUND, None) == Plan(
        maxelem=4_096,
        log_group=None,
        every_port=False,
        sip_ports=Ports(udp=(5060, 5080), tcp=(5061, 5080)),
        interfaces=("eth0",),
        verdict=Verdict.TCP_RESET,
        log=True,
        limit=Limit(LimitMode.ENFORCE, 60, 300),
    )


def test_the_lists_of_a_configuration() -> None:
    """Every entry has its side, its one form, and where it comes from."""
    settings = Settings(
        allow=AllowSettings((ip_network("192.0.2.1"),), (HostName("sip.carrier.example"),), (Place("DE"),)),
        deny=DenySettings((ip_network("2001:db8::/32"),), (Place("AS64496"),)),
        geo=GeoSettings(Paths((Path("/srv/geo.mmdb"),))),
    )
    lists = evolve(settings, firewall=FirewallSettings(max_bans=SetSize(4_096))).lists()

    assert [(entry.side, entry.what) for entry in lists.entries] == [
        (Side.ALLOW, "192.0.2.1"),
        (Side.ALLOW, "sip.carrier.example"),
        (Side.ALLOW, "country DE"),
        (Side.DENY, "2001:db8::/32"),
        (Side.DENY, "AS64496"),
    ]
    assert {(entry.origin, entry.until) for entry in lists.entries} == {(CONFIGURATION, None)}
    assert (lists.databases, lists.most) == ((Path("/srv/geo.mmdb"),), 4_096)
    assert Settings().lists().entries == ()
