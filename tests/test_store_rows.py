"""What stands in the rows of the database is what comes out of them."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.support.attempts import ATTEMPT

from ringfence.store_rows import ATTEMPT as COLUMNS
from ringfence.store_rows import address_of, attempt_of, attempt_row


@pytest.mark.parametrize("sources", [(), ("ami",), ("ami", "log:/var/log/a b#notice", "wire")], ids=len)
def test_the_witnesses_of_an_attempt_are_kept(sources: tuple[str, ...]) -> None:
    """Nobody, one or many, also where a log's path has blanks; one value a column."""
    attempt = evolve(ATTEMPT, sources=sources)
    row = attempt_row(attempt)

    assert len(row) == len(COLUMNS.split(", "))
    assert attempt_of(list(row)) == attempt
    assert attempt_of(list(row)).sources == sources


@pytest.mark.parametrize("text", ["192.0.2.1", "::", "2001:db8::1", "::ffff:192.0.2.1"])
def test_addresses_are_read_as_they_were_written(text: str) -> None:
    """Both versions come back as they were."""
    assert address_of(text) == ip_address(text)


@pytest.mark.parametrize("text", ["", "here", "192.0.2.1/32", "192.0.2.256", "fe80::1%eth0"])
def test_what_is_no_address_is_an_error(text: str) -> None:
    """Somebody has written there: ValueError, which the store tells."""
    with pytest.raises(ValueError, match="is no address"):
        address_of(text)
