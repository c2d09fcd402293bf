"""The report of a period, from the daemon's answers."""

from pathlib import Path
from typing import Any

from tests.support.mmdb import write

from ringfence.control import MOST_ENDED
from ringfence.features.report.summary import MOST_ROWS, ReportAnswers, locations_by_name, summary_of

HISTORY = {
    "since": "2026-11-14T00:00:00Z",
    "until": "2026-11-21T00:00:00Z",
    "step": 3_600,
    "watched": 604_800,
    "totals": {"attempts": {}, "bans": {}, "unbans": 0, "unconfirmed": 0},
    "slots": [],
}


def answers(**changed: Any) -> ReportAnswers:  # noqa: ANN401 - as the daemon answers
    """Return answers about a period in which nothing happened, with some changed."""
    empty: dict[str, Any] = {"ended": [], "addresses": [], "accounts": [], "alarms": [], "locations": {}}
    return ReportAnswers(**{"history": HISTORY, "status": None, **empty, **changed})


def top(name: str, attempts: int) -> dict[str, Any]:
    """Return a row of the addresses with attempts."""
    return {
        "name": name,
        "attempts": attempts,
        "last": "2026-11-20T12:00:00Z",
        "known": False,
        "banned": False,
    }


def ended(seconds: int, end: str = "expired", offence: int = 1) -> dict[str, Any]:
    """Return a ban that lasted so long, at most a day."""
    hours, rest = divmod(seconds, 3_600)
    moment = f"2026-11-2{hours // 24}T{hours % 24:02}:{rest // 60:02}:{rest % 60:02}Z"
    return {"since": "2026-11-20T00:00:00Z", "ended": moment, "end": end, "offence": offence}


def alarm(code: str, since: str, cleared: str | None = None) -> dict[str, Any]:
    """Return an alarm."""
    return {"code": code, "subject": "204", "text": "x", "since": since, "cleared": cleared, "times": 1}


def test_a_period_without_anything() -> None:
    """Without attempts and bans every list is empty, and no number is made up."""
    found = summary_of(answers())

    assert (found["addresses"], found["networks"], found["countries"], found["phones"]) == ([], [], [], [])
    assert found["held"]["median"] is None
    assert found["dropped"] is None
    assert (found["since"], found["until"]) == ("2026-11-14T00:00:00Z", "2026-11-21T00:00:00Z")


def test_addresses_are_counted_by_network() -> None:
    """Addresses of one /24, and of one IPv6 /48, are one network; the one with the most attempts is first."""
    rows = [
        top("198.18.1.1", 5),
        top("198.18.1.200", 6),
        top("198.18.2.1", 9),
        top("2001:db8:1:2::/64", 1),
        top("2001:db8:1:3::/64", 1),
    ]
    found = summary_of(answers(addresses=rows))

    assert [(row["name"], row["attempts"], row["addresses"]) for row in found["networks"]] == [
        ("198.18.1.0/24", 11, 2),
        ("198.18.2.0/24", 9, 1),
        ("2001:db8:1::/48", 2, 2),
    ]


def test_countries_and_operators_are_those_of_the_database() -> None:
    """They are counted where a database has them; other addresses are left out."""
    locations = {
        "198.18.1.1": {"country": "DE", "asn": "AS64496", "organisation": "Example"},
        "198.18.2.1": {"country": "DE"},
    }
    rows = [top("198.18.1.1", 5), top("198.18.2.1", 6), top("198.18.3.1", 7)]
    found = summary_of(answers(addresses=rows, locations=locations))

    assert found["countries"] == [{"name": "DE", "attempts": 11, "addresses": 2}]
    assert found["operators"] == [{"name": "AS64496 Example", "attempts": 5, "addresses": 1}]
    assert found["addresses"][0]["country"] == "DE"


def test_lists_are_short() -> None:
    """A list has the rows with the most attempts only."""
    rows = [top(f"198.18.{number}.1", 1) for number in range(100)]
    found = summary_of(answers(addresses=rows, accounts=rows))

    assert {len(found[name]) for name in ("addresses", "accounts", "networks")} == {MOST_ROWS}


def test_how_long_bans_held() -> None:
    """Bans are counted by their length, whose bounds belong to the shorter one, and by their end."""
    bans = [ended(600), ended(601), ended(3_600, "removed", 2), ended(86_400)]
    found = summary_of(answers(ended=bans))["held"]

    assert [row["bans"] for row in found["lengths"]] == [1, 2, 1, 0, 0]
    assert (found["bans"], found["repeated"]) == (4, 1)
    assert found["ends"] == {"expired": 3, "removed": 1}
    assert found["median"] in range(2_100, 2_102)
    assert not found["more"]
    assert summary_of(answers(ended=bans * (MOST_ENDED // 4)))["held"]["more"]


def test_phones_are_alarms_of_the_period() -> None:
    """Active alarms about phones and passwords are listed, and those that cleared in the period."""
    alarms = [
        alarm("phone.failing", "2026-11-20T00:00:00Z"),
        alarm("password.guessed", "2026-10-01T00:00:00Z", "2026-11-15T00:00:00Z"),
        alarm("phone.broken", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        alarm("source.silent", "2026-11-20T00:00:00Z"),
    ]

    assert [row["code"] for row in summary_of(answers(alarms=alarms))["phones"]] == [
        "password.guessed",
        "phone.failing",
    ]


def test_dropped_packets() -> None:
    """The counters of the limiter and of each rule are those of the kernel."""
    status = {"limiter_drops": 7, "firewall": {"rules": [{"rule": "from banned", "packets": 9, "bytes": 1}]}}

    assert summary_of(answers(status=status))["dropped"] == {
        "limiter": 7,
        "rules": [{"rule": "from banned", "packets": 9}],
    }


# -- countries and network numbers of a report's addresses


def test_each_address_gets_its_country(tmp_path: Path) -> None:
    """The country is returned by the name of the row; for an IPv6 /64 its first address counts."""
    countries = write(
        tmp_path / "country.mmdb",
        [
            ("198.18.0.0/16", {"country": {"iso_code": "DE"}}),
            ("2001:db8::/32", {"country": {"iso_code": "AT"}}),
        ],
        version=6,
    )
    rows = [top("198.18.0.1", 1), top("2001:db8:1:2::/64", 1), top("203.0.113.1", 1)]

    assert locations_by_name([countries], rows) == {
        "198.18.0.1": {"country": "DE"},
        "2001:db8:1:2::/64": {"country": "AT"},
        "203.0.113.1": {},
    }
    assert locations_by_name((), rows) == {}
