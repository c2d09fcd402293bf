"""The report as one page of HTML."""

import re
from typing import Any

from tests.features.report.test_summary import HISTORY, alarm, answers, ended, top

from ringfence.features.report.page import report_page
from ringfence.features.report.summary import summary_of

HOSTILE = "<script>alert(1)</script><img src=x>\"'\u202e\x1b[2J"


def history() -> dict[str, Any]:
    """Return a history with two kinds of attempts and a ban."""
    attempts = {"guess": {"total": 9, "proven": 4}, "probe": {"total": 1, "proven": 0}}
    slot = {"start": "2026-11-20T12:00:00Z", "watched": 3_600, "attempts": attempts, "bans": {"guess": 2}}
    totals = {"attempts": attempts, "bans": {"guess": 2}, "unbans": 0, "unconfirmed": 3}
    return {**HISTORY, "slots": [{**slot, "unbans": 0, "unconfirmed": 3}], "totals": totals}


def page(**changed: Any) -> str:  # noqa: ANN401 - as the daemon answers
    """Return the page of a report."""
    return report_page(summary_of(answers(**{"history": history(), **changed})))


def test_the_page_needs_nothing_else() -> None:
    """The page has its style, runs no script, and names no other file or site."""
    text = page(addresses=[top("198.18.1.1", 5)])

    assert "default-src 'none'" in text
    assert "<style>" in text
    assert not re.search(r"<script|<link|<img|href=|src=|url\(|https?:", text)


def test_each_kind_has_a_chart() -> None:
    """There is a chart for each kind of attempt and one of the bans, each with its total."""
    text = page()

    assert text.count('<svg class="chart"') == text.count('<svg class="ticks"') == 3
    for title in ("Attempts: guess: 9", "Attempts: probe: 1", "Bans: 2"):
        assert title in " ".join(text.split())


def test_each_part_is_on_the_page() -> None:
    """Addresses, networks, accounts, phones, bans and dropped packets are on the page."""
    status = {"limiter_drops": 7, "firewall": {"rules": [{"rule": "from banned", "packets": 9, "bytes": 1}]}}
    text = page(
        addresses=[top("198.18.1.1", 5) | {"known": True, "banned": True}],
        accounts=[top("alice", 6)],
        alarms=[alarm("phone.broken", "2026-11-20T00:00:00Z", "2026-11-20T01:00:00Z")],
        ended=[ended(601)],
        status=status,
        locations={"198.18.1.1": {"country": "DE", "asn": "AS64496"}},
    )

    for part in ("198.18.1.0/24", "alice", "phone.broken", "AS64496", "dropped 7 packets", "from banned: 9"):
        assert part in text
    assert "The daemon does not answer" in page()


def test_hostile_text_is_text() -> None:
    """Markup and invisible characters in names are shown and not interpreted."""
    text = page(accounts=[top(HOSTILE, 6)], alarms=[alarm("phone.broken", "2026-11-20T00:00:00Z")])

    assert "&lt;script&gt;alert(1)" in text
    assert not re.search("<script|<img|\x1b|\u202e", text)
