"""IP packets with a datagram or a segment of TCP, as the kernel copies them."""

import struct
from ipaddress import ip_address

PORT = 5060
_UDP, _TCP = 17, 6
_IP, _TCP_HEAD, _UDP_HEAD = 20, 20, 8  # bytes of the headers


def _in_ip(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    ends = ip_address(source).packed + ip_address(target).packed
    if ip_address(source).version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload
    return struct.pack("!BBHHHBBH", 0x45, 0, _IP + len(payload), 0, 0, 64, protocol, 0) + ends + payload


def datagram(source: str, source_port: int, target: str, target_port: int, data: bytes) -> bytes:
    """Return an IP packet with a UDP datagram in it."""
    head = struct.pack("!HHHH", source_port, target_port, _UDP_HEAD + len(data), 0)
    return _in_ip(source, target, _UDP, head + data)


def segment(source: str, source_port: int, target: str, target_port: int, data: bytes) -> bytes:
    """Return an IP packet with a segment of TCP in it, for :func:`numbered`."""
    head = struct.pack("!HHIIBBHHH", source_port, target_port, 1, 1, 5 << 4, 0x18, 1024, 0, 0)
    return _in_ip(source, target, _TCP, head + data)


def numbered(packet: bytes, number: int) -> tuple[bytes, int]:
    """Return an IPv4 packet with its sequence number, and the number that follows."""
    after = number + len(packet) - _IP - _TCP_HEAD
    return packet[: _IP + 4] + struct.pack("!I", number) + packet[_IP + 8 :], after


def syns(address: str, port: int, here: str) -> tuple[bytes, bytes]:
    """Return the SYN of a connection from this address and port, and the SYN-ACK that answers it."""
    asks = struct.pack("!HHIIBBHHH", port, PORT, 0, 0, 5 << 4, 0x02, 1024, 0, 0)
    accepts = struct.pack("!HHIIBBHHH", PORT, port, 0, 1, 5 << 4, 0x12, 1024, 0, 0)
    return _in_ip(address, here, _TCP, asks), _in_ip(here, address, _TCP, accepts)
