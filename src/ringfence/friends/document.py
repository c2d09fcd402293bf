"""Friends as a document: how one server of a pair tells the other.

JSON lines. The first is the head, ``{"format": "ringfence friends", "version": 1}``; each other one is a
friend: ``{"address": "203.0.113.7", "account": "204", "asterisk": "pbx", "tie": "authenticated",
"since": "2026-11-20T10:14:03Z", "seen": …, "until": …}``. Read strictly: what is not exactly that is a fault
with its line, and a document with a fault is not taken.

What was imported itself is not exported again: two servers that import from each other would keep it going in
circles. An imported reason ends when it would have ended there, and a month from now at the latest. What is
only a phone's own word stays that.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from attrs import Factory, define, evolve

from ringfence.detect.friends import MOST
from ringfence.model import Friend, Tie, rfc3339

FORMAT = "ringfence friends"
VERSION = 1
LONGEST = 30 * 86_400.0
"""So long (seconds) from now an imported friend lasts at most."""

MAX_LINE = 4_096  # bytes
MAX_TEXT = 256  # characters
_KEYS = {"address", "account", "asterisk", "tie", "since", "seen", "until"}


@define
class Read:
    """What a document says: its friends, its faults with their lines, and how many friends are over."""

    friends: list[Friend] = Factory(list)
    faults: list[str] = Factory(list)
    over: int = 0


Row = Mapping[str, Any]


def lines_of(rows: Iterable[Row]) -> Iterator[str]:
    """Write friends, as :func:`as_json` gives them, as a document: line by line, without line ends."""
    yield json.dumps({"format": FORMAT, "version": VERSION})
    yield from (json.dumps(row) for row in rows if row["tie"] != Tie.IMPORTED)


def as_json(friend: Friend) -> dict[str, str]:
    """Give a reason as a line of a document has it, and as commands are told it."""
    return {
        "address": str(friend.address),
        "account": friend.account,
        "asterisk": friend.asterisk,
        "tie": str(friend.tie),
        "since": rfc3339(friend.since),
        "seen": rfc3339(friend.seen),
        "until": rfc3339(friend.until),
    }


def read(lines: Iterable[bytes], now: float) -> Read:
    """Read a document, as an import takes it at ``now``."""
    found = Read()
    number = 0
    for number, line in enumerate(lines, start=1):
        if number == 1:
            fault = _head_fault(line)
            if fault:
                found.faults.append(f"line 1: {fault}")
                return found
            continue
        if number > MOST + 1:
            found.faults.append(f"line {number}: more than {MOST} friends are not kept")
            break
        if not line.strip():
            continue
        try:
            friend = friend_from(_object(line), now)
        except ValueError as error:
            found.faults.append(f"line {number}: {error}")
            continue
        if friend.until <= now:
            found.over += 1
        else:
            found.friends.append(friend)
    if not number:
        found.faults.append("line 1: there is nothing: is this what `ringfence friends export` wrote?")
    return found


def _head_fault(line: bytes) -> str:
    try:
        head = _object(line)
    except ValueError as error:
        return f"{error}: is this what `ringfence friends export` wrote?"
    if head.get("format") != FORMAT:
        return f'no document of friends: it begins with {{"format": "{FORMAT}", "version": {VERSION}}}'
    version = head.get("version")
    if version != VERSION or isinstance(version, bool):
        return f"version {json.dumps(version)[:20]} is not known here ({VERSION} is): upgrade this ringfence"
    return ""


def _object(line: bytes) -> Row:
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - a fault of the text
    return value


def friend_from(row: Row, now: float) -> Friend:
    """Read one friend as it is imported at ``now``; ValueError says what is wrong with it."""
    if row.keys() != _KEYS:
        strange = sorted(row.keys() - _KEYS) or sorted(_KEYS - row.keys())
        verb = "is not known" if row.keys() - _KEYS else "is missing"
        raise ValueError(f"{json.dumps(strange[0])[:40]} {verb}")
    texts = {key: _text(key, value) for key, value in row.items()}
    address = ip_address(texts["address"])
    if address.is_loopback or address.is_unspecified or address.is_multicast or "%" in texts["address"]:
        raise ValueError(f"no phone is at {address}")
    try:
        tie = Tie(texts["tie"])
    except ValueError:
        raise ValueError(f"tie: one of {', '.join(tie for tie in Tie)}") from None
    since, seen, until = (_moment(key, texts[key]) for key in ("since", "seen", "until"))
    if not since <= seen <= until:
        raise ValueError("since, seen and until are not in order")
    friend = Friend(texts["asterisk"], address, texts["account"], tie, since, seen, until)
    return evolve(
        friend,
        tie=Tie.IMPORTED if friend.proven else tie,
        since=min(since, now),
        seen=min(seen, now),
        until=min(until, now + LONGEST),
    )


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{key}: must be a text of at most {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key}: half a character") from None
    return value


def _moment(key: str, text: str) -> float:
    """Read a time as RFC 3339 has it, in UTC, to the second: as it was written."""
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{key}: must be a time such as 2026-11-20T10:14:03Z") from None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
