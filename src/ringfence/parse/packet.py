"""IP packets with UDP or TCP as bytes: addresses, ports and payload.

Later fragments are not parsed. The IPv6 extension headers that any sender may add are skipped, as the kernel
skips them: hop-by-hop and destination options, routing, and the header of a first fragment. A packet may be
cut off. The kernel logs a TCP segment before the network card splits it (GSO), so a packet may have 64 kB.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ringfence.values.network import Address

UDP = 17
TCP = 6
SEQUENCES = 1 << 32
_UDP_HEADER = 8
_TCP_HEADER = 20
_SYN, _RST = 0x02, 0x04
_URG = 0x20
_END_OF_OPTIONS, _NO_OPERATION, _SCALE = 0, 1, 3  # kinds of TCP options
_MOST_SCALE = 14
_IPV4_HEADER = 20
_IPV6_HEADER = 40
_IPV6_FRAGMENT = 44
_IPV6_OPTIONS = (0, 43, 60)  # hop-by-hop options, routing, destination options
_PORT, _PORTS = 2, 4  # bytes of one port and of both
_EXTENSION = 8  # bytes: the unit of an extension header, and the length of a fragment's
_MORE_FRAGMENTS = 0x2000
_FRAGMENT_OFFSET = 0x1FFF


def ip_payload(packet: bytes) -> tuple[int, bytes, bytes, bytes, bool] | None:
    """Return an IP packet's protocol, source, target, payload, and whether the payload may be incomplete.

    The two addresses are packed. Return None for a later fragment, and for a packet with an invalid header.
    """
    if len(packet) < _IPV4_HEADER:
        return None
    version = packet[0] >> 4
    if version == 4:  # noqa: PLR2004 - IPv4
        header = (packet[0] & 0x0F) * 4
        total = int.from_bytes(packet[2:4])
        fragment = int.from_bytes(packet[6:8])
        if not _IPV4_HEADER <= header <= total or fragment & _FRAGMENT_OFFSET:
            return None
        may_be_cut = bool(fragment & _MORE_FRAGMENTS) or total > len(packet)
        return packet[9], packet[12:16], packet[16:20], packet[header:total], may_be_cut
    if version == 6 and len(packet) >= _IPV6_HEADER:  # noqa: PLR2004 - IPv6
        total = _IPV6_HEADER + int.from_bytes(packet[4:6])
        source, target, payload = packet[8:24], packet[24:40], packet[_IPV6_HEADER:total]
        found = _behind_extensions(packet[6], payload)
        if found is None:
            return None
        return found[0], source, target, found[1], found[2] or total > len(packet)
    return None


def _behind_extensions(kind: int, payload: bytes) -> tuple[int, bytes, bool] | None:
    """Return protocol and payload after IPv6's extension headers, and whether the packet is a first fragment.

    ``kind`` is the type of the first header in ``payload``. Return None for a later fragment, and for an
    incomplete header. Each header has at least 8 bytes, so this takes linear time.
    """
    at, fragment = 0, False
    while kind in _IPV6_OPTIONS or kind == _IPV6_FRAGMENT:
        header = payload[at : at + _EXTENSION]
        if len(header) < _EXTENSION:
            return None
        size = _EXTENSION
        if kind != _IPV6_FRAGMENT:
            size += header[1] * _EXTENSION
        elif int.from_bytes(header[2:4]) >> 3:
            return None
        else:
            fragment = fragment or bool(header[3] & 1)  # without more fragments, it is whole
        kind, at = header[0], at + size
    return kind, payload[at:], fragment


def source_of(packet: bytes) -> Address | None:
    """Return the source address of an IP packet; None if its header is not whole."""
    version = packet[0] >> 4 if len(packet) >= _IPV4_HEADER else 0
    if version == 4:  # noqa: PLR2004 - IPv4
        return packed_address(packet[12:16])
    if version == 6 and len(packet) >= _IPV6_HEADER:  # noqa: PLR2004 - IPv6
        return packed_address(packet[8:24])
    return None


IPV6_ADDRESS = 16
"""The length of a packed IPv6 address (bytes)."""


def udp_datagram(payload: bytes, *, may_be_cut: bool, jumbo: bool = False) -> tuple[int, int, bytes] | None:
    """Return source port, target port and data of a UDP datagram, the ``payload`` of an IP packet.

    Return None if the datagram, or the length in its header, is shorter than a header. Return None also if
    data is missing at the end, unless it ``may_be_cut``. ``jumbo``: the length 0 stands for that of the
    whole payload, as Linux reads it in IPv6 (RFC 2675).
    """
    length = int.from_bytes(payload[4:6]) or (len(payload) if jumbo else 0)
    if len(payload) < _UDP_HEADER or length < _UDP_HEADER:
        return None
    if length > len(payload) and not may_be_cut:
        return None
    ports = int.from_bytes(payload[:2]), int.from_bytes(payload[2:4])
    return *ports, payload[_UDP_HEADER:length]


class Segment(NamedTuple):
    """A TCP segment. ``connection`` is the key of its connection: see :func:`ends_of`."""

    connection: bytes
    port: int
    target_port: int
    header: bytes
    data: bytes

    @property
    def begins(self) -> bool:
        """Whether it is a SYN."""
        return bool(self.header[13] & _SYN)

    @property
    def is_reset(self) -> bool:
        """Whether it ends the connection at once."""
        return bool(self.header[13] & _RST)

    @property
    def is_urgent(self) -> bool:
        """Whether it has urgent data, which its receiver does not find in the stream."""
        return bool(self.header[13] & _URG)

    @property
    def sequence(self) -> int:
        """The sequence number of its first byte."""
        return int.from_bytes(self.header[4:8])

    @property
    def acknowledged(self) -> int:
        """The number of the next byte that its sender expects."""
        return int.from_bytes(self.header[8:12])

    @property
    def window(self) -> int:
        """The field of the receive window, not yet multiplied by the connection's scale."""
        return int.from_bytes(self.header[14:16])

    @property
    def scale(self) -> int:
        """The window scale option of a SYN (RFC 7323 §2.2), a power of two; 0 without one."""
        at, header = _TCP_HEADER, self.header
        while at + 1 < len(header) and header[at] != _END_OF_OPTIONS:
            if header[at] == _NO_OPERATION:
                at += 1
                continue
            if header[at] == _SCALE and at + 2 < len(header):
                return min(header[at + 2], _MOST_SCALE)
            at += max(header[at + 1], 2)
        return 0


def tcp_segment(source: bytes, target: bytes, payload: bytes) -> Segment | None:
    """Return the TCP segment in the payload of an IP packet with these packed addresses; None if invalid."""
    if len(payload) < _TCP_HEADER:
        return None
    header = (payload[12] >> 4) * 4
    if not _TCP_HEADER <= header <= len(payload):
        return None
    ports = int.from_bytes(payload[:2]), int.from_bytes(payload[2:4])
    return Segment(b"".join((source, target, payload[:_PORTS])), *ports, payload[:header], payload[header:])


def segment_in(packet: bytes) -> Segment | None:
    """Return the TCP segment in an IP packet; None if there is none, or no valid one."""
    whole = ip_payload(packet)
    return tcp_segment(*whole[1:4]) if whole is not None and whole[0] == TCP else None


def ends_of(connection: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return source address, target address, source port and target port of a TCP connection, each packed.

    They stand in this order in the key ``connection``. The source is the sender of the segments.
    """
    width = (len(connection) - _PORTS) // 2
    target, ports = connection[width : 2 * width], connection[2 * width :]
    return connection[:width], target, ports[:_PORT], ports[_PORT:]


def other_way(connection: bytes) -> bytes:
    """Return the key that a TCP connection has in the segments of its other end."""
    source, target, port, target_port = ends_of(connection)
    return b"".join((target, source, target_port, port))


@lru_cache(maxsize=4096)
def packed_address(packed: bytes) -> Address:
    """Return the address that 4 or 16 bytes represent."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004 - bytes of IPv4
