"""A writer of address databases in MaxMind's format (https://maxmind.github.io/MaxMind-DB/)."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Network, ip_network
from pathlib import Path

from attrs import frozen

Record = Mapping[str, object]
_MARKER = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR = 16
_V4_IN_V6 = 96
_LONG_SIZES = {28: 29, 29: 285, 30: 65_821, 31: 1 << 24}
ALIASES = ("::ffff:0:0/96", "2002::/16")


@frozen
class Number:
    """A number of a certain type: 5 has 16 bits, 6 has 32, 9 has 64."""

    kind: int
    value: int


def write(
    path: Path,
    records: Sequence[tuple[str, Record]],
    *,
    version: int = 6,
    size: int = 24,
    aliases: bool = True,
) -> Path:
    """Write networks with their records; the aliases of IPv4 point to IPv4, as in MaxMind's own files."""
    data = bytearray()
    offsets: dict[int, int] = {}
    tree: list[list[int | tuple[int]]] = [[-1, -1]]  # a node, or (an offset,) of data; -1 is nothing
    for text, record in records:
        if id(record) not in offsets:
            offsets[id(record)] = len(data)
            data += encode(record)
        _put(tree, _bits(text, version), (offsets[id(record)],))
    if version == 6 and aliases:
        start = _at(tree, [0] * _V4_IN_V6)
        for alias in ALIASES:
            _put(tree, _bits(alias, version), start)
    nodes = b"".join(_node(pair, len(tree), size) for pair in tree)
    path.write_bytes(nodes + bytes(_SEPARATOR) + data + _MARKER + encode(_metadata(len(tree), version, size)))
    return path


def _metadata(count: int, version: int, size: int) -> Record:
    return {
        "binary_format_major_version": Number(5, 2),
        "binary_format_minor_version": Number(5, 0),
        "build_epoch": Number(9, 1_700_000_000),
        "database_type": "Test",
        "description": {"en": "made by a test"},
        "ip_version": Number(5, version),
        "languages": ["en"],
        "node_count": count,
        "record_size": Number(5, size),
    }


def encode(value: object) -> bytes:
    """Encode a value of the data section."""
    if isinstance(value, Mapping):
        return _head(7, len(value)) + b"".join(encode(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return _head(11, len(value)) + b"".join(map(encode, value))
    if isinstance(value, int):
        return encode(Number(6, value))
    if isinstance(value, Number):
        raw = value.value.to_bytes((value.value.bit_length() + 7) // 8, "big")
        return _head(value.kind, len(raw)) + raw
    raw = str(value).encode()
    return _head(2, len(raw)) + raw


def _head(kind: int, size: int) -> bytes:
    more = b""
    length = size
    if size >= 29:
        bound, number = next((n, n - 28) for n in (29, 30, 31) if size < _LONG_SIZES[n])
        length, more = bound, (size - _LONG_SIZES[bound - 1]).to_bytes(number, "big")
    if kind > 7:
        return bytes([length, kind - 7]) + more
    return bytes([kind << 5 | length]) + more


def _bits(text: str, version: int) -> list[int]:
    network = ip_network(text)
    number, length, width = int(network.network_address), network.prefixlen, network.max_prefixlen
    bits = [number >> (width - 1 - index) & 1 for index in range(length)]
    return bits if version == 4 or isinstance(network, IPv6Network) else [0] * _V4_IN_V6 + bits


def _at(tree: list[list[int | tuple[int]]], bits: Sequence[int]) -> int | tuple[int]:
    node: int | tuple[int] = 0
    for bit in bits:
        assert isinstance(node, int)
        node = tree[node][bit]
    return node


def _put(tree: list[list[int | tuple[int]]], bits: Sequence[int], leaf: int | tuple[int]) -> None:
    node = 0
    for bit in bits[:-1]:
        below = tree[node][bit]
        if below == -1:
            tree.append([-1, -1])
            below = tree[node][bit] = len(tree) - 1
        assert isinstance(below, int), "networks must not overlap"
        node = below
    tree[node][bits[-1]] = leaf


def _node(pair: Sequence[int | tuple[int]], count: int, size: int) -> bytes:
    left, right = (
        count + _SEPARATOR + entry[0] if isinstance(entry, tuple) else count if entry == -1 else entry
        for entry in pair
    )
    if size == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3, "big") + bytes([middle]) + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(size // 8, "big") + right.to_bytes(size // 8, "big")


def endless(path: Path, records: int = 131_072) -> Path:
    """Write a database of IPv4 in which each leaf has a record of its own, and all share their values.

    A record is a map of some bytes, whose country is a pointer to one large map. Each value of that points to
    one long list. A reader that follows all pointers decodes 30 000 values for each record.
    """
    leaf = b"\xe1" + encode("country") + b"\x38" + (16 * records).to_bytes(4, "big")
    assert len(leaf) <= 16, "the records begin at multiples of 16"
    pairs = (encode("k") + b"\x38" + (16 * records + 4_096).to_bytes(4, "big") for _ in range(150))
    large = _head(7, 150) + b"".join(pairs)
    data = leaf.ljust(16, b"\0") * records + large.ljust(4_096, b"\0") + _head(11, 200) + encode("") * 200
    count = records - 1
    tree = bytearray()
    for node in range(count):  # a complete tree
        for child in (2 * node + 1, 2 * node + 2):
            record = child if child < count else count + _SEPARATOR + 16 * (child - count)
            tree += record.to_bytes(4, "big")
    path.write_bytes(bytes(tree) + bytes(_SEPARATOR) + data + _MARKER + encode(_metadata(count, 4, 32)))
    return path
