"""The kernel's list of sockets, for real sockets of both protocols and both IP versions."""

import errno
import os
import socket
from ipaddress import ip_address

import pytest

from ringfence.host.sockets import CLOSED, LISTENING, address_of, port_of, sockets


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize(
    ("kind", "protocol", "state"),
    [
        (socket.SOCK_STREAM, socket.IPPROTO_TCP, LISTENING),
        (socket.SOCK_DGRAM, socket.IPPROTO_UDP, CLOSED),
    ],
    ids=["TCP", "UDP"],
)
def test_a_socket_is_listed_with_its_owner_and_inode(
    family: socket.AddressFamily, host: str, kind: socket.SocketKind, protocol: int, state: int
) -> None:
    """What /proc and the socket itself say of it is what the list says."""
    with socket.socket(family, kind) as own:
        own.bind((host, 0))
        if kind is socket.SOCK_STREAM:
            own.listen()
        [row] = [
            row
            for row in sockets(family, protocol, 1 << state)
            if port_of(row.local_port) == own.getsockname()[1] and row.inode == os.fstat(own.fileno()).st_ino
        ]
    width = 4 if family == socket.AF_INET else 16
    assert (row.state, row.uid) == (state, os.geteuid())
    assert address_of(row.local[:width]) == ip_address(host)
    assert port_of(row.remote_port) == 0


def test_only_the_states_that_are_asked_for_are_listed() -> None:
    """A UDP socket that is connected takes datagrams of one peer, and is not among those that are not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.connect(("127.0.0.1", 9))
        inode = os.fstat(own.fileno()).st_ino
        listed = [row.inode for row in sockets(socket.AF_INET, socket.IPPROTO_UDP, 1 << CLOSED)]
    assert inode not in listed


def test_a_protocol_that_the_kernel_does_not_list_is_an_oserror() -> None:
    """As on a kernel without the module for it."""
    with pytest.raises(OSError, match="sock_diag") as raised:
        list(sockets(socket.AF_INET, 253, 0xFFF))
    assert raised.value.errno == errno.ENOENT


def test_ipv4_in_ipv6_clothes_is_ipv4() -> None:
    """A dual-stack listener's IPv4 callers are listed among the IPv6 ones."""
    assert address_of(b"\0" * 10 + b"\xff\xff" + bytes([192, 0, 2, 7])) == ip_address("192.0.2.7")
    assert address_of(bytes([192, 0, 2, 7])) == ip_address("192.0.2.7")
    assert address_of(ip_address("2001:db8::7").packed) == ip_address("2001:db8::7")
