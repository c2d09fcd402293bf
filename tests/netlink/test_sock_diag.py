"""The kernel's list of sockets, for real sockets of both protocols and both IP versions."""

import errno
import os
import socket
from ipaddress import ip_address

import pytest

from ringfence.netlink import sock_diag
from ringfence.netlink.sock_diag import (
    CLOSED,
    ESTABLISHED,
    LISTENING,
    address_of,
    peer_user,
    port_of,
    sockets,
)
from ringfence.values.network import Address


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
    """The list has the same owner, inode, address and port as /proc and the socket itself."""
    with socket.socket(family, kind) as own:
        own.bind((host, 0))
        if kind is socket.SOCK_STREAM:
            own.listen()
        [row] = [
            row
            for row in sockets(family, protocol, 1 << state)
            if port_of(row.local_port) == own.getsockname()[1] and row.inode == os.fstat(own.fileno()).st_ino
        ]
    assert (row.state, row.uid) == (state, os.geteuid())
    assert address_of(row.local) == ip_address(host)
    assert port_of(row.remote_port) == 0


def test_only_the_requested_states_are_listed() -> None:
    """A connected UDP socket accepts datagrams of one peer only, and is not listed as unconnected."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.connect(("127.0.0.1", 9))
        inode = os.fstat(own.fileno()).st_ino
        listed = [row.inode for row in sockets(socket.AF_INET, socket.IPPROTO_UDP, 1 << CLOSED)]
    assert inode not in listed


def test_only_the_requested_ports_are_listed() -> None:
    """The kernel leaves out the other connections of a port: there may be very many."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        socket.create_connection(server.getsockname()),
    ):
        here, there = (end.getsockname()[1].to_bytes(2, "big") for end in (server, one))
        [row] = sockets(socket.AF_INET, socket.IPPROTO_TCP, 1 << ESTABLISHED, ports=(here, there))
    assert (row.local_port, row.remote_port) == (here, there)


def test_a_protocol_without_a_list_is_an_oserror() -> None:
    """A protocol without a list is an OSError, as on a kernel without the module for it."""
    with pytest.raises(OSError, match="sock_diag") as raised:
        list(sockets(socket.AF_INET, 253, 0xFFF))
    assert raised.value.errno == errno.ENOENT


def test_an_ipv4_mapped_address_is_ipv4() -> None:
    """An IPv4-mapped address is returned as IPv4: so a dual-stack listener's IPv4 peers are listed."""
    assert address_of(b"\0" * 10 + b"\xff\xff" + bytes([192, 0, 2, 7])) == ip_address("192.0.2.7")
    assert address_of(bytes([192, 0, 2, 7])) == ip_address("192.0.2.7")
    assert address_of(ip_address("2001:db8::7").packed) == ip_address("2001:db8::7")


def ends_of(one: socket.socket) -> tuple[tuple[Address, int], tuple[Address, int]]:
    """Return address and port of a connected socket, and of its peer."""
    own, peer = one.getsockname(), one.getpeername()
    return (ip_address(own[0]), own[1]), (ip_address(peer[0]), peer[1])


@pytest.mark.parametrize(
    ("family", "host", "peer"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "dual-stack"],
)
def test_the_user_of_a_peer_is_known_while_a_process_holds_its_socket(
    family: socket.AddressFamily, host: str, peer: str
) -> None:
    """Before it is accepted, and once it is closed, the kernel names root: then the user is unknown."""
    server = socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")
    with server, socket.create_connection((peer, server.getsockname()[1])) as own:
        ends = ends_of(own)
        assert peer_user(*ends) is None
        with server.accept()[0]:
            assert peer_user(*ends) == os.geteuid()
        assert peer_user(*ends) is None


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_user_of_a_peer_is_the_one_that_accepted_the_connection() -> None:
    """A program may open its port as root, and accept connections as another user."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as own,
    ):
        os.seteuid(65_534)
        try:
            accepted, _ = server.accept()
        finally:
            os.seteuid(0)
        with accepted:
            assert peer_user(*ends_of(own)) == 65_534


def test_without_a_list_the_user_of_a_peer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is on a kernel that cannot list its TCP sockets."""

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.ENOENT, "sock_diag")

    monkeypatch.setattr(sock_diag, "sockets", failing)
    home = ip_address("127.0.0.1")
    assert peer_user((home, 40_000), (home, 5_038)) is None
