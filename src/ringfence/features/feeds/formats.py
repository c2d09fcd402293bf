"""The formats of feeds: block lists of others. Bytes in, the texts of addresses and networks out.

A feed has one entry a line. ``plain`` has an address or a network first, and comments anywhere; ``json`` has
a JSON object a line, ``csv`` has columns. APIBAN answers with pages (:class:`ApibanPage`).

The content is untrusted. The length of a line is limited, and an entry must be ASCII. A line that cannot be
parsed is a *bad line*. The parser counts all of them and keeps the first ones: a list with a bad line is
damaged, or not a list at all, such as the error page of a web server.
"""

import csv
import enum
import hashlib
import json
import re
from ipaddress import ip_address
from typing import Any

from attrs import Factory, define, frozen

from ringfence.values.text import printable

MAX_LINE = 4_096  # bytes
NAMED = 20
"""The maximum number of bad lines of a list that are kept. More are only counted."""
MAX_CURSOR = 64
"""The maximum number of characters of APIBAN's cursor, its text for the next page."""
MOST_LINES = 2_500_000
"""The maximum number of a list's lines that are parsed: 64 MB may have 32 million lines of comments."""
MAX_PAGE = 1_048_576  # bytes; a page of APIBAN has 250 addresses

MAX_LIST = 64 * 1024 * 1024
"""The maximum size of a list in bytes. Two million addresses have some 30 MB."""
STATE_SUFFIX = ".state"
"""The suffix of the file beside a downloaded list in which the fetcher reports on the list."""
MAX_STATE = 4_096
"""The maximum size in bytes of the file in which the fetcher reports on a list."""

_SHOWN = 60
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_MARKS = (b"#", b";")
_WHOLE_LINE = (b"//", b"!")
_QUOTES = "\"'"
_IN_NETWORKS = b"0123456789abcdefABCDEF.:/"
_LONGEST_NETWORK = 50
_WORDS = re.compile(r"[A-Za-z]{1,15}(?: [A-Za-z]{1,15})*")


class FeedFormat(enum.StrEnum):
    """The format of a downloaded list of addresses."""

    PLAIN = "plain"
    JSON = "json"
    CSV = "csv"
    APIBAN = "apiban"


@frozen
class FeedLayout:
    """The format of a downloaded list, and where each line has the address or network.

    ``key`` is the key of a JSON object, or a column of CSV: its number from 1, or its name in the first line.
    """

    format: FeedFormat = FeedFormat.PLAIN
    key: str = ""


def identity_of(*parts: str) -> str:
    """Return a digest of ``parts``, which name the source of a list, such as its URL and a key.

    The parts cannot be read from the digest.
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@frozen
class BadLine:
    """A line of a list that could not be parsed: its number from 1, its text, and the reason."""

    number: int
    text: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.text!r}: {self.reason}"


@define
class BadLines:
    """The first bad lines of a list, and how many there are."""

    first: list[BadLine] = Factory(list)
    number: int = 0

    def add(self, number: int, line: bytes, error: ValueError) -> None:
        """Count a line that could not be parsed because of ``error``; keep it if it is one of the first."""
        self.number += 1
        if len(self.first) < NAMED:
            text = printable(line.strip().decode("latin-1"))
            self.first.append(BadLine(number, text[:_SHOWN], printable(str(error))[: 2 * _SHOWN]))


FeedEntry = tuple[int, str]
"""The number of a line, and its text for an address, a network or a range (``a-b``), not yet checked."""


def plain_field(line: bytes) -> str:
    """Return the entry of a line of a plain list without its comment, "" if it has none.

    A comment begins with ``#`` or ``;`` anywhere, or with ``//`` or ``!`` at the beginning of the line. The
    text after the first blank or comma is ignored (Spamhaus DROP's ``; SBL123``, CSV). ``a - b`` is a range.
    Raise ValueError if the line is too long, is not ASCII, or has two addresses: in some lists they are a
    range, in others an address and a mask.
    """
    if len(line) < _LONGEST_NETWORK and not line.translate(None, _IN_NETWORKS):
        return line.decode()  # nearly every line is nothing but an address or a network
    if len(line) > MAX_LINE:
        raise ValueError(f"is longer than {MAX_LINE} bytes")
    if line.startswith(_MARKS):
        return ""
    for mark in _MARKS:
        line = line.partition(mark)[0]
    if line.lstrip().startswith(_WHOLE_LINE):
        return ""
    fields = _ascii(line).replace(",", " ").split()
    if not fields:
        return ""
    if len(fields) > 1:
        if fields[1] == "-":
            return "".join(fields[:3])
        if _is_address(fields[1]):
            raise ValueError("two addresses side by side; write a range as a-b, a network as a/24")
    return fields[0].strip(_QUOTES)


def _are_networks(lines: list[bytes]) -> bool:
    """Whether all lines are short and have only characters of networks; False without lines."""
    longest = max(map(len, lines), default=_LONGEST_NETWORK)
    return longest < _LONGEST_NETWORK and not b"".join(lines).translate(None, _IN_NETWORKS)


def _ascii(line: bytes) -> str:
    try:
        return line.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("is not ASCII") from None


def _is_address(text: str) -> bool:
    """Whether a text is an address. Unlike Python, do not accept any text as the zone of an IPv6 address."""
    if "%" in text:
        return False
    try:
        ip_address(text.strip(_QUOTES))
    except ValueError:
        return False
    return True


class FeedParser:
    """Parses a downloaded list of addresses, fed in parts of any size.

    ``bad`` are the bad lines, ``lines`` is the number of lines so far. A list that names the number of its
    entries (Spamhaus DROP's last line) and has another number is incomplete, which is a bad line too. So is
    the line after ``most_lines``, and the rest is not parsed.
    """

    def __init__(self, layout: FeedLayout, most_lines: int = MOST_LINES) -> None:
        self.bad = BadLines()
        self.lines = 0
        self._most_lines = most_lines
        self._layout = layout
        self._rest = b""
        self._found = 0
        self._column: int | None = None
        if layout.format is FeedFormat.CSV and layout.key.isascii() and layout.key.isdecimal():
            self._column = int(layout.key) - 1

    def receive(self, data: bytes) -> list[FeedEntry]:
        """Return the entries of the lines that ``data`` completes."""
        if self.lines > self._most_lines:
            return []
        *lines, rest = (self._rest + data).split(b"\n")
        # Of a line that is too long, the beginning is enough: it is bad.
        self._rest = rest[: MAX_LINE + 1]
        return self._parse(lines)

    def end(self) -> list[FeedEntry]:
        """Return the entry of the last line, if that lacks a newline. Call this once, after the last part."""
        lines = [self._rest] if self._rest else []
        self._rest = b""
        return self._parse(lines) if self.lines <= self._most_lines else []

    def _parse(self, lines: list[bytes]) -> list[FeedEntry]:
        if self.lines + len(lines) > self._most_lines:
            self.lines = self._most_lines + 1
            self.bad.add(self.lines, b"", ValueError(f"the list has more than {self._most_lines} lines"))
            return []
        if self._layout.format is FeedFormat.PLAIN and _are_networks(lines):  # faster than one by one
            texts = b"\n".join(lines).decode().split("\n")
            entries = [(number, text) for number, text in enumerate(texts, self.lines + 1) if text]
            self.lines += len(lines)
            self._found += len(entries)
            return entries
        found: list[FeedEntry] = []
        for line in lines:
            self.lines += 1
            try:
                text = self._entry(line.removeprefix(_BOM) if self.lines == 1 else line)
            except ValueError as error:
                self.bad.add(self.lines, line[: MAX_LINE + 1], error)
                continue
            if text:
                self._found += 1
                found.append((self.lines, text))
        return found

    def _entry(self, line: bytes) -> str:
        """Return a line's text for an address or network, "" without one; raise ValueError if it is bad."""
        if self.lines == 1 and line.startswith(_GZIP):
            raise ValueError("the list is compressed")
        if self._layout.format in {FeedFormat.PLAIN, FeedFormat.APIBAN}:
            return plain_field(line)
        if len(line) > MAX_LINE:
            raise ValueError(f"is longer than {MAX_LINE} bytes")
        text = line.strip()
        if not text or text.startswith(_MARKS):
            return ""
        return self._json(text) if self._layout.format is FeedFormat.JSON else self._csv(_ascii(text))

    def _json(self, text: bytes) -> str:
        value = _json_object(text)
        if value.get("type") == "metadata":
            records = value.get("records")
            if isinstance(records, int) and records != self._found:
                raise ValueError(f"the list should have {records} entries and has {self._found}")
            return ""
        entry = value.get(self._layout.key)
        if not isinstance(entry, str) or not entry or not entry.isascii():
            raise ValueError(f'has no text under the key "{printable(self._layout.key)}"')
        return entry.strip()

    def _csv(self, text: str) -> str:
        try:
            (cells,) = csv.reader([text], strict=True, skipinitialspace=True)
        except csv.Error as error:
            raise ValueError(str(error)) from None
        if self._column is None:
            names = [cell.strip() for cell in cells]
            if self._layout.key not in names:
                raise ValueError(f'the first line names no column "{printable(self._layout.key)}"')
            self._column = names.index(self._layout.key)
            return ""
        if not 0 <= self._column < len(cells) or not (cell := cells[self._column].strip()):
            raise ValueError(f"has no column {self._column + 1}")
        return cell


def _json_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object; raise ValueError if it is something else, or nested deeper than Python reads."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # also bytes that are not UTF-8
        raise ValueError("is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - the caller expects ValueError
    return value


@frozen
class ApibanPage:
    """An answer of APIBAN: addresses that attacked, and the ``cursor`` for the request of the next page."""

    cursor: str
    addresses: tuple[str, ...]


def parse_apiban(body: bytes) -> ApibanPage:
    """Parse an answer of APIBAN with status 200; raise ValueError if it is malformed."""
    if len(body) > MAX_PAGE:
        raise ValueError(f"is longer than {MAX_PAGE} bytes")
    value = _json_object(body)
    cursor, addresses = value.get("ID"), value.get("ipaddress")
    if not isinstance(cursor, str) or not _is_cursor(cursor):
        raise ValueError('has no valid "ID"')
    if not isinstance(addresses, list) or not addresses:
        raise ValueError('has no list "ipaddress"')
    for address in addresses:
        if not isinstance(address, str) or not _is_address(address):
            raise ValueError('"ipaddress" has a value that is not an address')
    return ApibanPage(cursor, tuple(addresses))


def parse_apiban_refusal(body: bytes) -> str:
    """Return why APIBAN refuses a request, from the body of a 400, 403 or 404; "" if it has nothing new.

    The status says little: ``{"ipaddress": ["no new bans"], "ID": "none"}`` is the end of the list. A wrong
    key has the ID ``unauthorized``, and too many requests the text ``rate limit exceeded`` as ``ipaddress``.
    """
    try:
        value = _json_object(body[:MAX_PAGE])
    except ValueError:
        return "the request is refused"
    cursor, text = value.get("ID"), value.get("ipaddress")
    if cursor == "none" and text == ["no new bans"]:
        return ""
    reason = text[0] if isinstance(text, list) and text else text
    # The request has a key, which the answer may repeat. So only plain words are shown.
    plain = isinstance(reason, str) and len(reason) <= _SHOWN and _WORDS.fullmatch(reason)
    return str(reason) if plain else "the request is refused"


def _is_cursor(text: str) -> bool:
    """Whether a text is a cursor: it becomes a part of an URL, so only letters and digits are accepted."""
    return 0 < len(text) <= MAX_CURSOR and text.isascii() and text.isalnum()
