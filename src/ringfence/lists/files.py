"""Block lists in their usual format: an address or a network per line, with comments.

Comments begin with ``#`` or ``;``, also after an address. The text after the first blank or comma is ignored
(Spamhaus DROP's ``; SBL123``, CSV). ``a-b`` is every address from a to b. Two addresses on one line are
rejected: in some lists they are a range, in others an address and a mask. The content is untrusted: the
length of a line is limited, and an entry must be ASCII.

Lists of "bogons" contain the networks that offices use, multicast and broadcast. Denying those would cut off
the phones in the building. They are left out, unless the administrator includes them explicitly. The same is
true for networks that are wider than any registry assigns.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import BinaryIO

from attrs import Factory, define

from ringfence.errors import ListError
from ringfence.lists.prefixes import (
    V4_BITS,
    V6_BITS,
    Coded,
    Gatherer,
    Prefixes,
    code_of,
    coded,
    network_of,
    summarized,
    text_of,
)
from ringfence.networks import SHORTEST, overlap
from ringfence.parse.feeds import BadLine, BadLines, plain_field

MAX_LINE = 1_024  # bytes
MAX_NETWORKS = 2_000_000
"""The maximum number of networks in one file. Each takes some 100 bytes while the file is read."""

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_WHOLE_INTERNET = "is the whole internet"

LOCAL = tuple(
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
"""Networks that an imported list does not deny: they are used locally and never come from the internet."""

_STANDING_FOR_IPV4 = tuple(
    ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")
)
"""IPv6 networks with an IPv4 address in each address: mapped, NAT64 (two), Teredo, 6to4. No list denies them.

Each has the whole IPv4 Internet once more, also private networks and the addresses of this host.
"""


@define
class ListFile:
    """The content of a list file.

    ``lines`` is the number of its lines. ``bad`` are the first bad lines, ``bad_lines`` is their total
    number. ``left_out`` are the local networks that were left out, merged, as text.
    """

    networks: Prefixes = Factory(Prefixes)
    lines: int = 0
    bad: list[BadLine] = Factory(list)
    bad_lines: int = 0
    left_out: list[str] = Factory(list)


def read_list(file: BinaryIO, *, most: int, everything: bool = False) -> ListFile:
    """Read a list; with ``everything``, local networks and very wide ones are included.

    Without it, a line with a network wider than ``SHORTEST`` is a bad line, unless the network is local.
    Raise ListError if the file is compressed, or if it contains more than ``most`` or ``MAX_NETWORKS``
    networks. Networks are merged before they are counted, so adjoining networks count as one. They are merged
    and counted at the end of the file, and before that whenever there are twice as many as allowed.
    """
    result, room, bad = ListFile(), min(most, MAX_NETWORKS), BadLines()
    gatherer = Gatherer()
    local = Gatherer()
    for number, line in enumerate(_lines(file), start=1):
        result.lines = number
        if number == 1 and line.startswith(_GZIP):
            raise ListError("the list is compressed; fix: gunzip it first")
        try:
            field = plain_field(line.removeprefix(_BOM) if number == 1 else line, MAX_LINE)
            for version, code in _codes(field, wide=everything) if field else ():
                mine = not everything and overlaps_local(version, code)
                (local if mine else gatherer).add_code(version, code)
        except ValueError as error:
            bad.add(number, line, error)
        if len(gatherer) + len(local) > 2 * room:
            gatherer.compact()
            local.compact()
            _check_room(len(gatherer) + len(local), room)
    result.left_out = [text_of(version, code) for version, code in local.prefixes().coded()]
    result.networks, result.bad, result.bad_lines = gatherer.prefixes(), bad.first, bad.number
    _check_room(len(result.networks), room)
    return result


def _check_room(number: int, room: int) -> None:
    if number > room:
        fix = (
            "split it"
            if room == MAX_NETWORKS
            else "raise [firewall] max_bans and reload, or shorten the list"
        )
        raise ListError(
            f"the list has more than {room} networks, and no more fit: nothing is changed; fix: {fix}"
        )


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines.

    A line beyond the limit is cut one byte after it, so that the caller sees that it is too long.
    """
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _codes(text: str, *, wide: bool) -> "list[Coded]":
    """Parse an address, a network, or a range of addresses; return codes (see ``prefixes``) of networks.

    Raise ValueError for any other text, and for the whole internet. Without ``wide``, also raise it for a
    network that is too wide to be denied.
    """
    codes = networks_in(text)
    if not wide and any(map(_is_too_wide, codes)):
        raise ValueError("is a large part of the internet; --force imports it")
    return codes


def networks_in(text: str) -> "list[Coded]":
    """Parse an address, a network or a range; return codes of networks. Raise ValueError for other texts."""
    if "-" not in text:
        one = coded(text)
        if not one[1] & 0xFF:
            raise ValueError(_WHOLE_INTERNET)
        return [one]
    first, _, last = text.partition("-")
    (version, start), (version_of_last, end) = coded(first), coded(last)
    bits = V4_BITS if version == 4 else V6_BITS  # noqa: PLR2004 - the IP version
    if version != version_of_last or start & 0xFF != bits or end & 0xFF != bits or start > end:
        raise ValueError("is not a range of addresses")
    codes = [(version, code) for code in summarized(start >> 8, end >> 8, bits)]
    if not codes[0][1] & 0xFF:
        raise ValueError(_WHOLE_INTERNET)
    return codes


_WIDTHS = {4: V4_BITS, 6: V6_BITS}
_LOCAL = {
    version: [
        (code >> 8, code >> 8 | ((1 << (width - (code & 0xFF))) - 1))
        for of, code in map(code_of, (*LOCAL, *_STANDING_FOR_IPV4))
        if of == version
    ]
    for version, width in _WIDTHS.items()
}
"""The first and the last address of each network that a list does not deny."""

_LOCAL_OCTETS = frozenset(octet for begin, end in _LOCAL[4] for octet in range(begin >> 24, (end >> 24) + 1))
"""First octets of local networks, for a quick test: most lines begin with another octet."""


def _is_too_wide(one: Coded) -> bool:
    """Whether a network is wider than any registry assigns, and not a part of a local network."""
    version, code = one
    first, length = code >> 8, code & 0xFF
    if length >= SHORTEST[version]:
        return False
    last = first | ((1 << (_WIDTHS[version] - length)) - 1)
    return not any(begin <= first and last <= end for begin, end in _LOCAL[version])


def overlaps_local(version: int, code: int) -> bool:
    """Whether the network of a code has an address of a local network, or one that stands for IPv4."""
    first, length = code >> 8, code & 0xFF
    if version == 4 and length >= 8 and first >> 24 not in _LOCAL_OCTETS:  # noqa: PLR2004 - IPv4, an octet
        return False
    last = first | ((1 << (_WIDTHS[version] - length)) - 1)
    return any(first <= end and last >= begin for begin, end in _LOCAL[version])


def stands_for_ipv4(version: int, code: int) -> bool:
    """Whether the network of a code has an IPv6 address that stands for an IPv4 address."""
    return version != 4 and any(overlap(network_of(version, code), one) for one in _STANDING_FOR_IPV4)  # noqa: PLR2004
