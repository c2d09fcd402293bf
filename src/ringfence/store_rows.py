"""How attempts and friends stand in the database's rows, written and read again."""

import sys
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton
from sqlite3 import Cursor
from typing import Any

from ringfence.model import (
    Address,
    Attempt,
    AttemptKind,
    EventKind,
    Friend,
    Proof,
    Service,
    Tie,
    Transport,
)

Execute = Callable[..., Cursor]

ATTEMPT = (
    "time, asterisk, address, kind, proof, service, transport, account, event, trusted, tampered, sources"
)
"""An attempt's columns, in the order of :func:`attempt_row`."""

MOST_FRIENDS = 131_072
"""So many reasons of friends are kept, those that are over among them: twice what there may be at a time."""

_BETWEEN = "\n"  # a log's path may have blanks

_FRIEND = "asterisk, address, account, tie, since, seen, until"


def add_attempt(execute: Execute, ban: int, attempt: Attempt) -> None:
    """Write one attempt of a ban."""
    execute(_ADD_ATTEMPT, (ban, *attempt_row(attempt)))


def attempt_row(attempt: Attempt) -> tuple[object, ...]:
    """Give what is written of an attempt."""
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


def attempt_of(row: list[Any]) -> Attempt:
    """Read an attempt; ValueError where somebody has written something else there."""
    time, asterisk, address, kind, proof, service, transport, account, event, trusted, tampered, sources = row
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


def address_of(text: str) -> Address:
    """Read an address as it was written here: a third of what ``ip_address`` takes."""
    try:
        return (
            IPv6Address(inet_pton(AF_INET6, text)) if ":" in text else IPv4Address(inet_pton(AF_INET, text))
        )
    except OSError:
        raise ValueError(f"{text!r} is no address") from None


def add_friends(execute: Execute, friends: Iterable[Friend]) -> None:
    """Write reasons of friends; one that is there already is replaced."""
    for friend in friends:
        execute(
            f"INSERT OR REPLACE INTO friends ({_FRIEND}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - ours
            (
                friend.asterisk,
                str(friend.address),
                friend.account,
                str(friend.tie),
                friend.since,
                friend.seen,
                friend.until,
            ),
        )


def friends_in(execute: Execute, now: float, most: int) -> Iterator[Friend]:
    """Read the reasons that are not over at ``now``, those seen longest ago first; the latest ``most``."""
    yield from _friends(execute, "until > ?", "seen", now, most)


def former_in(execute: Execute, now: float, most: int) -> Iterator[Friend]:
    """Read the reasons that are over at ``now``, those that ended longest ago first; the latest ``most``."""
    yield from _friends(execute, "until <= ?", "until", now, most)


def _friends(execute: Execute, which: str, order: str, now: float, most: int) -> Iterator[Friend]:
    """Read reasons. A row that makes no sense is left out: the others are right."""
    latest = f"SELECT {_FRIEND} FROM friends WHERE {which} ORDER BY {order} DESC LIMIT ?"  # noqa: S608 - ours
    rows = execute(f"SELECT * FROM ({latest}) ORDER BY {order}", (now, most))  # noqa: S608 - ours
    for asterisk, address, account, tie, since, seen, until in rows:
        try:
            # The same few texts, many times.
            yield Friend(
                sys.intern(asterisk), address_of(address), sys.intern(account), Tie(tie), since, seen, until
            )
        except ValueError:
            continue


def purge_friends(execute: Execute, before: float) -> None:
    """Forget what was over before then, and of the rest those seen longest ago beyond MOST_FRIENDS."""
    execute("DELETE FROM friends WHERE until < ?", (before,))
    (number,) = execute("SELECT count(*) FROM friends").fetchone()
    if number > MOST_FRIENDS:
        oldest = "SELECT address, asterisk, account, tie FROM friends ORDER BY seen LIMIT ?"
        execute(
            f"DELETE FROM friends WHERE (address, asterisk, account, tie) IN ({oldest})",  # noqa: S608 - ours
            (number - MOST_FRIENDS,),
        )


_ADD_ATTEMPT = f"INSERT INTO attempts (ban, {ATTEMPT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
