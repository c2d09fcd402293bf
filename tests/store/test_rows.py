"""Conversion between values and the rows of the database."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.support.attempts import ATTEMPT

from ringfence.store.rows import ATTEMPT as COLUMNS
from ringfence.store.rows import address_of, attempt_of, attempt_row


@pytest.mark.parametrize("sources", [(), ("ami",), ("ami", "log:/var/log/a b#notice", "wire")], ids=len)
def test_the_sources_of_an_attempt_are_kept(sources: tuple[str, ...]) -> None:
    """No, one or several sources are kept, also if a log's path has blanks; each column has one value."""
    attempt = evolve(ATTEMPT, sources=sources)
    row = attempt_row(attempt)

    assert len(row) == len(COLUMNS.split(", "))
    assert attempt_of(list(row)) == attempt
    assert attempt_of(list(row)).sources == sources


@pytest.mark.parametrize("text", ["192.0.2.1", "::", "2001:db8::1", "::ffff:192.0.2.1"])
def test_addresses_are_read_as_they_were_written(text: str) -> None:
    """Both IP versions are read unchanged."""
    assert address_of(text) == ip_address(text)


@pytest.mark.parametrize("text", ["", "here", "192.0.2.1/32", "192.0.2.256", "fe80::1%eth0"])
def test_an_invalid_address_is_an_error(text: str) -> None:
    """An invalid text from another program raises ValueError, which the store reports."""
    with pytest.raises(ValueError, match="is not an address"):
        address_of(text)
