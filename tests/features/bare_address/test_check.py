"""The lines about the rule in ``ringfence check`` and in the status."""

from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.check import Checked
from ringfence.config.loader import parse
from ringfence.features.bare_address.check import findings
from ringfence.features.bare_address.habits import DAY, WATCH_FOR
from ringfence.features.bare_address.status import lines
from ringfence.host.console import NoConsole

FRIEND = {"address": "192.0.2.1", "accounts": ["alice"], "host": "198.51.100.9"}
PROPOSAL = 'to ban strangers that do: mode = "enforce" in [bare_address]'


def state(*friends: dict[str, Any], mode: str = "observe", **values: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what the status has of the rule."""
    found = {"mode": mode, "since": "2026-11-28T08:00:00Z", "watched": WATCH_FOR, "seen": 3}
    return found | {"friends": list(friends), "without_name": len(friends)} | values


def found_in(report: dict[str, Any] | None, mode: str = "observe") -> list[str]:
    """Return the lines of the check, if the status has this of the rule."""
    tree = {"bare_address": {"mode": mode, "domains": ["pbx.example.org"]}}
    report = None if report is None else {"bare_address": report}
    checked = Checked(parse(tree, "", {}, secrets=False), None, NoConsole(""), Path(), report=report)
    return [finding.line for finding in findings(checked)]


def test_it_proposes_the_rule_after_seven_days() -> None:
    """Before, and while no friend was seen, it does not."""
    [line] = found_in(state())
    assert line.startswith("--  bare address: since 2026-11-28 08:00:00, 3 friends asked for a name")
    assert line.endswith(PROPOSAL)
    [line] = found_in(state(watched=WATCH_FOR - DAY))
    assert line.endswith("after 7 days without one, the rule may be enforced")
    [line] = found_in(state(seen=0))
    assert line.endswith("no request of a friend was seen yet; those by TLS cannot be read")


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_it_names_the_friends_that_would_be_hit(mode: str) -> None:
    """Each of the latest ten has a line, with the fix; the others are counted."""
    [line] = found_in(state(FRIEND, mode=mode), mode)
    assert "192.0.2.1 (alice) asks for 198.51.100.9, and may be banned at a new address; fix: give" in line
    assert line.endswith("fix: give it a name of this PBX as its server")
    assert "(a friend until lately)" in found_in(state(FRIEND | {"accounts": []}))[0]
    shown = found_in(state(*[FRIEND] * 12))
    assert len(shown) == 11
    assert shown[-1].endswith("2 more friends ask so: ringfence status --json")


@pytest.mark.parametrize(
    ("host", "may_be_added"), [("voip.example.org", True), ("pbx", False), ("::1", False)]
)
def test_it_proposes_no_domain_that_the_configuration_refuses(host: str, may_be_added: bool) -> None:  # noqa: FBT001
    """Only a host's name in full can be one of the domains."""
    [line] = found_in(state(FRIEND | {"host": host}))
    assert "give it a name of this PBX as its server" in line
    assert (f"or if {host} is another name of this PBX, add that to domains" in line) is may_be_added


def test_it_needs_the_wire() -> None:
    """Without the wire the kernel copies nothing, so the rule does nothing, whatever its mode is."""
    tree = {
        "bare_address": {"mode": "enforce", "domains": ["pbx.example.org"]},
        "asterisk": [{"wire": {"enabled": False}}],
    }
    checked = Checked(parse(tree, "", {}, secrets=False), None, NoConsole(""), Path(), report={})
    [line] = [finding.line for finding in findings(checked)]
    assert line.startswith("--  bare address: does nothing without the wire; fix: ")


def test_if_it_is_enforced_all_is_well() -> None:
    """If it is off, there is no line; without a daemon that has it, its state is unknown."""
    [line] = found_in(state(mode="enforce"), "enforce")
    assert line.startswith("ok  bare address: since")
    assert found_in(None, "off") == []
    assert found_in(None)[0].startswith("--  bare address: only a daemon that was started")


def test_the_status() -> None:
    """It has a line if the rule is on."""
    assert [*lines({})] == []
    report = {"bare_requests": 2, "bare_address": state(FRIEND)}
    [(line, good)] = lines(report)
    assert line == "domains   observe: 2 requests of strangers for no name of this PBX; so ask 1 friend"
    assert good
