"""The nftables messages for queries and deletions, as bytes: builders and parsers, no socket, no clock.

Tables, chains, rules, headers of sets and named counters come first. The messages for elements, of which
there may be many, are at the end.

The ipset backend needs one deletion too. iptables-nft makes its table ``raw`` with the first rule, and has no
command to delete it. So after ringfence has removed its iptables rules, it deletes the chains and the table
in one batch (:func:`delete_empty_table`). The kernel carries out a batch completely or not at all. It refuses
this one if a chain has rules, or if the table has anything else (NLM_F_NONREC, since kernel 4.20). It would
delete a chain whose policy drops packets, so the caller checks the policies before.

The numbers of messages and attributes are the kernel's (``linux/netfilter/nf_tables.h``). Builders leave the
sequence number 0; the connection replaces it.
"""

import enum
import operator
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from itertools import repeat
from typing import Any

from attrs import frozen

from ringfence.firewall.contract import Element, Remembered
from ringfence.netlink.connection import (
    ATTRIBUTE,
    FAMILIES,
    HEADER,
    NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_NONREC,
    NetlinkMessageError,
    attribute,
    attributes,
    attributes_of,
    integer,
    message,
    nested,
    parse,
    string,
    text,
)
from ringfence.values.ban import Scope
from ringfence.values.network import BITS, SENDER_LENGTHS, Network

INET = 1  # NFPROTO_INET: a table for both IP versions
_COMMENT = 0  # the type of a comment in a rule's user data


class MessageType(enum.IntEnum):
    """The message types of the nftables subsystem that are used here, with the number of the subsystem."""

    NEWTABLE = 0xA00
    GETTABLE = 0xA01
    DELTABLE = 0xA02
    NEWCHAIN = 0xA03
    GETCHAIN = 0xA04
    DELCHAIN = 0xA05
    NEWRULE = 0xA06
    GETRULE = 0xA07
    NEWSET = 0xA09
    GETSET = 0xA0A
    NEWSETELEM = 0xA0C
    GETSETELEM = 0xA0D
    DELSETELEM = 0xA0E
    NEWGEN = 0xA0F
    GETGEN = 0xA10
    NEWOBJ = 0xA12
    GETOBJ = 0xA13
    DESTROYSETELEM = 0xA1E


@frozen
class Table:
    """A table; ``dormant``: its chains receive no packets."""

    name: str
    handle: int
    dormant: bool


@frozen
class NftChain:
    """A chain.

    ``hook`` and ``priority`` are None if packets reach it from other chains only. ``policy`` is the kernel's
    number for what happens to packets that no rule drops or accepts.
    """

    table: str
    name: str
    handle: int
    hook: int | None = None
    priority: int | None = None
    policy: int | None = None


@frozen
class NftRule:
    """A rule. ``body`` is what it does, as the kernel encodes it, without the numbers of its counter.

    A replaced rule may keep its handle, so the body is compared too.
    """

    table: str
    chain: str
    handle: int
    comment: str = ""
    body: bytes = b""


@frozen
class NftSetHeader:
    """The properties of a set.

    ``key_length`` is the size of a key in bytes, ``size`` the maximum number of elements (0: no maximum).
    ``timeout`` is the default timeout of an element in milliseconds. ``elements`` is the number of elements;
    None if the kernel does not count them (before 6.16).
    """

    name: str
    handle: int
    flags: int
    key_length: int
    size: int
    timeout: int
    elements: int | None = None


@frozen
class NftCounter:
    """A named counter."""

    name: str
    packets: int
    bytes: int


@frozen
class Generation:
    """The last transaction of nftables, in any table.

    ``number`` increases with each transaction. ``port`` is the netlink port of the program that made it; 0 if
    unknown.
    """

    number: int
    port: int = 0


def delete_empty_table(
    version: int, table: str = "raw", chains: Iterable[str] = ("PREROUTING", "OUTPUT")
) -> tuple[bytes, ...]:
    """Build the messages that delete a table with these chains, if they have no rules.

    The error is EBUSY if the table contains anything else.
    """
    family, named = FAMILIES[version], text(1, table)
    return (
        *(message(MessageType.DELCHAIN, NLM_F_NONREC, family, named, text(3, name)) for name in chains),
        message(MessageType.DELTABLE, NLM_F_NONREC, family, named),
    )


def get_generation() -> bytes:
    """Build the query for the present generation; :func:`generation_of` parses its one answer."""
    return message(MessageType.GETGEN, NLM_F_ACK, 0)


def get_table(name: str, *, family: int = INET) -> bytes:
    """Build the query for one table; :func:`tables_of` parses the answer.

    The error is ENOENT if there is no such table.
    """
    return message(MessageType.GETTABLE, NLM_F_ACK, family, text(1, name))


def get_chains(*, family: int = INET) -> bytes:
    """Build the request for all chains of a family, of every table; :func:`chains_of` parses the answers."""
    return message(MessageType.GETCHAIN, NLM_F_DUMP, family)


def get_rules(table: str, *, family: int = INET) -> bytes:
    """Build the request for a table's rules; :func:`rules_of` parses the answers.

    If there is no such table, there is no answer. ``family`` is INET, or AF_INET or AF_INET6 for the tables
    of iptables-nft.
    """
    return message(MessageType.GETRULE, NLM_F_DUMP, family, text(1, table))


def get_sets(table: str, *, family: int = INET) -> bytes:
    """Build the request for the headers of a table's sets; :func:`sets_of` parses the answers.

    The error is ENOENT if there is no such table.
    """
    return message(MessageType.GETSET, NLM_F_DUMP, family, text(1, table))


def get_counters(table: str, *, family: int = INET) -> bytes:
    """Build the request for a table's named counters; :func:`counters_of` parses the answers."""
    return message(MessageType.GETOBJ, NLM_F_DUMP, family, text(1, table))


def delete_table(name: str, *, family: int = INET) -> bytes:
    """Build the message that deletes a table with all its contents; the error is ENOENT if there is none."""
    return message(MessageType.DELTABLE, 0, family, text(1, name))


def generation_of(answer: bytes) -> Generation | None:
    """Parse an answer or a notification of type NEWGEN; return None for any other type."""
    if len(answer) < HEADER.size:
        return None
    _length, kind, _flags, _sequence, port = HEADER.unpack_from(answer)[:5]
    if kind != MessageType.NEWGEN:
        return None
    return Generation(integer(parse(answer, MessageType.NEWGEN), 1), port)


def tables_of(answers: Iterable[bytes]) -> list[Table]:
    """Parse the answers to :func:`get_table`."""
    return [
        Table(string(top, 1), integer(top, 4), dormant=bool(integer(top, 2) & 1))
        for top in _tops(answers, MessageType.NEWTABLE)
    ]


def chains_of(answers: Iterable[bytes]) -> list[NftChain]:
    """Parse the answers to :func:`get_chains`."""
    chains = []
    for top in _tops(answers, MessageType.NEWCHAIN):
        found = NftChain(string(top, 1), string(top, 3), integer(top, 2))
        if 4 in top:  # noqa: PLR2004 - NFTA_CHAIN_HOOK
            hook = nested(top, 4)
            priority = int.from_bytes(hook.get(2, b""), "big", signed=True)
            found = NftChain(
                found.table, found.name, found.handle, integer(hook, 1), priority, integer(top, 5)
            )
        chains.append(found)
    return chains


def rules_of(answers: Iterable[bytes]) -> list[NftRule]:
    """Parse the answers to :func:`get_rules`, in the order of the rules in each chain."""
    return [_rule(attributes_of(answer, MessageType.NEWRULE)) for answer in answers]


# The rules are read again after each transaction of another program, and most of them are unchanged. A plan
# has some 350 rules and 150 sets: a cache with less room would find none of them again.
@lru_cache(maxsize=2048)
def _rule(found: bytes) -> NftRule:
    top, empty = dict(attributes(memoryview(found))), memoryview(b"")
    return NftRule(
        string(top, 1),
        string(top, 2),
        integer(top, 3),
        _comment(top.get(7, empty)),
        _body(top.get(4, empty)),
    )


def sets_of(answers: Iterable[bytes]) -> list[NftSetHeader]:
    """Parse the answers to :func:`get_sets`, including anonymous sets (``__set0``)."""
    return [_set(attributes_of(answer, MessageType.NEWSET)) for answer in answers]


@lru_cache(maxsize=1024)  # the sets are read every second, and most of them are unchanged
def _set(found: bytes) -> NftSetHeader:
    top = dict(attributes(memoryview(found)))
    described = nested(top, 9)
    return NftSetHeader(
        string(top, 2),
        integer(top, 16),
        integer(top, 3),
        integer(top, 5),
        integer(described, 1),
        integer(top, 11),
        integer(top, _SET_COUNT) if _SET_COUNT in top else None,
    )


_SET_COUNT = 20


def counters_of(answers: Iterable[bytes]) -> list[NftCounter]:
    """Parse the answers to :func:`get_counters`; other named objects are skipped."""
    counters = []
    for top in _tops(answers, MessageType.NEWOBJ):
        if integer(top, 3) == 1:  # NFT_OBJECT_COUNTER
            data = nested(top, 4)
            counters.append(NftCounter(string(top, 2), integer(data, 2), integer(data, 1)))
    return counters


def _tops(answers: Iterable[bytes], kind: MessageType) -> Iterator[dict[int, memoryview]]:
    return (parse(answer, kind) for answer in answers)


def _body(expressions: memoryview) -> bytes:
    """Return what a rule does, as bytes without the numbers of its counter, which every packet changes."""
    found = [expression for _, expression in attributes(expressions)]
    counting = b"counter\0"
    return b"".join(
        b"counter" if bytes(dict(attributes(one)).get(1, b"")) == counting else bytes(one) for one in found
    )


def _comment(user_data: memoryview) -> str:
    """Parse a rule's comment from its user data: type (one byte), length (one byte), value."""
    position = 0
    while position + 2 <= len(user_data):
        kind, length = user_data[position], user_data[position + 1]
        if kind == _COMMENT:
            return (
                bytes(user_data[position + 2 : position + 2 + length])
                .rstrip(b"\0")
                .decode("utf-8", "replace")
            )
        position += 2 + length
    return ""


# -- elements of nftables sets as bytes: builders and parsers, no socket, no clock
#
# One message holds at most MAX_ELEMENTS: the length of an attribute has 16 bits, and 1 200 of the largest
# elements are 62 400 bytes. A transaction holds no more than that either, because larger ones are slower.
# For 100 000 elements the kernel takes 0.26 s of CPU in transactions of 1 200, 0.38 s in transactions of 4
# 800, and 0.48 s in a single one. If there is a listener, the kernel also writes a notification of 8 kB for
# each element, and keeps them all until the end of the transaction.
#
# In a message, timeouts are in milliseconds. The kernel accepts an element that is already in the set,
# unless the message is ``exclusive``. Kernels before 6.12 do not change this element. Later ones set its
# new timeout, and keep its counter. To renew an element, the message contains the remaining time too
# (``NFTA_SET_ELEM_EXPIRATION``), because a timeout of the same length alone would change nothing.
#
# If the kernel refuses an element, it reports the position in the message at which it stopped. This
# position is within the bytes of that element. All elements of a message have the same size, so the index
# of the element follows from the position.


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
        """Encode one element with its attributes in the order in which ``nft`` writes them."""
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
    """Yield the bans in one answer to :func:`dump` of a set with prefixes of ``length`` and this ``scope``.

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
