"""Connections: read from the kernel's own list, for real sockets of both versions."""

import socket
from pathlib import Path

import pytest

from ringfence.host.connections import FRESH, Connections
from ringfence.model import Endpoint, Transport, network_from


def endpoint(host: str, port: int) -> Endpoint:
    """Give an end of a connection."""
    return Endpoint(network_from(host).network_address, port, Transport.TCP)


@pytest.mark.parametrize(
    ("family", "listen", "connect"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "IPv4 in IPv6 clothes"],
)
def test_who_is_connected_is_known_by_address_and_port(
    family: socket.AddressFamily, listen: str, connect: str
) -> None:
    """From the end of the handshake to the end of the connection, and no other port of his."""
    now = [0.0]
    connections = Connections(clock=lambda: now[0])
    dual = listen == "::"
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=dual) as server:
        with socket.create_connection((connect, server.getsockname()[1])) as client:
            accepted, _ = server.accept()
            here = endpoint(connect, client.getsockname()[1])
            with accepted:
                assert connections.has(here)
                assert not connections.has(endpoint(connect, 1))
                assert not connections.has(endpoint("203.0.113.9", here.port))
        now[0] += FRESH
        assert not connections.has(endpoint(connect, 1))
    assert connections.error == ""


def test_whom_this_host_has_called_is_not_connected_with_it() -> None:
    """The port of a trunk or of a web server is known to everybody: it vouches for nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            connections = Connections()

            assert not connections.has(endpoint("127.0.0.1", port))
            assert connections.has(endpoint("127.0.0.1", client.getsockname()[1]))


def test_who_only_listens_is_not_connected() -> None:
    """The list has listeners too, with the remote end 0.0.0.0:0."""
    with socket.create_server(("127.0.0.1", 0)):
        assert not Connections().has(endpoint("0.0.0.0", 0))


def test_the_list_is_read_again_only_when_it_is_old(tmp_path: Path) -> None:
    """Whoever makes many lines costs few readings."""
    now = [0.0]
    table = tmp_path / "tcp"
    head = "  sl  local_address rem_address   st\n"
    listener = "   0: 0100007F:13C4 00000000:0000 0A x\n"
    table.write_text(head + "   1: 0100007F:13C4 07AA12C6:13C6 01 x\n" + listener)
    connections = Connections((table,), lambda: now[0])
    assert connections.has(endpoint("198.18.170.7", 5062))
    table.write_text(head)
    now[0] = FRESH - 0.01
    assert connections.has(endpoint("198.18.170.7", 5062))
    now[0] = FRESH
    assert not connections.has(endpoint("198.18.170.7", 5062))


def test_a_handshake_that_is_not_finished_proves_nothing(tmp_path: Path) -> None:
    """Anybody can have SYN_RECV stand under a stranger's address."""
    table = tmp_path / "tcp"
    listener = "   0: 0100007F:13C4 00000000:0000 0A x\n"
    table.write_text("head\n" + listener + "   1: 0100007F:13C4 07AA12C6:13C6 03 x\n")
    assert not Connections((table,)).has(endpoint("198.18.170.7", 5062))


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """And nobody is connected as far as that goes; a list that is not there is no error."""
    connections = Connections((tmp_path, tmp_path / "none"))
    assert not connections.has(endpoint("198.18.170.7", 5062))
    assert connections.error == f"{tmp_path}: Is a directory"
