"""Messages to other hosts: which bans, and with which facts."""

from ipaddress import ip_network

import pytest
from attrs import evolve
from tests.support.attempts import attempts, ban_of

from ringfence.features.fleet.messages import MOST_EVENTS, alert, facts_of, is_shared
from ringfence.values.ban import Origin, Scope


@pytest.mark.parametrize(
    ("scope", "origin", "shared"),
    [
        (Scope.FULL, Origin.RULE, True),
        (Scope.SIP, Origin.RULE, True),
        (Scope.SIP_UDP, Origin.RULE, False),
        (Scope.SIP_TCP, Origin.RULE, False),
        (Scope.FULL, Origin.ADMIN, False),
        (Scope.FULL, Origin.ADOPTED, False),
    ],
)
def test_only_proven_bans_of_rules_are_shared(scope: Scope, origin: Origin, shared: bool) -> None:  # noqa: FBT001
    """A claimed ban, a ban by hand and one that was found in the kernel stay on this host."""
    ban = ban_of("198.51.100.7", made=attempts(5))
    assert is_shared(evolve(ban, scope=scope, origin=origin)) is shared


def test_texts_of_senders_are_escaped_and_bounded() -> None:
    """An account name cannot break a line, and is shortened; of many attempts, the latest are named."""
    made = attempts(MOST_EVENTS + 5, account="a\r\nb\x1b[2J" + "x" * 500)
    facts = facts_of(ban_of("198.51.100.7", made=made))
    row = alert(ip_network("198.51.100.7"), "guess", 60.0, facts, 1_700_000_100.0, "pbx-a")

    assert len(row["events"]) == MOST_EVENTS
    assert facts.events[-1].time == made[-1].time
    assert "\r" not in row["message"]
    assert "\x1b" not in row["message"]
    assert len(row["message"]) < 300


def test_bans_on_attempts_are_shared() -> None:
    """A ban for a login elsewhere has none: the address may be that of a hotel."""
    assert is_shared(ban_of("198.51.100.7", made=attempts(5)))
    assert not is_shared(ban_of("198.51.100.7"))


def test_an_alert_without_attempts() -> None:
    """A ban that was read from the database has only numbers, and a ban has always a duration."""
    row = alert(
        ip_network("203.0.113.0/24"), "prefix", -5.0, facts_of(ban_of("203.0.113.0/24")), 2.0, "pbx-a"
    )

    assert (row["source"]["scope"], row["source"]["range"]) == ("Range", "203.0.113.0/24")
    assert (row["events_count"], row["events"], row["decisions"][0]["duration"]) == (1, [], "1s")
    assert row["start_at"] <= row["stop_at"]
