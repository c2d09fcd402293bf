"""The ipset messages of nfnetlink as bytes: builders and parsers, no socket, no clock.

One ADD or DEL carries many elements (``IPSET_ATTR_ADT``). In such messages 100 000 elements take 0.25 s,
while ``ipset restore`` takes 0.7 s. Each element has its position in the message as its line number, from 1.
The kernel stops at the first element that it refuses. The elements before it are changed, those after it are
not. The error repeats the request with that line number in its header. :func:`refused_index` reads it.

The length of an attribute has 16 bits, so a message ends at 65 535 bytes of elements: 1 200 of the largest
(IPv6, 52 bytes) are 62 400. The numbers of commands and attributes are the kernel's
(``include/uapi/linux/netfilter/ipset``). Integers in attributes are big-endian, in headers native. Builders
leave the sequence number 0; the connection replaces it.

If an answer contains an invalid set, element or length, the parsers raise :class:`NetlinkMessageError`.
"""

import enum
import math
import operator
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET

from attrs import frozen

from ringfence.firewall.contract import Element
from ringfence.netlink.connection import (
    ATTRIBUTE,
    BIG_ENDIAN,
    FAMILIES,
    HEADER,
    NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NetlinkMessageError,
    attribute,
    attributes,
    attributes_of,
    integer,
    message,
    number,
    parse,
    required,
    string,
    text,
)
from ringfence.values.ban import Scope
from ringfence.values.network import Network

PROTOCOL_VERSION = 7  # Linux 5.0 (2019) and later
SET_TYPE = "hash:net"
# The first revision of hash:net with counters (kernel 3.10): nothing newer is used.
SET_REVISION = 3
# The set type for addresses, and its first revision with counters (kernel 3.10).
ADDRESS_TYPE = "hash:ip"
ADDRESS_REVISION = 1
# The same for addresses with a protocol and a port.
FLOW_TYPE = "hash:ip,port"
FLOW_REVISION = 2
MAX_ELEMENTS = 1200

_LIST_NAMES, _LIST_HEADER = 1 << 1, 1 << 2
_WITH_COUNTERS = 1 << 3
_NOMATCH = 1 << 2
_NO_LINE = 0  # lines count from 1; 0: the error concerns no element (for example, the set is gone)

_IPV4 = 4
_VERSIONS = {family: version for version, family in FAMILIES.items()}


class Command(enum.IntEnum):
    """The commands of the ipset subsystem that are used here, with the number of the subsystem."""

    PROTOCOL = 0x601
    CREATE = 0x602
    DESTROY = 0x603
    SWAP = 0x606
    LIST = 0x607
    ADD = 0x609
    DEL = 0x60A
    TEST = 0x60B
    TYPE = 0x60D


class Code(enum.IntEnum):
    """Error numbers of ipset itself (``IPSET_ERR_*``) that are handled here; others are those of errno."""

    FIND_TYPE = 4098
    BUSY = 4100
    EXIST = 4103
    INVALID_CIDR = 4104
    HASH_FULL = 4352


class _Attr(enum.IntEnum):
    """The netlink attributes of an ipset command."""

    PROTOCOL = 1
    SETNAME = 2
    TYPENAME = 3  # in a SWAP: the name of the other set
    REVISION = 4
    FAMILY = 5
    FLAGS = 6
    DATA = 7
    ADT = 8
    LINENO = 9


class _Data(enum.IntEnum):
    """The netlink attributes within DATA: of a set in CREATE and in a header, otherwise of an element."""

    IP = 1
    CIDR = 3
    TIMEOUT = 6
    CADT_FLAGS = 8
    LINENO = 9
    HASHSIZE = 18
    MAXELEM = 19
    NETMASK = 20
    BYTES = 24
    PACKETS = 25
    # In the header of a listed set, the numbers 24 to 26 mean something else than in an element.
    HEAD_ELEMENTS = 24
    HEAD_REFERENCES = 25


@frozen
class IpsetHeader:
    """The properties of a set.

    ``version`` is the IP version (0 if the set has none). ``timeout``: the elements have timeouts.
    ``counters``: the elements have counters. ``elements`` is the number of elements with time left.
    ``references`` is the number of rules that use the set.
    """

    name: str
    type_name: str
    version: int
    timeout: bool
    counters: bool
    elements: int
    references: int


def _message(command: Command, flags: int, *attributes: bytes) -> bytes:
    version = attribute(_Attr.PROTOCOL, bytes([PROTOCOL_VERSION]))
    return message(command, flags | NLM_F_ACK, AF_INET, version, *attributes)


def protocol() -> bytes:
    """Build the request for the kernel's version of the ipset protocol; it fails if there is no ipset."""
    return _message(Command.PROTOCOL, 0)


def type_query(name: str) -> bytes:
    """Build the request for the revision of a set type; the error is ``Code.FIND_TYPE`` without this type."""
    family = attribute(_Attr.FAMILY, bytes([AF_INET]))
    return _message(Command.TYPE, 0, text(_Attr.TYPENAME, name), family)


def version_of(answer: bytes, asked: Command) -> int:
    """Return the newest version that the kernel has, from its ``answer``.

    ``asked`` is the command of the request. After ``PROTOCOL`` this is the version of the protocol, after
    ``TYPE`` the revision of the set type.
    """
    return integer(parse(answer, asked), _NEWEST[asked])


_NEWEST = {Command.PROTOCOL: _Attr.PROTOCOL, Command.TYPE: _Attr.REVISION}


def create(name: str, version: int, *, hashsize: int, maxelem: int, timed: bool = True) -> bytes:
    """Build the request that makes a set of networks (``hash:net``) of IP ``version``.

    The error is EEXIST if the set exists. ``maxelem`` is the maximum number of elements. ``hashsize`` is the
    number of hash buckets at first: the kernel rounds it up to a power of two, and enlarges it as needed.
    ``timed``: the set has timeouts and counters.
    """
    size = number(_Data.HASHSIZE, hashsize) + number(_Data.MAXELEM, maxelem)
    return _create(name, SET_TYPE, SET_REVISION, version, _TIMED + size if timed else size)


def create_addresses(name: str, version: int, *, maxelem: int, prefix: int) -> bytes:
    """Build the request that makes a set of at most ``maxelem`` addresses.

    The kernel reduces each address to its first ``prefix`` bits.
    """
    options = _TIMED + number(_Data.MAXELEM, maxelem) + attribute(_Data.NETMASK, bytes([prefix]))
    return _create(name, ADDRESS_TYPE, ADDRESS_REVISION, version, options)


def create_flows(name: str, version: int, *, maxelem: int) -> bytes:
    """Build the request that makes a set of at most ``maxelem`` flows: addresses with protocol and port."""
    return _create(name, FLOW_TYPE, FLOW_REVISION, version, _TIMED + number(_Data.MAXELEM, maxelem))


def _create(name: str, kind: str, revision: int, version: int, options: bytes) -> bytes:
    return _message(
        Command.CREATE,
        NLM_F_CREATE | NLM_F_EXCL,
        text(_Attr.SETNAME, name),
        text(_Attr.TYPENAME, kind),
        attribute(_Attr.REVISION, bytes([revision])),
        attribute(_Attr.FAMILY, bytes([FAMILIES[version]])),
        attribute(_Attr.DATA | NESTED, options),
    )


def destroy(name: str) -> bytes:
    """Build the request that destroys a set.

    The error is ``Code.BUSY`` while a rule uses the set, and ENOENT if there is no such set.
    """
    return _message(Command.DESTROY, 0, text(_Attr.SETNAME, name))


def swap(name: str, other: str) -> bytes:
    """Build the request that swaps the contents of two sets in one step.

    Rules that name a set then use its new contents.
    """
    return _message(Command.SWAP, 0, text(_Attr.SETNAME, name), text(_Attr.TYPENAME, other))


def contains(name: str, network: Network) -> bytes:
    """Build the request that asks whether the set ``name`` has the element ``network``.

    The kernel's answer is the error ``Code.EXIST`` if the set lacks it.
    """
    [entry] = _WITHOUT_TIMEOUT[network.version].write([(network, 0)], _NO_LINE)
    return _message(Command.TEST, 0, text(_Attr.SETNAME, name), entry)


def list_elements(name: str) -> bytes:
    """Build the request for a set with its elements; :func:`parse_elements` parses the answers."""
    return _message(Command.LIST, NLM_F_DUMP, text(_Attr.SETNAME, name))


def list_header(name: str) -> bytes:
    """Build the request for a set's header; :func:`parse_header` parses the answer.

    It takes the kernel a millisecond for 100 000 elements, and longer for more.
    """
    return _message(Command.LIST, NLM_F_DUMP, text(_Attr.SETNAME, name), number(_Attr.FLAGS, _LIST_HEADER))


def list_names() -> bytes:
    """Build the request for the names of all sets; :func:`parse_name` parses each answer."""
    return _message(Command.LIST, NLM_F_DUMP, number(_Attr.FLAGS, _LIST_NAMES))


def parse_name(answer: bytes) -> str:
    """Return the name of the set in one answer to :func:`list_names`."""
    return string(parse(answer, Command.LIST), _Attr.SETNAME)


def add(name: str, elements: Sequence[tuple[Network, int]]) -> bytes:
    """Build the request that adds at most MAX_ELEMENTS networks, each with its timeout in seconds (from 1).

    All networks have one IP version. An existing element gets the new timeout and keeps its counters.
    """
    return _many(Command.ADD, name, _WITH_TIMEOUT[elements[0][0].version].write(elements))


def add_permanent(name: str, networks: Sequence[Network]) -> bytes:
    """Build the request that adds at most MAX_ELEMENTS networks of one IP version, without timeouts."""
    return _many(
        Command.ADD, name, _WITHOUT_TIMEOUT[networks[0].version].write([(one, 0) for one in networks])
    )


def delete(name: str, networks: Sequence[Network]) -> bytes:
    """Build the request that removes at most MAX_ELEMENTS networks of one IP version; some may be absent."""
    return _many(Command.DEL, name, _WITH_TIMEOUT[networks[0].version].write([(one, 0) for one in networks]))


def _many(command: Command, name: str, entries: Sequence[bytes]) -> bytes:
    return _message(
        command,
        0,
        text(_Attr.SETNAME, name),
        number(_Attr.LINENO, _NO_LINE),
        attribute(_Attr.ADT | NESTED, b"".join(entries)),
    )


class _Encoder:
    """An encoder of elements. ``timed``: with timeouts, which the kernel ignores in a DEL.

    Only address, prefix length, timeout and line number differ between two elements of one IP version, so one
    ``struct.pack`` encodes an element.
    """

    def __init__(self, version: int, *, timed: bool) -> None:
        # An IPv4 address is encoded faster from a number than from bytes.
        size, address = (4, "I") if version == _IPV4 else (16, "16s")
        self._pack = struct.Struct(f">12s{address}4sB3x{'4sI' * timed}4sI").pack
        self._key = int if version == _IPV4 else operator.attrgetter("packed")
        self._ip = (
            ATTRIBUTE.pack(size + 28 + 8 * timed, _Attr.DATA | NESTED)
            + ATTRIBUTE.pack(size + 8, _Data.IP | NESTED)
            + ATTRIBUTE.pack(size + 4, (1 if version == _IPV4 else 2) | BIG_ENDIAN)
        )
        self._cidr = ATTRIBUTE.pack(5, _Data.CIDR)
        self._timeout = ATTRIBUTE.pack(8, _Data.TIMEOUT | BIG_ENDIAN) if timed else b""
        self._line = ATTRIBUTE.pack(8, _Data.LINENO | BIG_ENDIAN)

    def write(self, elements: Iterable[tuple[Network, int]], first: int = 1) -> list[bytes]:
        """Encode networks with timeouts in seconds, numbered from ``first`` (an error names the number)."""
        pack, key, ip = self._pack, self._key, self._ip
        cidr, time, line = self._cidr, self._timeout, self._line
        lines = enumerate(elements, first)
        if not time:
            return [pack(ip, key(n.network_address), cidr, n.prefixlen, line, at) for at, (n, _) in lines]
        return [
            pack(ip, key(one.network_address), cidr, one.prefixlen, time, seconds, line, number)
            for number, (one, seconds) in lines
        ]


_WITH_TIMEOUT, _WITHOUT_TIMEOUT = (
    {version: _Encoder(version, timed=timed) for version in FAMILIES} for timed in (True, False)
)
_TIMED = number(_Data.TIMEOUT, 0) + number(_Data.CADT_FLAGS, _WITH_COUNTERS)


def parse_header(answer: bytes) -> IpsetHeader:
    """Parse the header of a set, from the kernel's answer to :func:`list_header`."""
    return _header(attributes_of(answer, Command.LIST))


@lru_cache(maxsize=1024)  # the sets are read every second, and most of them are unchanged
def _header(packed: bytes) -> IpsetHeader:
    top = dict(attributes(memoryview(packed)))
    data = dict(attributes(required(top, _Attr.DATA)))
    return IpsetHeader(
        name=string(top, _Attr.SETNAME),
        type_name=string(top, _Attr.TYPENAME),
        version=_VERSIONS.get(integer(top, _Attr.FAMILY), 0),
        timeout=_Data.TIMEOUT in data,
        counters=bool(integer(data, _Data.CADT_FLAGS) & _WITH_COUNTERS),
        elements=integer(data, _Data.HEAD_ELEMENTS),
        references=integer(data, _Data.HEAD_REFERENCES),
    )


def parse_elements(answer: bytes, scope: Scope = Scope.FULL) -> tuple[Element, ...]:
    """Parse the elements in an answer to :func:`list_elements`; ``scope`` is that of each ban in the set.

    Remaining times are in seconds, ``inf`` without a timeout. A large set arrives in several answers. An
    exception (``nomatch``) that another program added bans nothing, and is skipped.
    """
    adt = parse(answer, Command.LIST).get(_Attr.ADT, memoryview(b""))
    for layout in _LAYOUTS:
        elements = _regular(adt, scope, *layout)
        if elements is not None:
            return elements
    return tuple(_irregular(adt, scope))


def _layout(
    version: int, size: int, network: type[IPv4Network | IPv6Network]
) -> tuple[struct.Struct, tuple[bytes, ...], type[IPv4Network | IPv6Network]]:
    head, address = ATTRIBUTE.pack, size + 4
    fixed = (
        head(address + 48, _Attr.DATA | NESTED)
        + head(address + 4, _Data.IP | NESTED)
        + head(address, 1 if version == _IPV4 else 2),
        head(5, _Data.CIDR),
        head(8, _Data.TIMEOUT | BIG_ENDIAN),
        head(12, _Data.BYTES | BIG_ENDIAN),
        head(12, _Data.PACKETS | BIG_ENDIAN),
    )
    return struct.Struct(f">12s{size}s4sB3x4sI4sQ4sQ"), fixed, network


# The kernel's layout of an element with timeout and counters: parsing 100 000 takes 0.45 s this way, and 1 s
# attribute by attribute.
_LAYOUTS = (_layout(4, 4, IPv4Network), _layout(6, 16, IPv6Network))


def element_bytes(network: Network) -> bytes:
    """Return the bytes that identify an element in an answer: its address and its prefix length."""
    _, fixed, _ = _LAYOUTS[network.version != _IPV4]
    return fixed[0][4:] + network.network_address.packed + fixed[1] + bytes([network.prefixlen])


def _regular(
    adt: memoryview,
    scope: Scope,
    layout: struct.Struct,
    fixed: tuple[bytes, ...],
    network: type[IPv4Network | IPv6Network],
) -> tuple[Element, ...] | None:
    """Parse the elements in ``adt`` if each of them has this layout, else return None.

    ``layout`` unpacks one element: by turns an attribute header and its value. ``fixed`` are the headers that
    each element must have. ``network`` is the type of its address.
    """
    if len(adt) % layout.size:
        return None
    elements = []
    for h1, address, h2, prefix, h3, timeout, h4, octets, h5, packets in layout.iter_unpack(adt):
        if (h1, h2, h3, h4, h5) != fixed:
            return None
        elements.append(_element(network, address, prefix, timeout, packets, octets, scope))
    return tuple(elements)


def _irregular(adt: memoryview, scope: Scope) -> Iterator[Element]:
    """Parse elements that may have other attributes too (comments, marks): slower, one by one.

    Raise NetlinkMessageError if ``adt``, the kernel's list, has anything but elements.
    """
    for kind, entry in attributes(adt):
        if kind != _Attr.DATA:
            raise NetlinkMessageError(f"an ipset element list holds attribute {kind}")
        data = dict(attributes(entry))
        if integer(data, _Data.CADT_FLAGS) & _NOMATCH:
            continue
        ip = dict(attributes(required(data, _Data.IP)))
        network = IPv4Network if 1 in ip else IPv6Network
        address = bytes(required(ip, 1 if 1 in ip else 2))
        prefix = integer(data, _Data.CIDR) if _Data.CIDR in data else len(address) * 8
        timeout = integer(data, _Data.TIMEOUT)
        counters = integer(data, _Data.PACKETS), integer(data, _Data.BYTES)
        yield _element(network, address, prefix, timeout, *counters, scope)


def _element(
    network: type[IPv4Network | IPv6Network],
    address: bytes,
    prefix: int,
    timeout: int,
    packets: int,
    octets: int,
    scope: Scope,
) -> Element:
    try:
        return Element(network((address, prefix)), timeout or math.inf, packets, octets, scope)
    except ValueError as error:
        raise NetlinkMessageError(f"an ipset element is not a network: {error}") from error


def refused_index(request: bytes) -> int | None:
    """Return the index of the element that the kernel refused; None if its error concerns no element.

    ``request`` is the copy of the request that the kernel's error message contains.
    """
    if len(request) < HEADER.size:
        return None
    for kind, payload in attributes(memoryview(request)[HEADER.size :]):
        if kind == _Attr.LINENO:
            line = int.from_bytes(payload, "big")
            return None if line == _NO_LINE else line - 1
    return None
