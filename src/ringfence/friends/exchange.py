"""The document by which two servers of a pair exchange friends.

It is JSON lines. The first line is the head, ``{"format": "ringfence friends", "version": 1}``. Each other
line is a friend: ``{"address": "203.0.113.7", "account": "204", "asterisk": "pbx", "reason": "authenticated",
"since": "2026-11-20T10:14:03Z", "seen": …, "until": …}``. Parsing is strict: any deviation is a fault with
its line number, and a document with a fault is rejected.

Imported friends are not exported again, otherwise two servers that import from each other would keep them
forever. An imported reason ends when it would have ended on the other server, and after a month at the
latest. The reason is changed to ``imported``, unless it is ``registered``. A registered address is only the
phone's own claim, and an import does not prove it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from attrs import Factory, define, evolve

from ringfence.clock import Clock
from ringfence.control_server import Handler
from ringfence.detect.friends import MOST
from ringfence.errors import ControlError
from ringfence.friends.registry import FriendRegistry
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Network, NetworkSet
from ringfence.values.text import rfc3339

FORMAT = "ringfence friends"
VERSION = 1
LONGEST = 30 * 86_400.0
"""The longest time (seconds) for which an import makes an address a friend."""

MAX_LINE = 4_096  # bytes
MAX_TEXT = 256  # characters
_KEYS = {"address", "account", "asterisk", "reason", "since", "seen", "until"}


@define
class ParsedDocument:
    """An exported file of friends, parsed: friends, faults with line numbers, number of expired friends."""

    friends: list[Friend] = Factory(list)
    faults: list[str] = Factory(list)
    expired: int = 0


Row = Mapping[str, Any]


def lines_of(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a document, without line ends. Imported friends are left out.

    ``rows`` are as :func:`as_json` returns them.
    """
    yield json.dumps({"format": FORMAT, "version": VERSION})
    yield from (json.dumps(row) for row in rows if row["reason"] != FriendReason.IMPORTED)


def as_json(friend: Friend) -> dict[str, str]:
    """Return a friend as a row of the exported document, and of the answer to the ``friends`` command."""
    return {
        "address": str(friend.address),
        "account": friend.account,
        "asterisk": friend.asterisk,
        "reason": str(friend.reason),
        "since": rfc3339(friend.since),
        "seen": rfc3339(friend.seen),
        "until": rfc3339(friend.until),
    }


def parse_document(lines: Iterable[bytes], now: float) -> ParsedDocument:
    """Parse the lines of an exported file of friends, which is imported at ``now`` (seconds since the epoch).

    A bad line adds a fault with its line number, and parsing continues. A bad first line, or a line
    after ``MOST`` lines of friends, adds a fault too, and ends the parsing. Friends whose time is over are
    only counted (``expired``).
    """
    found = ParsedDocument()
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
            found.expired += 1
        else:
            found.friends.append(friend)
    if not number:
        found.faults.append("line 1: the file is empty: is this what `ringfence friends export` wrote?")
    return found


def _head_fault(line: bytes) -> str:
    try:
        head = _object(line)
    except ValueError as error:
        return f"{error}: is this what `ringfence friends export` wrote?"
    if head.get("format") != FORMAT:
        return f'not a list of friends, which begins with {{"format": "{FORMAT}", "version": {VERSION}}}'
    version = head.get("version")
    if version != VERSION or isinstance(version, bool):
        return f"version {json.dumps(version)[:20]} is not supported ({VERSION} is): upgrade this ringfence"
    return ""


def _object(line: bytes) -> Row:
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a fault of the text
    return value


def friend_from(row: Row, now: float) -> Friend:
    """Parse one friend, a row as :func:`as_json` returns it; raise ValueError if it is invalid.

    The friend is imported at ``now`` (seconds since the epoch), and ends after 30 days at the latest.
    A proven reason becomes IMPORTED. REGISTERED, which is only the phone's own claim, stays REGISTERED.
    """
    if row.keys() != _KEYS:
        strange = sorted(row.keys() - _KEYS) or sorted(_KEYS - row.keys())
        verb = "is unknown" if row.keys() - _KEYS else "is missing"
        raise ValueError(f"{json.dumps(strange[0])[:40]} {verb}")
    texts = {key: _text(key, value) for key, value in row.items()}
    address = ip_address(texts["address"])
    if address.is_loopback or address.is_unspecified or address.is_multicast or "%" in texts["address"]:
        raise ValueError(f"{address} cannot be a phone")
    try:
        reason = FriendReason(texts["reason"])
    except ValueError:
        raise ValueError(f"reason: one of {', '.join(FriendReason)}") from None
    since, seen, until = (_moment(key, texts[key]) for key in ("since", "seen", "until"))
    if not since <= seen <= until:
        raise ValueError("since, seen and until are not in order")
    friend = Friend(texts["asterisk"], address, texts["account"], reason, since, seen, until)
    return evolve(
        friend,
        reason=FriendReason.IMPORTED if friend.proven else reason,
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
    """Parse a time of RFC 3339, in UTC, to the second; return seconds since the epoch.

    Raise ValueError for any other text; the message begins with ``key``, the name of the value.
    """
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{key}: must be a time such as 2026-11-20T10:14:03Z") from None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)


# -- the control socket's requests about friends
#
# A *reason* is one reason why an address is a friend. The answer to ``{"do": "friends"}`` is a list of all
# reasons; with ``networks``, only the reasons of addresses in these networks. ``friends_forget`` has an
# ``address``. It removes all reasons of this address, and returns their number. ``friends_import`` has
# ``friends`` as in a document (``exchange``). They come in parts, because requests have a size limit. All
# parts have the same ``transfer``, and all but the last have ``more``. Nothing is imported before all parts
# have arrived and are valid.


_ROWS = 500  # friends of one part of the answer


class FriendRequests:
    """Handles requests about the friends of ``registry``."""

    def __init__(self, registry: FriendRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._transfer: object = None
        self._arrived: list[Friend] = []

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the requests that change friends, by the name of the request."""
        return {"friends_import": self.import_part, "friends_forget": self.forget}

    def listed(self, networks: Sequence[Network] | None = None) -> Iterator[bytes]:
        """Yield all reasons why addresses are friends now, as one JSON list, in parts.

        With ``networks`` only the reasons of addresses in one of them are listed.
        """
        friends: Iterable[Friend] = self._registry.friends.all()
        if networks is not None:
            wanted = NetworkSet(networks)
            friends = (one for one in friends if wanted.covers(one.address))
        yield from _in_parts(friends)

    def import_part(self, request: Mapping[str, Any]) -> object:
        """Accept the ``friends`` (rows) of a part of an import; return how many have arrived so far.

        Parts of one import have the same ``transfer``, and all but the last one have ``more``. ``before`` is
        how many friends the earlier parts had, none by default.
        With the last part all of them are imported, except those that ended meanwhile; return their number.
        Raise ControlError if a friend is invalid, or if another import has come between: then none of them is
        imported.
        """
        if request.get("transfer") != self._transfer:
            if request.get("before"):
                raise ControlError("no friend was imported, because another import came between; try again")
            self._transfer, self._arrived = request.get("transfer"), []
        try:
            now = self._clock.wall()
            self._arrived += [friend_from(row, now) for row in request["friends"]]
            if len(self._arrived) > MOST:
                raise ValueError(f"more than {MOST}")  # noqa: TRY301 - as every other fault
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._transfer, self._arrived = None, []
            raise ControlError(f"no friend was imported, because one is invalid: {error}") from None
        if request.get("more") is True:
            return len(self._arrived)
        friends = [friend for friend in self._arrived if friend.until > now]
        self._transfer, self._arrived = None, []
        self._registry.add(friends)
        self._registry.write()
        return len(friends)

    def forget(self, request: Mapping[str, Any]) -> object:
        """Forget all reasons why the ``address`` in ``request`` is a friend; return their number.

        Raise ControlError if it is not an address.
        """
        try:
            address = ip_address(str(request["address"]))
        except (LookupError, ValueError) as error:
            raise ControlError(f"not an address: {error}") from None
        return self._registry.forget(address)


def _in_parts(friends: Iterable[Friend]) -> Iterator[bytes]:
    rows: list[str] = []
    between = "["
    for friend in friends:
        rows.append(json.dumps(as_json(friend)))
        if len(rows) == _ROWS:
            yield (between + ", ".join(rows)).encode()
            between = ", "
            rows.clear()
    if rows:
        yield (between + ", ".join(rows)).encode()
        between = ", "
    yield b"]" if between == ", " else b"[]"
