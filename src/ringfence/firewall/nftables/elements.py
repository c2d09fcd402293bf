"""The nftables messages for the elements of sets, as bytes: builders and parsers, no socket, no clock.

One message holds at most MAX_ELEMENTS: the length of an attribute has 16 bits, and 1 200 of the largest
elements are 62 400 bytes. A transaction of bans holds no more than that either, because larger ones are
slower. Transactions of network lists are larger (``static_sets.py``).
For 100 000 elements the kernel takes 0.26 s of CPU in transactions of 1 200, 0.38 s in those of 4 800, and
0.48 s in a single one. If there is a listener, the kernel also writes a notification of 8 kB for
each element, and keeps them all until the end of the transaction.

In a message, timeouts are in milliseconds. The kernel accepts an element that is already in the set,
unless the message is ``exclusive``. Kernels before 6.12 do not change this element. Later ones set its
new timeout, and keep its counter. To renew an element, the message contains the remaining time too
(``NFTA_SET_ELEM_EXPIRATION``), because a timeout of the same length alone would change nothing.

If the kernel refuses an element, it reports the position in the message at which it stopped. This
position is within the bytes of that element. All elements of a message have the same size, so the index
of the element follows from the position.
"""

import operator
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import repeat
from typing import Any

from attrs import frozen

from ringfence.firewall.contract import Element, Remembered
from ringfence.firewall.nftables.messages import INET, MessageType
from ringfence.netlink.connection import (
    ATTRIBUTE,
    HEADER,
    NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NetlinkMessageError,
    attribute,
    attributes,
    integer,
    message,
    nested,
    parse,
    text,
)
from ringfence.values.ban import Scope
from ringfence.values.network import BITS, SENDER_LENGTHS, Network

MAX_ELEMENTS = 1200
CHUNK = MAX_ELEMENTS
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT = 1  # NFTA_LIST_ELEM
_KEY, _ELEMENT_FLAGS, _TIMEOUT, _EXPIRATION, _EXPRESSION, _EXPRESSIONS = 1, 3, 4, 5, 7, 11
_VALUE = 1  # NFTA_DATA_VALUE
_INTERVAL_END = 1
_SIZES = {version: bits // 8 for version, bits in BITS.items()}
_NO_TIMEOUT = float("inf")


@frozen
class ElementLayout:
    """The layout of the elements of one message, which all have the same size.

    ``timeout``: each element has a timeout. ``renewing``: each element has its remaining time too. ``end``:
    each element is the end of an interval of addresses.
    """

    version: int
    timeout: bool = False
    renewing: bool = False
    end: bool = False

    @property
    def size(self) -> int:
        """The size of one element in bytes."""
        size = _SIZES[self.version]
        return 4 + 12 * (self.timeout + self.renewing) + 8 * self.end + 8 + size

    def write(self, key: bytes, milliseconds: int = 0) -> bytes:
        """Encode one element with its attributes in the order in which ``nft`` writes them.

        ``key`` is the packed address. ``milliseconds`` is its timeout, if the layout has one.
        """
        parts = []
        if self.end:
            parts.append(attribute(_ELEMENT_FLAGS, _INTERVAL_END.to_bytes(4, "big")))
        if self.timeout:
            parts.append(attribute(_TIMEOUT, milliseconds.to_bytes(8, "big")))
        if self.renewing:
            parts.append(attribute(_EXPIRATION, milliseconds.to_bytes(8, "big")))
        parts.append(attribute(_KEY | NESTED, attribute(_VALUE, key)))
        return attribute(_ELEMENT | NESTED, b"".join(parts))


class _Writer:
    """An encoder for elements of one layout.

    Two elements differ only in their key (the address) and their times, so one ``struct.pack`` encodes an
    element.
    """

    def __init__(self, layout: ElementLayout) -> None:
        size = _SIZES[layout.version]
        fixed = layout.write(bytes(size))[:-size]
        self._times = int(layout.timeout) + int(layout.renewing)
        self._number = layout.version == 4  # noqa: PLR2004 - IPv4, whose key is faster as a number
        pieces: list[bytes] = []
        form, start = ">", 0
        for _ in range(self._times):  # only the times (8 bytes each) vary; the bytes around them are constant
            at = start + ATTRIBUTE.size * (1 if pieces else 2)
            pieces.append(fixed[start:at])
            form += f"{at - start}sQ"
            start = at + 8
        pieces.append(fixed[start:])
        form += f"{len(fixed) - start}s" + ("I" if self._number else f"{size}s")
        self._pack = struct.Struct(form).pack
        self._pieces = pieces

    def write(self, timed: Iterable[tuple[Network, int]]) -> list[bytes]:
        """Encode networks, each with its timeout in seconds. A layout without a time ignores the timeouts."""
        pack, pieces = self._pack, self._pieces
        networks, seconds = zip(*timed, strict=True)
        addresses = map(operator.attrgetter("network_address"), networks)
        keys = map(int, addresses) if self._number else map(operator.attrgetter("packed"), addresses)
        times = [1000 * one for one in seconds]
        if self._times == 1:
            first, last = pieces
            return list(map(pack, repeat(first), times, repeat(last), keys))
        if self._times:
            first, second, last = pieces
            return list(map(pack, repeat(first), times, repeat(second), times, repeat(last), keys))
        return list(map(pack, repeat(pieces[0]), keys))


_WRITERS = {
    layout: _Writer(layout)
    for version in _SIZES
    for layout in (
        ElementLayout(version),
        ElementLayout(version, timeout=True),
        ElementLayout(version, timeout=True, renewing=True),
    )
}


def add_elements(
    table: str,
    name: str,
    elements: Sequence[tuple[Network, int]],
    *,
    exclusive: bool = False,
    renewing: bool = False,
) -> bytes:
    """Build the message that adds at most MAX_ELEMENTS networks, each with its timeout in seconds.

    All networks have the IP version and the prefix length of the set. ``exclusive``: the kernel refuses an
    element that is already in the set (EEXIST). ``renewing``: an element that is already in the set gets the
    new timeout (since kernel 6.12).
    """
    version = elements[0][0].version
    write = _WRITERS[ElementLayout(version, timeout=True, renewing=renewing)].write
    flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0)
    return _elements(
        MessageType.NEWSETELEM,
        flags,
        table,
        name,
        write(elements),
    )


def delete_elements(table: str, name: str, networks: Sequence[Network], *, lenient: bool = False) -> bytes:
    """Build the message that removes at most MAX_ELEMENTS networks from a set.

    If a network is absent, the kernel refuses the message (ENOENT). ``lenient``: absent networks are not an
    error (DESTROYSETELEM, since kernel 6.3).
    """
    write = _WRITERS[ElementLayout(networks[0].version)].write
    kind = MessageType.DESTROYSETELEM if lenient else MessageType.DELSETELEM
    return _elements(kind, 0, table, name, write((one, 0) for one in networks))


def query_elements(table: str, name: str, network: Network) -> bytes:
    """Build the query for one element of a set; the error is ENOENT if the set lacks it."""
    element = _WRITERS[ElementLayout(network.version)].write([(network, 0)])
    return _elements(MessageType.GETSETELEM, 0, table, name, element)


def dump_elements(table: str, name: str) -> bytes:
    """Build the request for a set's elements; :func:`bans_of` or :func:`remembered_of` parses the answers."""
    return message(MessageType.GETSETELEM, NLM_F_DUMP, INET, text(_TABLE, table), text(_SET, name))


def clear_elements(table: str, name: str) -> bytes:
    """Build the message that removes all elements of a set."""
    return message(MessageType.DELSETELEM, NLM_F_ACK, INET, text(_TABLE, table), text(_SET, name))


def intervals(
    table: str, name: str, version: int, ranges: Sequence[tuple[int, int]], *, remove: bool = False
) -> list[bytes]:
    """Build the messages that add ranges (first and last address) to an interval set, in order.

    The ranges must neither overlap nor be adjacent: see :func:`merged`. ``remove``: remove these ranges
    instead.
    """
    size = _SIZES[version]
    beginning, end = ElementLayout(version), ElementLayout(version, end=True)
    head_of_beginning, head_of_end = (one.write(bytes(size))[:-size] for one in (beginning, end))
    last_of_all = (1 << 8 * size) - 1
    elements = []
    for first, last in ranges:
        elements.append(head_of_beginning + first.to_bytes(size, "big"))
        if last != last_of_all:
            elements.append(head_of_end + (last + 1).to_bytes(size, "big"))
    kind, flags = (MessageType.DELSETELEM, 0) if remove else (MessageType.NEWSETELEM, NLM_F_CREATE)
    return [
        _elements(kind, flags, table, name, elements[at : at + MAX_ELEMENTS])
        for at in range(0, len(elements), MAX_ELEMENTS)
    ]


def merged(networks: Sequence[Network]) -> list[tuple[int, int]]:
    """Return the ranges that networks of one IP version cover, in order, neither overlapping nor adjacent."""
    if not networks:
        return []
    bits = networks[0].max_prefixlen
    more = [(1 << bits - length) - 1 for length in range(bits + 1)]
    # First and last address in one number: sorting numbers takes half the time of sorting pairs.
    spans = sorted(
        [(first := int(one.network_address)) << bits | first + more[one.prefixlen] for one in networks]
    )
    mask = (1 << bits) - 1
    ranges: list[tuple[int, int]] = []
    begin, end = spans[0] >> bits, spans[0] & mask
    for span in spans:
        first, last = span >> bits, span & mask
        if first > end + 1:
            ranges.append((begin, end))
            begin, end = first, last
        elif last > end:
            end = last
    ranges.append((begin, end))
    return ranges


def refused_index(request: bytes, offset: int | None) -> int | None:
    """Return the index of the refused element of ``request``; None if the error concerns no element.

    ``offset`` is the position in the request at which the kernel stopped; None if it is unknown.
    """
    if offset is None or len(request) < HEADER.size:
        return None
    position = HEADER.size
    for kind, payload in attributes(memoryview(request)[HEADER.size :]):
        begin = position + ATTRIBUTE.size
        if kind == _ELEMENTS:
            size = int.from_bytes(payload[:2], sys.byteorder)
            if size and begin <= offset < begin + len(payload):
                return (offset - begin) // size
        position = begin + len(payload) + (-len(payload) % 4)
    return None


def _elements(kind: MessageType, flags: int, table: str, name: str, elements: Sequence[bytes]) -> bytes:
    return message(
        kind,
        flags | NLM_F_ACK,
        INET,
        text(_TABLE, table),
        text(_SET, name),
        attribute(_ELEMENTS | NESTED, b"".join(elements)),
    )


def bans_of(answer: bytes, version: int, length: int, scope: Scope) -> Iterator[Element]:
    """Yield the bans in one answer to :func:`dump_elements` of a set of ``scope`` with this prefix length.

    Remaining times are in seconds, ``inf`` for an element without a timeout. Elements without time left are
    skipped.
    """
    payload = _payload(answer)
    found = _READERS[version].read(payload, length, scope)
    return found if found is not None else _irregular(payload, length, scope)


class _Reader:
    """A fast parser for elements in the kernel's usual layout: key, counter, timeout, time left.

    It takes a third of the time that parsing attribute by attribute takes. The attribute headers that it
    expects lack the flag NESTED, because the kernel does not set it in these answers.
    """

    def __init__(self, version: int) -> None:
        size = _SIZES[version]
        self._version = version
        counter = attribute(1, b"counter\0")
        self._heads = (
            ATTRIBUTE.pack(4 + 8 + size + _COUNTER_SIZE + 24, _ELEMENT)
            + ATTRIBUTE.pack(8 + size, _KEY)
            + ATTRIBUTE.pack(4 + size, _VALUE),
            ATTRIBUTE.pack(_COUNTER_SIZE, _EXPRESSION)
            + counter
            + ATTRIBUTE.pack(28, 2)
            + ATTRIBUTE.pack(12, 1),
            ATTRIBUTE.pack(12, 2),
            ATTRIBUTE.pack(12, _TIMEOUT),
            ATTRIBUTE.pack(12, _EXPIRATION),
        )
        self._struct = struct.Struct(f">12s{size}s{len(self._heads[1])}sQ4sQ4sQ4sQ")

    def read(self, payload: memoryview, length: int, scope: Scope) -> Iterator[Element] | None:
        """Parse the elements if all of them have the usual layout, else return None."""
        if len(payload) % self._struct.size:
            return None
        rows = list(self._struct.iter_unpack(payload))
        if any(row[0::2] != self._heads for row in rows):
            return None
        return self._elements(rows, length, scope)

    def _elements(self, rows: Sequence[tuple[Any, ...]], length: int, scope: Scope) -> Iterator[Element]:
        for _, key, _, octets, _, packets, _, _, _, left in rows:
            if left:
                yield Element(_network(key, length), left / 1000, packets, octets, scope)


_COUNTER_SIZE = 4 + 12 + 28
_READERS = {version: _Reader(version) for version in _SIZES}


def _irregular(payload: memoryview, length: int, scope: Scope) -> Iterator[Element]:
    """Parse elements in any layout, attribute by attribute: an element may have a comment, for example."""
    for key, packets, octets, left in _read(payload):
        yield Element(_network(key, length), left, packets, octets, scope)


def remembered_of(answer: bytes, *, whole: bool) -> Iterator[Remembered]:
    """Yield the senders in one answer with elements of a table (``limits.Table``).

    ``whole``: they are addresses; otherwise IPv4 addresses or /64s.
    """
    for key, packets, _, _ in _read(_payload(answer)):
        version = _version_of(key)
        yield Remembered(_network(key, (BITS if whole else SENDER_LENGTHS)[version]), packets)


def _payload(answer: bytes) -> memoryview:
    return parse(answer, MessageType.NEWSETELEM).get(_ELEMENTS, memoryview(b""))


def _read(payload: memoryview) -> Iterator[tuple[bytes, int, int, float]]:
    """Parse elements: key, packets, bytes, and seconds left (``inf`` without a timeout).

    Elements without time left are skipped.
    """
    for _, element in attributes(payload):
        parts = dict(attributes(element))
        key = bytes(nested(parts, _KEY).get(_VALUE, b""))
        left = integer(parts, _EXPIRATION) / 1000 if _EXPIRATION in parts else _NO_TIMEOUT
        packets = octets = 0
        expressions = [parts[_EXPRESSION]] if _EXPRESSION in parts else []
        expressions += [one for _, one in attributes(parts.get(_EXPRESSIONS, memoryview(b"")))]
        for expression in expressions:
            named = dict(attributes(expression))
            if bytes(named.get(1, b"")) == b"counter\0":
                data = nested(named, 2)
                octets, packets = integer(data, 1), integer(data, 2)
        if left:
            yield key, packets, octets, left


def _version_of(key: bytes) -> int:
    version = next((version for version, size in _SIZES.items() if size == len(key)), None)
    if version is None:
        raise NetlinkMessageError(f"an element is not an address: {key.hex()}")
    return version


def _network(key: bytes, length: int) -> Network:
    kind = IPv4Network if _version_of(key) == 4 else IPv6Network  # noqa: PLR2004 - IPv4
    try:
        return kind((key, length))
    except ValueError as error:
        raise NetlinkMessageError(f"an element is not a network of length {length}: {key.hex()}") from error
