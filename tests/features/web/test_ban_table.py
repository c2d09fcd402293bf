"""The table of bans: search, order and pages."""

from typing import Any

import pytest

from ringfence.features.web.pages import ROWS, SORTABLE, Query, current, page_of, query_from


def row(address: str, **changed: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a row as the daemon reports it."""
    known = {"since": "2026-11-21T02:41:00Z", "expires": "2026-11-21T03:41:00Z", "rule": "guess"}
    counts = {"attempts": 5, "packets": 1, "bytes": 1, "timeout": 60, "offence": 1, "proven": 5}
    texts = {"reason": "", "scope": "full", "account": "204", "accounts": 1}
    return {"address": address, **known, **counts, **texts, **changed}


ROWS_KNOWN = [
    row("192.0.2.10", account="Alice", expires=None, timeout=None),
    row("192.0.2.9", rule="slow", expires="2026-11-21T03:40:00Z", timeout=70),
    row("2001:db8::/64", account=None, packets=None, rule=None, since=None),
    row("10.0.0.0/8", reason="by hand", packets=7),
]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {"192.0.2.10", "192.0.2.9", "2001:db8::/64", "10.0.0.0/8"}),
        ("192.0.2.0/24", {"192.0.2.10", "192.0.2.9"}),
        ("192.0.2.9", {"192.0.2.9"}),
        ("10.1.2.3", {"10.0.0.0/8"}),
        ("2001:db8::1", {"2001:db8::/64"}),
        ("2001:db8:0:1::/64", set()),
        ("2001:db7:ffff::/48", set()),
        ("2001:db8::/32", {"2001:db8::/64"}),
        ("::/0", {"2001:db8::/64"}),
        ("11.0.0.0/8", set()),
        ("10.255.255.255", {"10.0.0.0/8"}),
        ("8.0.0.0/6", {"10.0.0.0/8"}),
        ("0.0.0.0/0", {"192.0.2.10", "192.0.2.9", "10.0.0.0/8"}),
        ("192.0.2.", {"192.0.2.10", "192.0.2.9"}),
        ("alice", {"192.0.2.10"}),
        ("HAND", {"10.0.0.0/8"}),
        ("slow", {"192.0.2.9"}),
        ("nothing", set()),
    ],
)
def test_the_search_finds_addresses_and_texts(search: str, found: set[str]) -> None:
    """An address finds the bans that cover it, a network those within it, a text what contains it."""
    page = page_of(ROWS_KNOWN, Query(search))

    assert {one["address"] for one in page.rows} == found
    assert (page.found, page.total) == (len(found), 4)


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("address", "10.0.0.0/8", "2001:db8::/64"),
        ("left", "192.0.2.9", "192.0.2.10"),
        ("packets", "2001:db8::/64", "10.0.0.0/8"),
        ("rule", "2001:db8::/64", "192.0.2.9"),
    ],
)
def test_the_order(sort: str, first: str, last: str) -> None:
    """Addresses are sorted by number, and times left by the ends of the bans; the unknown comes first.

    A ban without an end is the longest. The kernel's entry of a ban may end before the ban.
    """
    up = page_of(ROWS_KNOWN, Query(sort=sort, descending=False)).rows
    down = page_of(ROWS_KNOWN, Query(sort=sort, descending=True)).rows

    assert (up[0]["address"], up[-1]["address"]) == (first, last)
    assert (down[0]["address"], down[-1]["address"]) == (last, first)


def test_pages() -> None:
    """A page has 100 rows; a page after the end is the last one."""
    rows = [row(f"10.0.{number // 256}.{number % 256}") for number in range(250)]
    shown = page_of(rows, Query(sort="address", descending=False, page=3))

    assert (len(shown.rows), shown.number, shown.pages) == (50, 3, 3)
    assert shown.rows[0]["address"] == "10.0.0.200"
    assert page_of(rows, Query(page=99)).number == 3
    assert page_of([], Query(page=2)).pages == 1


@pytest.mark.parametrize(
    ("parameters", "query"),
    [
        ({}, Query()),
        ({"sort": "address"}, Query(sort="address", descending=False)),
        ({"sort": "address", "order": "down", "page": "2", "q": " x "}, Query("x", "address", True, 2)),  # noqa: FBT003
        ({"sort": "__class__", "page": "-1"}, Query(descending=False)),
        ({"page": "1" * 5_000}, Query()),
        ({"page": "²"}, Query()),
    ],
)
def test_the_query_of_an_address(parameters: dict[str, str], query: Query) -> None:
    """Invalid parameters are as if they were left out."""
    assert query_from(parameters) == query


def test_a_page_has_a_part_of_ten_thousand_bans() -> None:
    """In every order a page has ``ROWS`` of the bans."""
    rows = [row(f"10.{number * 7919 % 251}.{number // 256}.{number % 256}") for number in range(10_000)]
    for sort in SORTABLE:
        assert len(page_of(rows, Query(sort=sort)).rows) == ROWS


@pytest.mark.parametrize("address", ["10.{}.{}.{}", "2001:db8:{}:{}{:02}::/64"])
def test_a_network_is_found_among_ten_thousand_bans(address: str) -> None:
    """A search for a network finds the bans in it, for IPv4 and IPv6."""
    numbers = [(number % 251, number // 100, number % 100) for number in range(10_000)]
    rows = [row(address.format(*number)) for number in numbers]
    wanted = "10.0.0.0/31" if "." in address else "2001:db8::/64"
    assert 1 <= page_of(rows, Query(wanted)).found <= 2


def test_bans_that_have_ended_are_left_out() -> None:
    """A list of the daemon may be a minute old. A ban without an end stays."""
    found = current(ROWS_KNOWN, "2026-11-21T03:40:00Z")

    assert [row["address"] for row in found] == ["192.0.2.10", "2001:db8::/64", "10.0.0.0/8"]
