"""The locations of addresses in answers to commands."""

import asyncio
import os
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.mmdb import Number, write

from ringfence.lists import locator as module
from ringfence.lists.locator import Locator
from ringfence.values.location import UNKNOWN

NL = {
    "country": {"iso_code": "NL"},
    "autonomous_system_number": Number(6, 64_496),
    "autonomous_system_organization": "Example",
}
HERE, ELSEWHERE = ip_address("198.18.1.101"), ip_address("203.0.113.7")


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> Path:
    return write(tmp_path / "geo.mmdb", [("198.18.0.0/15", NL), ("2001:db8::/32", NL)])


def test_an_address_has_a_country_and_an_operator(database: Path) -> None:
    """A location always has the same keys; they are empty if no database has the address."""
    found = Locator([database]).read([HERE, ELSEWHERE, HERE])

    assert found == [{"country": "NL", "asn": "AS64496", "organisation": "Example"}, UNKNOWN, found[0]]


def test_rows_get_the_country_of_their_address(database: Path) -> None:
    """The key may have an address or a network, of IPv4 or IPv6."""
    rows = [{"subject": text} for text in ("198.18.1.101", "2001:db8:1:2::/64", "203.0.113.7")]
    found = asyncio.run(Locator([database]).add_to(rows, "subject"))

    assert [(row["subject"], row["country"]) for row in found] == [
        ("198.18.1.101", "NL"),
        ("2001:db8:1:2::/64", "NL"),
        ("203.0.113.7", ""),
    ]


def test_without_a_database_nothing_is_read(tmp_path: Path) -> None:
    """Without a database, and with one that is missing, each location is unknown."""
    assert asyncio.run(Locator().of([HERE])) == [UNKNOWN]
    assert asyncio.run(Locator([tmp_path / "none.mmdb"]).of([HERE])) == [UNKNOWN]


def test_a_changed_database_is_read_again(database: Path, tmp_path: Path) -> None:
    """A location is remembered until a file or the configuration changes."""
    locations = Locator([database])
    assert locations.read([HERE])[0]["country"] == "NL"
    other = write(tmp_path / "other.mmdb", [("198.18.0.0/15", NL | {"country": {"iso_code": "DE"}})])
    other.replace(database)
    os.utime(database, (1, 1))
    assert locations.read([HERE])[0]["country"] == "DE"
    locations.configure([])
    assert asyncio.run(locations.of([HERE])) == [UNKNOWN]


def test_the_memory_is_bounded(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a number of addresses are remembered, whatever is asked."""
    monkeypatch.setattr(module, "MOST", 10)
    locations = Locator([database])
    for number in range(100):
        locations.read([ip_address(f"198.18.2.{number}")])
    assert len(locations._known) <= 10
