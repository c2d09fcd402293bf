"""Findings of ``check`` about friends: trunks that are known by their addresses."""

from ipaddress import ip_network

from tests.support.console import ScriptedConsole

from ringfence.cli.check_friends import allowed_of, trunk_findings, unchecked
from ringfence.config.converters import HostName
from ringfence.config.schema import AllowSettings, Settings
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
