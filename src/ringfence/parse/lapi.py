"""The answers of CrowdSec's local API: bytes in, decisions out.

The content is untrusted. A body that is not the JSON of its kind raises ValueError, and so does a cut one. A
single decision that cannot be used is left out and counted, because other programs have decisions of other
types and scopes. Texts are bounded. They are not escaped here.

An answer may be well-formed although it lacks decisions: CrowdSec 1.7 writes such an answer, with status
200, if its database fails midway. So a missing decision never means that it ended.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_network
from math import isnan, nan
from typing import Any

from attrs import frozen

from ringfence.model import Network, parse_network

MAX_TEXT = 200
"""The maximum length of an origin and of a scenario."""
MAX_TOKEN = 16_384
MAX_SECONDS = 10 * 366 * 86_400.0
"""The longest time that a decision may have left. A longer one is shortened to this."""

_LONGEST_VALUE = 50  # an IPv6 address in full, with the length of a network
_MAX_DURATION = 64
_MAX_ID = 2**63
_UNITS = {"h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_SCOPES = frozenset({"ip", "range"})


@frozen
class LapiDecision:
    """A decision to ban a network. ``seconds`` is the time that it has left, not positive if it has ended."""

    number: int
    network: Network
    scenario: str
    origin: str
    seconds: float


@frozen
class DecisionPage:
    """An answer of the stream of decisions.

    ``left_out`` has the number of each new decision that cannot be used, None for one without a number.
    """

    new: tuple[LapiDecision, ...] = ()
    deleted: tuple[LapiDecision, ...] = ()
    left_out: tuple[int | None, ...] = ()


@frozen
class Login:
    """The answer to a login. ``expires`` is in seconds since the epoch, by the server's clock."""

    token: str
    expires: float


def parse_duration(text: str) -> float:
    """Parse a duration as Go writes it, such as ``-1h2m3.5s``; return seconds. Raise ValueError."""
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if len(text) > _MAX_DURATION or not rest:
        raise ValueError("not a duration")
    if rest == "0":
        return 0.0
    seconds, at = 0.0, 0
    while at < len(rest):
        number, at = _run(rest, at, digits=True)
        unit, at = _run(rest, at, digits=False)
        seconds += _number(number) * _UNITS.get(unit, nan)
    if isnan(seconds):  # a unit is unknown
        raise ValueError("not a duration")
    return -seconds if text[0] == "-" else seconds


def _run(text: str, at: int, *, digits: bool) -> tuple[str, int]:
    """Return the longest run of characters of one kind from ``at`` on, and where it ends."""
    end = at
    while end < len(text) and (text[end] in "0123456789.") is digits:
        end += 1
    return text[at:end], end


def _number(text: str) -> float:
    if not text or text.count(".") > 1 or text == ".":
        raise ValueError("not a duration")
    return float(text)


def parse_page(body: bytes) -> DecisionPage:
    """Parse an answer of the stream of decisions; raise ValueError if it is none."""
    whole = _object(body)
    if "new" not in whole and "deleted" not in whole:
        raise ValueError("the answer has no decisions")
    new, deleted = [*_decisions(whole.get("new"))], [*_decisions(whole.get("deleted"))]
    usable = tuple(one for one in new if isinstance(one, LapiDecision))
    ended = tuple(one for one in deleted if isinstance(one, LapiDecision))
    return DecisionPage(usable, ended, tuple(one for one in new if not isinstance(one, LapiDecision)))


def parse_decisions(body: bytes) -> tuple[LapiDecision, ...]:
    """Parse the decisions about one address (``GET /v1/decisions``); raise ValueError if it is no list."""
    return tuple(one for one in _decisions(_json(body)) if isinstance(one, LapiDecision))


def _decisions(rows: Any) -> Iterator[LapiDecision | int | None]:  # noqa: ANN401 - whatever JSON holds
    """Yield each decision; of one that cannot be used its number, None if it has none."""
    if rows is None:
        return
    if not isinstance(rows, list):
        raise ValueError("the decisions are no list")  # noqa: TRY004 - bytes, not code
    for row in rows:
        try:
            yield _decision(row)
        except (ValueError, TypeError, KeyError):
            yield _id_of(row)


def _id_of(row: Any) -> int | None:  # noqa: ANN401 - whatever JSON holds
    number = row.get("id") if isinstance(row, dict) else None
    return number if type(number) is int and 0 <= number < _MAX_ID else None


def _decision(row: Any) -> LapiDecision:  # noqa: ANN401 - whatever JSON holds
    """Return a decision; raise ValueError, TypeError or KeyError if it cannot be used."""
    number, value, scope = _id_of(row), row["value"], row["scope"]
    scenario, origin = row["scenario"], row["origin"]
    texts = (value, scope, scenario, origin)
    if number is None or not all(isinstance(one, str) for one in texts):
        raise ValueError("not a decision")
    if len(scenario) > MAX_TEXT or len(origin) > MAX_TEXT:
        raise ValueError("a text is too long")
    if row["type"] != "ban" or scope.lower() not in _SCOPES:
        raise ValueError("a decision of another kind")
    seconds = min(parse_duration(row["duration"]), MAX_SECONDS)
    return LapiDecision(number, _network_of(value), scenario, origin, seconds)


def _network_of(value: str) -> Network:
    """Parse the value of a decision; raise ValueError. CrowdSec keeps a network as typed: 192.0.2.7/24."""
    if len(value) > _LONGEST_VALUE:
        raise ValueError("too long for a network")
    return _parsed(value)


@lru_cache(4_096)  # each request for all decisions brings nearly all of them again
def _parsed(value: str) -> Network:
    return parse_network(str(ip_network(value, strict=False)) if "/" in value else value)


def parse_login(body: bytes) -> Login:
    """Parse the answer to a login; raise ValueError if it is none."""
    whole = _object(body)
    token, expire = whole.get("token"), whole.get("expire")
    if not isinstance(token, str) or not isinstance(expire, str) or not 0 < len(token) <= MAX_TOKEN:
        raise ValueError("the answer has no token")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token has characters that no token has")
    when = datetime.fromisoformat(expire)
    if when.tzinfo is None:
        raise ValueError("the token has no end")
    return Login(token, when.timestamp())


def _json(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse JSON; raise ValueError."""
    try:
        return json.loads(body.decode())
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None


def _object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object; raise ValueError."""
    whole = _json(body)
    if not isinstance(whole, dict):
        raise ValueError("the answer is no JSON object")  # noqa: TRY004 - bytes, not code
    return whole
