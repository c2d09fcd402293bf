"""Findings of ``check`` about friends: trunks known by address, and the rights of our manager user."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.console import ScriptedConsole

from ringfence.cli.check import page_findings, rights_findings
from ringfence.cli.check_friends import allowed_of, guest_findings, trunk_findings, unchecked
from ringfence.config.converters import HostName
from ringfence.config.schema import (
    AllowSettings,
    AsteriskSettings,
    FirewallSettings,
    HepSettings,
    RationSettings,
    Settings,
    WireSettings,
)
from ringfence.firewall.contract import LimitMode
from ringfence.host.console import NoConsole

IDENTIFIES = """
 Identify:  i1/carrier one's
      Match: 203.0.113.0/28
 Identify:  i2/carrier
      Match: 203.0.113.64/28
      Match: 203.0.113.5/32
      Match: 2001:db8::5/128
 Identify:  i3/everybody
      Match: 0.0.0.0/0
 Identify:  i4/isp
      Match: 10.0.0.0/8
"""


def lines(shown: str, *allowed: str) -> list[str]:
    """Return the findings for this output of ``pjsip show identifies``, without chan_sip."""
    console = ScriptedConsole(lambda command: shown if command.startswith("pjsip ") else None)
    networks = [ip_network(network) for network in allowed]
    return [finding.line for finding in trunk_findings(console, networks)]


def test_trunks_are_suggested_with_the_command() -> None:
    """The addresses of an endpoint form one command, without those that are already allowed."""
    found = lines(IDENTIFIES, "203.0.113.0/29", "2001:db8::/32")

    fix = "fix: list only its own addresses in match or host"
    assert found[:2] == [
        f"NO  trunk everybody: every address is accepted as this trunk; {fix}",
        f"--  trunk isp: every address of 10.0.0.0/8 is accepted as this trunk; {fix}",
    ]
    [carrier] = found[2:]
    assert carrier.startswith("--  trunk carrier: is known by its address, which no event shows, ")
    assert carrier.endswith("; if it is yours: ringfence allow add 203.0.113.64/28 --note carrier")


def test_calls_without_a_password_need_room_in_the_ration() -> None:
    """With such calls the key is named, with the key all is well, and the key alone is for nothing."""
    ration = RationSettings()
    cases = [
        (ration, "sip.conf [x]", ["--  guests: Asterisk takes calls without a password (sip.conf [x]), and"]),
        (evolve(ration, guests=True), "sip.conf [x]", ["ok  guests: strangers may call (sip.conf [x]), and"]),
        (evolve(ration, guests=True), "", ["--  guests: strangers may ask 8 times as much, but no account"]),
        (ration, "", []),
        (RationSettings(asking=LimitMode.OFF), "sip.conf [x]", []),
    ]
    for rationed, by, expected in cases:
        settings = Settings(firewall=FirewallSettings(ration=rationed))
        found = [finding.line for finding in guest_findings(settings, by)]
        assert [line[: len(begin)] for line, begin in zip(found, expected, strict=True)] == expected


def test_all_is_well() -> None:
    """Without trunks, or if all are allowed, the finding is ok."""
    [one] = lines(" Identify:  i/c\n      Match: 203.0.113.9/32\n", "203.0.113.0/24")
    [none] = lines("No objects found.\n")

    assert one == "ok  trunks: all trunks known by their address are allowed, or friends"
    assert none == "ok  trunks: no trunk is known by its address alone"


def test_a_name_does_no_harm_in_a_shell() -> None:
    """The command can be pasted safely, whatever the trunk's name contains."""
    [line] = lines(" Identify:  i/a;rm$(x)\n      Match: 203.0.113.9/32\n")

    assert line.endswith("ringfence allow add 203.0.113.9 --note 'a;rm$(x)'")


def test_without_the_console_trunks_are_unknown() -> None:
    """Without root the trunks are unknown, which is reported."""
    [line] = unchecked(NoConsole("no answer within 5 s"))
    assert line == "trunks known by address alone: not checked (no answer within 5 s)"
    assert [*unchecked(ScriptedConsole())] == []
    [finding] = trunk_findings(NoConsole("no answer within 5 s"), [])

    assert finding.right is None
    assert finding.detail.startswith("known by address alone: not checked (no answer within 5 s); ")


@pytest.mark.parametrize(
    ("rights", "lacking"),
    [
        ("read=security,system\nwrite=reporting", ""),
        ("read=all\nwrite=all", ""),
        ("read=security,system\nwrite=", "write = reporting"),
        ("read=security", "read = system, write = reporting"),
        ("", "read = security, read = system, write = reporting"),
    ],
)
def test_rights_that_our_user_lacks(tmp_path: Path, rights: str, lacking: str) -> None:
    """Missing rights are reported with the effect and the fix; for an unknown user nothing is."""
    (tmp_path / "manager.conf").write_text(f"[general]\nenabled=yes\n[own]\nsecret=x\n{rights}\n", "utf-8")
    found = [finding.line for finding in rights_findings(tmp_path, "own")]

    assert [line.partition("lacks ")[2].partition(":")[0] for line in found] == ([lacking] if lacking else [])
    assert list(rights_findings(tmp_path, "other")) == []


def test_whether_pages_count(tmp_path: Path) -> None:
    """If Asterisk's HTTPS server is open, the setting of its pages is named with its effect."""
    web = "[general]\nenabled=yes\ntlsenable=yes\ntlsbindaddr={}:8090\n"
    (tmp_path / "http.conf").write_text(web.format("0.0.0.0"), "utf-8")

    def lines(settings: Settings) -> list[str]:
        return [finding.line for finding in page_findings(settings, tmp_path)]

    pages = AsteriskSettings(wire=WireSettings(https_pages=True))
    [counted], [hiding] = lines(Settings()), lines(Settings(asterisk=(pages,)))
    assert counted.startswith("ok  wire: HTTPS on port 8090: strangers may read no pages")
    assert "https_pages = true in [asterisk.wire]" in counted
    assert hiding.startswith(
        "--  wire: HTTPS on port 8090: strangers may read pages, and guesses by WSS can hide"
    )
    assert lines(Settings(asterisk=(evolve(pages, hep=HepSettings(enabled=True)),))) == []
    assert lines(Settings().without_wire()) == []
    (tmp_path / "http.conf").write_text(web.format("127.0.0.1"), "utf-8")
    assert lines(Settings()) == []


def test_allowed_networks() -> None:
    """Allowed: the daemon's list with resolved names, and its trunks; without it the configuration's list."""
    settings = Settings(
        allow=AllowSettings(networks=(ip_network("198.51.100.0/24"),), hosts=(HostName("sip.x.example"),))
    )
    rows = [
        {"entry": "203.0.113.0/28", "leads_to": []},
        {"entry": "sip.x.example", "leads_to": ["203.0.113.99", "2001:db8::9"]},
        {"entry": "country DE", "leads_to": []},
    ]

    friends = [{"address": "192.0.2.7", "reason": "trunk"}, {"address": "192.0.2.8", "reason": "registered"}]

    assert allowed_of(settings, None) == [ip_network("198.51.100.0/24")]
    assert allowed_of(settings, [], friends) == [ip_network("192.0.2.7/32")]
    assert [str(network) for network in allowed_of(settings, rows)] == [
        *("203.0.113.0/28", "203.0.113.99/32", "2001:db8::9/128")
    ]
