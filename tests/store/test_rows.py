"""Conversion between values and the rows of the database."""

import sqlite3
from contextlib import closing
from ipaddress import ip_address

import pytest
from attrs import evolve, frozen
from tests.support.attempts import ATTEMPT

from ringfence.store.rows import ATTEMPTS, INVALID_ROW, Columns, address_of, attempts_in
from ringfence.values.ban import Origin


@pytest.mark.parametrize("sources", [(), ("ami",), ("ami", "log:/var/log/a b#notice", "wire")], ids=len)
def test_the_sources_of_an_attempt_are_kept(sources: tuple[str, ...]) -> None:
    """No, one or several sources are kept, also if a log's path has blanks; each column has one value."""
    attempt = evolve(ATTEMPT, sources=sources)
    row = ATTEMPTS.row_of(attempt)

    assert len(row) == len(ATTEMPTS.names.split(", "))
    [read] = attempts_in([row])
    assert read == attempt
    assert read.sources == sources


@frozen
class Fields:
    """A value with fields of some types."""

    time: float
    name: str = "it's"
    origin: Origin = Origin.RULE
    other: object = None


def test_columns_follow_from_fields() -> None:
    """A field with a default can be added to a database with rows; an invalid row raises an error."""
    columns = Columns(Fields, but=("other",))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE some (time REAL NOT NULL) STRICT")
        connection.execute("INSERT INTO some VALUES (1.0)")
        for column in columns.sql.split(", ")[1:]:
            connection.execute(f"ALTER TABLE some ADD COLUMN {column}")
        [row] = connection.execute(f"SELECT {columns.names} FROM some")  # noqa: S608 - ours

    assert Fields(**columns.values_of(row)) == Fields(1.0)
    assert columns.row_of(Fields(1.0)) == [1.0, "it's", "rule"]
    for invalid in ((-1.0, "", "rule"), (1.0, 1, "rule"), (1.0, "", "other"), (None, "", "rule")):
        with pytest.raises(INVALID_ROW):
            columns.values_of(invalid)


@pytest.mark.parametrize("text", ["192.0.2.1", "::", "2001:db8::1", "::ffff:192.0.2.1"])
def test_addresses_are_read_as_they_were_written(text: str) -> None:
    """Both IP versions are read unchanged."""
    assert address_of(text) == ip_address(text)


@pytest.mark.parametrize("text", ["", "here", "192.0.2.1/32", "192.0.2.256", "fe80::1%eth0"])
def test_an_invalid_address_is_an_error(text: str) -> None:
    """An invalid text from another program raises ValueError, which the store reports."""
    with pytest.raises(ValueError, match="is not an address"):
        address_of(text)
