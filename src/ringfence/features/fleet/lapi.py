"""The answers of CrowdSec's local API: bytes in, decisions out.

The content is untrusted. A body that is not the JSON of its kind raises ValueError, and so does a cut one. A
single decision that cannot be used is left out and counted, because other programs have decisions of other
types and scopes. Texts are bounded. They are not escaped here.

An answer is decoded decision by decision: Python's objects of 24 MB of nested JSON would take 750 MB. Bounded
are the number of decisions, the bytes of each, and the memory of all texts.

An answer may be well-formed although it lacks decisions: CrowdSec 1.7 writes such an answer, with status
200, if its database fails midway. So a missing decision never means that it ended.
"""

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_network
from itertools import starmap
from math import isnan, nan
from typing import Any

from attrs import Factory, define, field, frozen

from ringfence.values.network import Network, pack, parse_network, unpack

MAX_TEXT = 200
"""The maximum length (characters) of a decision's origin and of its scenario."""
MAX_TOKEN = 16_384
MAX_LOGIN = 65_536
"""The maximum size of the answer to a login at CrowdSec, in bytes."""
MAX_SECONDS = 10 * 366 * 86_400.0
"""The longest time that a decision may have left (seconds). A longer time is shortened to this."""
MOST_ROWS = 300_000
"""The maximum number of decisions in an answer: twice as many as fit into 24 MB as CrowdSec writes them."""
MAX_ROW = 8_192
"""The maximum size of a decision in bytes. A longer one is left out."""
MOST_TEXTS = 8 << 20
"""The memory of all different texts in an answer, in bytes. A decision for which none is left is left out."""
MOST_MARKS = 500_000
"""The maximum number of JSON members of an answer, and of brackets and texts in skipped values."""
MAX_SKIPPED = 1 << 16
"""The longest text of JSON that is skipped or taken at once, in bytes: no other thread runs meanwhile."""

_LONGEST_VALUE = 50  # an IPv6 address in full, with the length of a network
_MAX_DURATION = 64
_MAX_ID = 2**63
_UNITS = {"h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_SCOPES = frozenset({"ip", "range"})


def _packed(network: Network | int) -> int:
    return network if isinstance(network, int) else pack(network)


@frozen
class LapiDecision:
    """CrowdSec's decision to ban a network; it has ``seconds`` left, 0 or fewer if it has ended.

    An answer may have more than 100 000, so the network is kept as an integer (``values.network.pack``).
    """

    number: int
    packed: int = field(converter=_packed)
    scenario: str
    origin: str
    seconds: float

    @property
    def network(self) -> Network:
        """The network that this decision bans."""
        return unpack(self.packed)


Fields = tuple[int, int, str, str, float]
"""The values of a :class:`LapiDecision`, in the order of its fields."""


@frozen
class Decisions(Collection[LapiDecision]):
    """The decisions of an answer of CrowdSec, kept as tuples. Each is an object only while in use.

    The garbage collector passes over plain tuples of numbers and texts. With 200 000 objects, one of its
    searches would stop the event loop for 50 ms and more.
    """

    _kept: tuple[Fields, ...] = ()

    def __len__(self) -> int:
        """Return the number of decisions."""
        return len(self._kept)

    def __iter__(self) -> Iterator[LapiDecision]:
        """Yield the decisions in order."""
        return starmap(LapiDecision, self._kept)

    def __contains__(self, item: object) -> bool:
        """Whether a decision is one of these."""
        return any(one == item for one in self)


@frozen
class DecisionPage:
    """An answer of CrowdSec's stream of decisions: what is new, and what is deleted.

    ``left_out`` has the number of each new decision that cannot be used, None for one without a number.
    """

    new: Collection[LapiDecision] = Decisions()
    deleted: Collection[LapiDecision] = Decisions()
    left_out: tuple[int | None, ...] = ()


@frozen
class Login:
    """CrowdSec's answer to a login: ``token`` is valid until ``expires`` (epoch seconds by its clock)."""

    token: str
    expires: float


def parse_duration(text: str) -> float:
    """Parse a duration as Go writes it, such as ``-1h2m3.5s``; return seconds, or raise ValueError."""
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
    """Return the run of digits (``digits``) or of other characters from ``at`` on, and where it ends."""
    end = at
    while end < len(text) and (text[end] in "0123456789.") is digits:
        end += 1
    return text[at:end], end


def _number(text: str) -> float:
    if not text or text.count(".") > 1 or text == ".":
        raise ValueError("not a duration")
    return float(text)


def parse_page(body: bytes) -> DecisionPage:
    """Parse an answer of CrowdSec's stream of decisions; raise ValueError if it is another answer."""
    reader = _Reader(body)
    found = reader.lists({b'"new"': [], b'"deleted"': []})
    if not reader.has_lists:
        raise ValueError("the answer has no decisions")
    new, deleted = found[b'"new"'], found[b'"deleted"']
    usable = Decisions(tuple(one for one in new if isinstance(one, tuple)))
    ended = Decisions(tuple(one for one in deleted if isinstance(one, tuple)))
    return DecisionPage(usable, ended, tuple(one for one in new if not isinstance(one, tuple)))


def parse_decisions(body: bytes) -> tuple[LapiDecision, ...]:
    """Parse CrowdSec's decisions about one address (``GET /v1/decisions``); raise ValueError if no list."""
    reader = _Reader(body)
    rows = [*reader.rows()]
    reader.end()
    return tuple(LapiDecision(*one) for one in rows if isinstance(one, tuple))


# -- an answer, decision by decision

_BLANK = re.compile(rb"[ \t\r\n]*+")
# The alternatives of each group begin differently, so a match that fails takes linear time.
_TEXT = rb'"(?:[^"\\]++|\\.)*"'
_STRING = re.compile(_TEXT, re.DOTALL)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]{1,64}+")
_MARK = re.compile(rb'["{}\[\]]')
_FLAT = rb"[^\"{}\[\]]++|" + _TEXT
# An object with texts, numbers, and objects or lists of these: more than CrowdSec writes.
_ROW = re.compile(rb"\{(?:" + _FLAT + rb"|[{\[](?:" + _FLAT + rb")*[}\]])*\}", re.DOTALL)

_Row = Fields | int | None
"""The values of a decision; of an unusable one only its number, None if it has none."""


@define
class _Reader:
    """Reads CrowdSec's JSON answer from beginning to end. Its methods raise ValueError if it is not JSON.

    ``has_lists``: one of the wanted lists of decisions was found.
    """

    _body: bytes
    has_lists: bool = False
    _at: int = 0
    _rows_left: int = Factory(lambda: MOST_ROWS)
    _marks_left: int = Factory(lambda: MOST_MARKS)
    _texts_left: int = Factory(lambda: MOST_TEXTS)
    _texts: dict[str, str] = Factory(dict)

    def lists(self, found: Mapping[bytes, list[_Row]]) -> Mapping[bytes, list[_Row]]:
        """Read the whole answer, an object; add each decision to the list in ``found`` of its key.

        The keys are JSON texts, such as ``b'"new"'``. Return ``found``.
        """
        self._expect(b"{")
        more = not self._accept(b"}")
        while more:
            self._count_mark()
            self._blank()
            name = self._text()
            self._expect(b":")
            if name in found:
                self.has_lists = True
                found[name].extend(self.rows())
            else:
                self._skip()
            more = self._goes_on(b"}")
        self.end()
        return found

    def rows(self) -> Iterator[_Row]:
        """Yield each decision of a list; none for ``null``, as CrowdSec 1.4.6 writes an empty list."""
        if self._accept(b"null"):
            return
        if not self._accept(b"["):
            raise ValueError("the decisions are no list")
        more = not self._accept(b"]")
        while more:
            self._rows_left -= 1
            if self._rows_left < 0:
                raise ValueError(f"the answer has more than {MOST_ROWS} decisions")
            yield self._row()
            more = self._goes_on(b"]")

    def end(self) -> None:
        """Raise ValueError unless the answer ends here."""
        self._blank()
        if self._at != len(self._body):
            raise ValueError("Extra data")

    def _row(self) -> _Row:
        self._blank()
        start, found = self._at, _ROW.match(self._body, self._at, self._at + MAX_ROW)
        if found is None:
            self._skip()
        else:
            self._at = found.end()
        if self._at - start > MAX_ROW:
            return None
        row = _json(self._body[start : self._at])
        try:
            return self._kept(_decision(row))
        except (ValueError, TypeError, KeyError):
            return _id_of(row)

    def _kept(self, one: LapiDecision) -> Fields:
        """Return a decision's values, equal texts stored once; raise ValueError if memory is used up."""
        texts = self._texts
        for text in (one.scenario, one.origin):
            if text not in texts:
                self._texts_left -= sys.getsizeof(text)
                if self._texts_left < 0:
                    raise ValueError("too many texts")
                texts[text] = text
        return one.number, one.packed, texts[one.scenario], texts[one.origin], one.seconds

    def _skip(self) -> None:
        """Skip a value without decoding it. Brackets need not match."""
        self._blank()
        if self._body[self._at : self._at + 1] not in (b"{", b"["):
            self._text() if self._body[self._at : self._at + 1] == b'"' else self._take(_SCALAR)
            return
        depth = 0
        while True:
            self._count_mark()
            mark = _MARK.search(self._body, self._at, self._at + MAX_SKIPPED)
            if mark is None:
                raise ValueError("the answer is cut, or a value in it is too long")
            if mark[0] == b'"':
                self._at = mark.start()
                self._text()
                continue
            self._at = mark.end()
            depth += 1 if mark[0] in b"{[" else -1
            if not depth:
                return

    def _count_mark(self) -> None:
        self._marks_left -= 1
        if self._marks_left < 0:
            raise ValueError("the answer has too many values that are no decisions")

    def _text(self) -> bytes:
        return self._take(_STRING)

    def _take(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self._body, self._at, self._at + MAX_SKIPPED)
        if found is None:
            raise ValueError("the answer is no JSON")
        self._at = found.end()
        return found[0]

    def _blank(self) -> None:
        found = _BLANK.match(self._body, self._at, self._at + MAX_SKIPPED)
        self._at = found.end() if found is not None else self._at

    def _accept(self, token: bytes) -> bool:
        """Whether ``token`` comes next in the answer; if it does, go beyond it."""
        self._blank()
        there = self._body.startswith(token, self._at)
        self._at += len(token) if there else 0
        return there

    def _expect(self, token: bytes) -> None:
        if not self._accept(token):
            raise ValueError(f"the answer has no {token.decode()} where it must be")

    def _goes_on(self, close: bytes) -> bool:
        """Whether a comma and another value follow; if not, go beyond the bracket ``close``."""
        if self._accept(close):
            return False
        self._expect(b",")
        return True


def _id_of(row: Any) -> int | None:  # noqa: ANN401 - whatever JSON holds
    number = row.get("id") if isinstance(row, dict) else None
    return number if type(number) is int and 0 <= number < _MAX_ID else None


def _decision(row: Any) -> LapiDecision:  # noqa: ANN401 - whatever JSON holds
    """Return the ban in a decision's JSON object; raise ValueError, TypeError or KeyError if unusable."""
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


def _network_of(value: str) -> int:
    """Return a decision's address or network as a packed integer; raise ValueError. Accept 192.0.2.7/24."""
    if len(value) > _LONGEST_VALUE:
        raise ValueError("too long for a network")
    return _parsed(value)


@lru_cache(4_096)  # each request for all decisions brings nearly all of them again
def _parsed(value: str) -> int:
    return pack(parse_network(str(ip_network(value, strict=False)) if "/" in value else value))


def parse_login(body: bytes) -> Login:
    """Parse CrowdSec's answer to a login; raise ValueError if it is another answer."""
    if len(body) > MAX_LOGIN:
        raise ValueError("the answer is too long for a login")
    whole = _json(body)
    if not isinstance(whole, dict):
        raise ValueError("the answer is no JSON object")  # noqa: TRY004 - bytes, not code
    token, expire = whole.get("token"), whole.get("expire")
    if not isinstance(token, str) or not isinstance(expire, str) or not 0 < len(token) <= MAX_TOKEN:
        raise ValueError("the answer has no token")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token has characters that no token has")
    when: datetime | None = None
    with suppress(ValueError):  # its text repeats the answer
        when = datetime.fromisoformat(expire)
    if when is None or when.tzinfo is None:
        raise ValueError("the token has no end")
    return Login(token, when.timestamp())


def _json(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse JSON; raise ValueError if it is invalid or nested too deep."""
    try:
        return json.loads(body.decode())
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
