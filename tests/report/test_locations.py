"""Countries and network numbers of a report's addresses."""

from pathlib import Path

from tests.report.test_summary import top
from tests.support.mmdb import write

from ringfence.report.locations import locations_by_name


def test_each_address_gets_its_country(tmp_path: Path) -> None:
    """What a database has is returned by the name of the row; for an IPv6 /64 its first address counts."""
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
