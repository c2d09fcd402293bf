"""Conversions between values and database rows, for all tables: attempts, addresses and times."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6, inet_pton
from sqlite3 import Cursor
from typing import Any

from attrs import NOTHING, Attribute, AttrsInstance, fields, frozen

from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Origin, Scope
from ringfence.values.event import EventKind, Service, Transport
from ringfence.values.network import Address, Network
from ringfence.values.text import LAST

Execute = Callable[..., Cursor]

Ended = tuple[Network, Scope, float]
"""A recorded ban: its network, its scope, and its regular end (seconds since the epoch).

The regular end is the time at which the ban expires if it is not removed before.
"""

INVALID_ROW = (ValueError, KeyError, TypeError, OverflowError, OSError)
"""Exceptions that an invalid row causes.

Such a row was edited by hand, or damaged in a way that SQLite does not detect.
"""


def shortened(text: str, most: int) -> str:
    """Return ``text`` cut to ``most`` bytes of UTF-8. Characters that UTF-8 cannot encode become ``?``."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def attempts_in(rows: Iterable[Sequence[Any]]) -> Iterator[Attempt]:
    """Yield the attempts of rows with the columns ``ATTEMPTS``. Invalid rows are left out."""
    for row in rows:
        with suppress(*INVALID_ROW):
            yield Attempt(**ATTEMPTS.values_of(row))


def address_of(text: str) -> Address:
    """Parse an address as it is stored; raise ValueError if it is invalid.

    This takes a third of the time of ``ip_address``.
    """
    try:
        return (
            IPv6Address(inet_pton(AF_INET6, text)) if ":" in text else IPv4Address(inet_pton(AF_INET, text))
        )
    except OSError:
        raise ValueError(f"{text!r} is not an address") from None


def network_of(text: str) -> Network:
    """Parse a network as it is stored, with its prefix length; raise ValueError if it is invalid.

    This takes a third of the time of ``ip_network``.
    """
    address, _, length = str.partition(text, "/")
    try:
        if ":" in address:
            return IPv6Network((inet_pton(AF_INET6, address), int(length)))
        return IPv4Network((inet_pton(AF_INET, address), int(length)))
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not a network") from None


def times(*seconds: float) -> None:
    """Raise ValueError or TypeError unless each of ``seconds`` (since the epoch) is between 0 and LAST."""
    for one in seconds:
        if not 0.0 <= float(one) <= LAST:
            raise ValueError(f"{seconds} are not times")


def _time_of(seconds: float) -> float:
    times(seconds)
    return seconds


@frozen
class _Stored:
    """How values of a type are stored: the type of the column, and the conversions to it and from it."""

    sql: str
    write: Callable[[Any], object]
    read: Callable[[Any], Any]


def _names(kind: type[StrEnum]) -> _Stored:
    return _Stored("TEXT", str, {str(one): one for one in kind}.__getitem__)


_STORED: Mapping[Any, _Stored] = {
    float: _Stored("REAL", float, _time_of),
    int: _Stored("INTEGER", int, int),
    bool: _Stored("INTEGER", int, bool),
    str: _Stored("TEXT", str, sys.intern),  # 100,000 rows share a few texts
    Address: _Stored("TEXT", str, address_of),
    Network: _Stored("TEXT", str, network_of),
    Proof: _Stored("INTEGER", int, Proof),
    # A path of a log may contain blanks.
    tuple[str, ...]: _Stored("TEXT", "\n".join, lambda text: tuple(str.split(text, "\n")) if text else ()),
    **{kind: _names(kind) for kind in (AttemptKind, EventKind, Origin, Scope, Service, Transport)},
}


class Columns:
    """The columns of a table that has the fields of a class of values, without the fields ``but``.

    They follow from the types of the fields. A field with a default has the same default in the database, so
    it can be added to a database with rows.
    """

    def __init__(self, of: type[AttrsInstance], but: Collection[str]) -> None:
        kept = [one for one in fields(of) if one.name not in but]
        stored = [(one.name, _STORED[one.type]) for one in kept]
        self.names = ", ".join(name for name, _ in stored)
        self.sql = ", ".join(map(_definition, kept))
        self._writes = [(name, each.write) for name, each in stored]
        self._reads = [(name, each.read) for name, each in stored]

    def row_of(self, value: AttrsInstance) -> list[object]:
        """Return ``value``, an object of the table's class, as a row: one value for each column."""
        return [write(getattr(value, name)) for name, write in self._writes]

    def values_of(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return the fields of a row with these columns; raise one of INVALID_ROW if it is invalid."""
        return {name: read(value) for (name, read), value in zip(self._reads, row, strict=True)}


def _definition(one: "Attribute[Any]") -> str:
    stored = _STORED[one.type]
    if one.default is NOTHING:
        return f"{one.name} {stored.sql} NOT NULL"
    default = str(stored.write(one.default)).replace("'", "''")
    return f"{one.name} {stored.sql} NOT NULL DEFAULT '{default}'"


ATTEMPTS = Columns(Attempt, but=("forged_address", "session", "credentials", "page", "evidence"))
"""The columns of an attempt in the database. The fields left out are in memory only."""

_MARKS = ", ".join("?" * (1 + len(ATTEMPTS.names.split(", "))))
_ADD_ATTEMPT = f"INSERT INTO attempts (ban, {ATTEMPTS.names}) VALUES ({_MARKS})"  # noqa: S608 - ours


def add_attempt(execute: Execute, ban: int, attempt: Attempt) -> None:
    """Write one attempt of the ban with the row id ``ban``."""
    execute(_ADD_ATTEMPT, (ban, *ATTEMPTS.row_of(attempt)))
