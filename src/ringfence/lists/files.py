"""Block lists as the field writes them: an address or a network a line, and what stands around it.

Comments begin with ``#`` or ``;``, also behind an address; what follows the first blank or comma is left
alone (Spamhaus DROP's ``; SBL123``, CSV). ``a-b`` is every address from a to b. Two addresses side by side
are refused: some lists mean a range by it, some a mask. The bytes are a stranger's: a line has a limit and
is ASCII where it counts.

Lists of "bogons" hold the networks that offices use, multicast and broadcast; to deny those silences the
phones in the house. They are left out, unless the administrator insists.
"""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import BinaryIO

from attrs import Factory, define, frozen

from ringfence.errors import ListError
from ringfence.lists.prefixes import (
    V4_BITS,
    V6_BITS,
    Coded,
    Gatherer,
    Prefixes,
    code_of,
    coded,
    summarized,
    text_of,
)
from ringfence.model import printable

MAX_LINE = 1_024  # bytes
MAX_NETWORKS = 2_000_000  # 90 bytes each while they are read
NAMED = 20
"""So many bad lines are named; the rest is counted."""

SHOWN = 60
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_EVERYBODY = "that is everybody"

HOUSE = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
        "::/8",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    )
)
"""What an imported list does not deny: what is used in the house and never comes from the internet."""


@frozen
class BadLine:
    """A line that could not be read: its number, what it says, and what is wrong with it."""

    number: int
    text: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.text!r}: {self.reason}"


@define
class ListFile:
    """What a list file holds.

    ``bad`` are the first bad lines, ``bad_lines`` is how many there are. ``left_out`` are networks of the
    house, merged, in words.
    """

    networks: Prefixes = Factory(Prefixes)
    lines: int = 0
    bad: list[BadLine] = Factory(list)
    bad_lines: int = 0
    left_out: list[str] = Factory(list)


def read_list(file: BinaryIO, *, everything: bool = False) -> ListFile:
    """Read a list; with ``everything`` also the networks of the house.

    Raises ListError where the file is no text, or holds more than ``MAX_NETWORKS``.
    """
    result = ListFile()
    gatherer = Gatherer()
    house = Gatherer()
    for number, line in enumerate(_lines(file), start=1):
        result.lines = number
        if number == 1 and line.startswith(_GZIP):
            raise ListError("the list is compressed; give what gunzip makes of it")
        try:
            field = _field(line.removeprefix(_BOM) if number == 1 else line)
            for version, code in _codes(field) if field else ():
                mine = not everything and _touches_the_house(version, code)
                (house if mine else gatherer).take(version, code)
        except ValueError as error:
            result.bad_lines += 1
            if len(result.bad) < NAMED:
                text = printable(line.strip().decode("latin-1"))
                result.bad.append(BadLine(number, text[:SHOWN], printable(str(error))[: 2 * SHOWN]))
        if len(gatherer) + len(house) > MAX_NETWORKS:
            raise ListError(f"the list has more than {MAX_NETWORKS} networks")
    result.left_out = [text_of(version, code) for version, code in house.prefixes().coded()]
    result.networks = gatherer.prefixes()
    return result


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Give the lines; of one beyond the limit its beginning, which is too long to be right."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _field(line: bytes) -> str:
    """Give what a line says before its comment, "" where it says nothing; ValueError for what is no line."""
    if len(line) > MAX_LINE:
        raise ValueError(f"is longer than {MAX_LINE} bytes")
    for mark in (b"#", b";"):
        if mark in line:
            line = line[: line.index(mark)]
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("is not ASCII") from None
    fields = text.replace(",", " ").split()
    if not fields:
        return ""
    if len(fields) == 1:
        return fields[0].strip("\"'")
    if fields[1] == "-":
        return "".join(fields[:3])
    if _is_address(fields[1]):
        raise ValueError("two addresses side by side; write a range as a-b, a network as a/24")
    return fields[0].strip("\"'")


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("\"'"))
    except ValueError:
        return False
    return True


def _codes(text: str) -> "list[Coded]":
    """Read an address, a network, or a range of addresses."""
    if "-" not in text:
        one = coded(text)
        if not one[1] & 0xFF:
            raise ValueError(_EVERYBODY)
        return [one]
    first, _, last = text.partition("-")
    (version, start), (version_of_last, end) = coded(first), coded(last)
    bits = V4_BITS if version == 4 else V6_BITS  # noqa: PLR2004 - the IP version
    if version != version_of_last or start & 0xFF != bits or end & 0xFF != bits or start > end:
        raise ValueError("is no range of addresses")
    codes = [(version, code) for code in summarized(start >> 8, end >> 8, bits)]
    if not codes[0][1] & 0xFF:
        raise ValueError(_EVERYBODY)
    return codes


_WIDTHS = {4: V4_BITS, 6: V6_BITS}
_HOUSE = {
    version: [
        (code >> 8, code >> 8 | ((1 << (width - (code & 0xFF))) - 1))
        for of, code in map(code_of, HOUSE)
        if of == version
    ]
    for version, width in _WIDTHS.items()
}
"""First and last address of each part of the house."""

_HOUSE_OCTETS = frozenset(octet for begin, end in _HOUSE[4] for octet in range(begin >> 24, (end >> 24) + 1))
"""Nearly every line of a list begins with another one, and that is seen at once."""


def _touches_the_house(version: int, code: int) -> bool:
    first, length = code >> 8, code & 0xFF
    if version == 4 and length >= 8 and first >> 24 not in _HOUSE_OCTETS:  # noqa: PLR2004 - IPv4, an octet
        return False
    last = first | ((1 << (_WIDTHS[version] - length)) - 1)
    return any(first <= end and last >= begin for begin, end in _HOUSE[version])
