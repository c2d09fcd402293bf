"""A report as text."""

from typing import Any

from tests.features.notify.samples import HOSTILE
from tests.features.report.test_summary import HISTORY, alarm, answers, ended, top

from ringfence.cli.plain_text import Line, TextForm
from ringfence.features.report.summary import summary_of
from ringfence.features.report.text import report_lines
from ringfence.values.text import printable

STATUS = {"limiter_drops": 7, "firewall": {"rules": [{"rule": "from banned", "packets": 1, "bytes": 1}]}}


def lines(form: TextForm | None = None, **changed: Any) -> list[Line]:  # noqa: ANN401 - as the daemon answers
    """Return the lines of a report."""
    return list(report_lines(summary_of(answers(**changed)), form or TextForm()))


def texts(**changed: Any) -> list[str]:  # noqa: ANN401 - as the daemon answers
    """Return the texts of these lines."""
    return [line.text for line in lines(**changed)]


def test_a_period_without_anything() -> None:
    """Empty tables are left out, and no phone needs a person."""
    assert texts() == [
        "2026-11-14 00:00 to 2026-11-21 00:00 UTC, 4h a column",
        "",
        "                   TOTAL PROVEN OVER TIME",
        f"unconfirmed            0{' ' * 8}".rstrip(),
        f"unbans                 0{' ' * 8}".rstrip(),
        "",
        "No attempt is recorded in this time. The report shows who guessed, and what was banned.",
        "To watch attempts as they come: ringfence events --follow",
        "",
        "Phones that need a person",
        "none",
        "",
    ]


def test_each_part_is_in_the_text() -> None:
    """Addresses, accounts, networks, countries, phones, bans and dropped packets are in the text."""
    found = texts(
        addresses=[top("198.18.1.1", 5) | {"known": True, "banned": True}],
        accounts=[top("alice", 6) | {"known": True}],
        alarms=[alarm("phone.broken", "2026-11-20T00:00:00Z", "2026-11-20T01:00:00Z") | {"times": 3}],
        ended=[ended(601), ended(601, "removed", 2)],
        status=STATUS,
        locations={"198.18.1.1": {"country": "DE", "asn": "AS64496", "organisation": "Example"}},
    )
    part = found[found.index("Addresses with the most attempts") :]

    assert part == [
        "Addresses with the most attempts",
        "ADDRESS     ATTEMPTS  NOTE",
        "198.18.1.1         5  friend, banned, DE AS64496 Example",
        "",
        "Accounts with the most attempts",
        "ACCOUNT  ATTEMPTS  NOTE",
        "alice           6  works here",
        "",
        "Networks",
        "NETWORK        ATTEMPTS  ADDRESSES",
        "198.18.1.0/24         5          1",
        "",
        "Countries",
        "COUNTRY  ATTEMPTS  ADDRESSES",
        "DE              5          1",
        "",
        "Operators",
        "OPERATOR         ATTEMPTS  ADDRESSES",
        "AS64496 Example         5          1",
        "",
        "How long bans held",
        "TIME              BANS",
        "up to 10 minutes     0",
        "up to an hour        2",
        "up to a day          0",
        "up to a week         0",
        "longer               0",
        "",
        "Phones that need a person",
        "! phone.broken 204: x (3 times) (cleared 2026-11-20 01:00)",
        "",
        "2 bans ended (1 expired, 1 removed), half of them after 10m 1s; 1 was a repeated ban.",
        "Since the rules were made, the limiter dropped 7 packets.",
        "from banned: 1 packet",
    ]


def test_times_are_those_of_the_form() -> None:
    """The times of a terminal may be local."""
    form = TextForm(zone="LOCAL", moment=lambda text: text[:10])
    cleared = alarm("phone.broken", "2026-11-20T00:00:00Z", "2026-11-20T01:00:00Z")
    found = [line.text for line in lines(form, alarms=[cleared])]

    assert found[0].startswith("2026-11-14 to 2026-11-21 LOCAL")
    assert "! phone.broken 204: x (cleared 2026-11-20)" in found


def test_hundreds_of_phones_are_counted() -> None:
    """The latest alarms are listed, and the others are counted."""
    many = [alarm("phone.failing", f"2026-11-20T00:{at // 60:02}:{at % 60:02}Z") for at in range(250)]
    found = texts(alarms=many)

    assert sum(text.startswith("! phone.failing") for text in found) == 200
    assert "and 50 more; see: ringfence alarms" in found


def test_hostile_names_stay_in_their_line() -> None:
    """A name, escaped as the daemon escapes it, adds no line and no character that cannot be seen."""
    for name in HOSTILE:
        account = top(printable(name)[:48], 6)
        phone = alarm("phone.broken", "2026-11-20T00:00:00Z") | {"subject": printable(name)}
        found = texts(accounts=[account], alarms=[phone])

        assert len(found) == len(texts(accounts=[top("alice", 6)], alarms=[phone]))
        assert all(text.isprintable() for text in found)


def test_every_line_but_those_of_alarms_fits() -> None:
    """Tables and charts have at most 80 columns."""
    nothing = {"attempts": {}, "unbans": 0, "unconfirmed": 0}
    full = {**HISTORY, "totals": {**nothing, "bans": {"enumeration": 1_000_000}}}
    found = texts(
        history=full,
        addresses=[top("2001:db8:1111:2222::/64", 1_000_000) | {"banned": True}],
        accounts=[top("a" * 48, 1_000_000)],
        locations={"2001:db8:1111:2222::/64": {"country": "DE", "asn": "AS1", "organisation": "o" * 64}},
    )

    assert max(map(len, found)) <= 80
