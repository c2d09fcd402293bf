"""Conversions between values and database rows, for all tables: attempts, addresses and times."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton
from sqlite3 import Cursor
from typing import Any

from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.event import EventKind, Service, Transport
from ringfence.values.network import Address, Network

Execute = Callable[..., Cursor]

Ended = tuple[Network, Scope, float]
"""A recorded ban: its network, its scope, and its regular end (seconds since the epoch).

The regular end is the time at which the ban expires if it is not removed before.
"""

ATTEMPT = (
    "time, asterisk, address, kind, proof, service, transport, account, event, trusted, tampered, sources"
)
"""The columns of an attempt in the database, in the order of :func:`attempt_row`."""

INVALID_ROW = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError)
"""Exceptions that an invalid row causes.

Such a row was edited by hand, or damaged in a way that SQLite does not detect.
"""

LAST = 253_402_300_799.0
"""The last second of the year 9999, because later times cannot be formatted."""

_BETWEEN = "\n"  # between the names of an attempt's sources, because a log's path may contain blanks


def shortened(text: str, most: int) -> str:
    """Return ``text`` cut to ``most`` bytes of UTF-8. Characters that UTF-8 cannot encode become ``?``."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def add_attempt(execute: Execute, ban: int, attempt: Attempt) -> None:
    """Write one attempt of the ban with the row id ``ban``."""
    execute(_ADD_ATTEMPT, (ban, *attempt_row(attempt)))


def attempt_row(attempt: Attempt) -> tuple[object, ...]:
    """Return the values of an attempt for the columns ``ATTEMPT``."""
    return (
        attempt.time,
        attempt.asterisk,
        str(attempt.address),
        str(attempt.kind),
        int(attempt.proof),
        str(attempt.service),
        str(attempt.transport),
        attempt.account,
        str(attempt.event),
        int(attempt.trusted),
        int(attempt.tampered),
        _BETWEEN.join(attempt.sources),
    )


def attempt_of(row: Sequence[Any]) -> Attempt:
    """Return the attempt of a row with the columns ``ATTEMPT``; raise one of INVALID_ROW if it is invalid."""
    time, asterisk, address, kind, proof, service, transport, account, event, trusted, tampered, sources = row
    times(time)
    return Attempt(
        asterisk=asterisk,
        address=address_of(address),
        kind=AttemptKind(kind),
        proof=Proof(proof),
        service=Service(service),
        transport=Transport(transport),
        account=account,
        event=EventKind(event),
        time=time,
        trusted=bool(trusted),
        tampered=bool(tampered),
        sources=tuple(sources.split(_BETWEEN)) if sources else (),
    )


def attempts_in(rows: Iterable[Sequence[Any]]) -> Iterator[Attempt]:
    """Yield the attempts of rows with the columns ``ATTEMPT``. Invalid rows are left out."""
    for row in rows:
        with suppress(*INVALID_ROW):
            yield attempt_of(row)


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


def times(*seconds: float) -> None:
    """Raise ValueError or TypeError unless each of ``seconds`` (since the epoch) is from 0 to LAST."""
    for one in seconds:
        if not 0.0 <= float(one) <= LAST:
            raise ValueError(f"{seconds} are not times")


_ADD_ATTEMPT = f"INSERT INTO attempts (ban, {ATTEMPT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
