"""The kernel's reports of closed TCP connections, from real sockets in a namespace of the test's own."""

import errno
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.netns import run
from tests.support.segments import ACK, COOKIE_REQUEST, FORGED, RST, SYN, remote

from ringfence.errors import HostError
from ringfence.host.closed import MOST_AT_ONCE, Closed, ClosedSockets
from ringfence.netlink.sock_diag import port_of, sockets

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

CAP_NET_ADMIN = 12
AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: close() sends a reset


@contextmanager
def reports() -> Iterator[ClosedSockets]:
    """Follow the closed connections of this namespace."""
    closed = ClosedSockets()
    closed.open()
    list(sockets(socket.AF_INET, socket.IPPROTO_TCP, 1 << 10))  # loads tcp_diag
    try:
        yield closed
    finally:
        closed.close()


def came(closed: ClosedSockets, port: int, least: int = 1) -> list[Closed]:
    """Wait for reports of connections to a port, and for a little more; return them all."""
    found: list[Closed] = []
    end = time.monotonic() + 20
    while len(found) < least and time.monotonic() < end:
        time.sleep(0.05)
        more, lost, _ = closed.read()
        assert not lost
        found += [each for each in more if port_of(each.local_port) == port]
    return found


def reset(end: socket.socket) -> None:
    """Close a connection by a reset."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    end.close()


def counted(name: str) -> int:
    """Return one of the kernel's counters of this namespace."""
    return int(run("nstat", "-asz", name).split()[-2])


def client_first(client: socket.socket, server: socket.socket) -> None:
    """Close at the connecting end first."""
    client.close()
    server.close()


def server_first(client: socket.socket, server: socket.socket) -> None:
    """Close at the accepting end first: its socket becomes a TIME_WAIT entry."""
    server.close()
    client.close()


def client_resets(client: socket.socket, server: socket.socket) -> None:
    """Reset at the connecting end."""
    reset(client)
    server.close()


def server_leaves_data(client: socket.socket, server: socket.socket) -> None:
    """Close at the accepting end with data unread, which resets."""
    client.sendall(b"unread")
    while not server.recv(1, socket.MSG_PEEK):
        pass
    server.close()
    client.close()


@pytest.mark.parametrize("ends", [client_first, server_first, client_resets, server_leaves_data])
@pytest.mark.parametrize(
    ("family", "listen", "connect"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "IPv4-mapped"],
)
def test_an_accepted_connection_is_reported_once_however_it_ends(
    family: socket.AddressFamily,
    listen: str,
    connect: str,
    ends: Callable[[socket.socket, socket.socket], None],
) -> None:
    """The report has the remote port and the remote address, converted to IPv4 if it is IPv4-mapped."""
    with (
        reports() as closed,
        socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as server,
    ):
        port = server.getsockname()[1]
        client = socket.create_connection((connect, port))
        far = client.getsockname()[1]
        ends(client, server.accept()[0])
        expected = ip_address(connect).packed + far.to_bytes(2, "big")

        [one] = came(closed, port)
        assert (one.local_port, one.remote) == (port.to_bytes(2, "big"), expected)
        assert one.received is not None
        time.sleep(0.1)
        assert [each for each in closed.read()[0] if port_of(each.local_port) == port] == []


def test_a_reset_is_reported_when_the_program_closes_its_descriptor() -> None:
    """The connection is missing from the kernel's socket list between the reset and the program's close()."""
    with reports() as closed, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        reset(client)
        time.sleep(0.1)
        listed = [row for row in sockets(socket.AF_INET, socket.IPPROTO_TCP, 0xFFF) if row.state != 10]

        assert (came(closed, port, 0), listed) == ([], [])
        accepted.close()
        assert len(came(closed, port)) == 1


def test_a_refused_connection_and_a_listener_are_not_reported() -> None:
    """A socket without a remote end is no connection."""
    with reports() as closed:
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        time.sleep(0.1)
        assert closed.read() == ([], False, False)


@pytest.mark.parametrize("cookies", [1, 2], ids=["SYN cookies when the queue is full", "SYN cookies always"])
def test_an_incomplete_handshake_is_not_reported(cookies: int) -> None:
    """A forged SYN leads to no report: neither while it waits, nor after a reset, nor after blind ACKs."""
    with remote() as far, reports() as closed, socket.create_server(("0.0.0.0", 5060), backlog=5):
        Path("/proc/sys/net/ipv4/tcp_syncookies").write_text(str(cookies))
        Path("/proc/sys/net/ipv4/tcp_synack_retries").write_text("1")
        far.send((FORGED, 1000), 5060, SYN, 1)
        time.sleep(0.1)
        assert ("SYN-RECV" in run("ss", "-Htan")) is (cookies == 1)
        far.send((FORGED, 1000), 5060, RST, 2)
        for port in range(2000, 2040):
            far.send((FORGED, port), 5060, SYN, 1)
        for port, number in enumerate(range(7, 1 << 32, 107_374_183), 2000):
            far.send((FORGED, port), 5060, ACK, 2, number, data=b"guess")
        time.sleep(4)  # the last request has expired: 1 s, then 2 s
        assert counted("TcpExtSyncookiesSent") > 0
        assert counted("TcpExtSyncookiesFailed") > 0
        until(lambda: "SYN-RECV" not in run("ss", "-Htan"), "the end of the last request")
        assert closed.read() == ([], False, False)


@pytest.mark.parametrize("more", [{"data": b"guess"}, {"options": COOKIE_REQUEST}], ids=["data", "cookie"])
def test_a_fast_open_socket_of_a_forged_syn_is_not_reported(more: dict[str, bytes]) -> None:
    """If Fast Open needs no cookie, the program accepts a connection and reads data before any handshake."""
    with remote() as far, reports() as closed:
        Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(str(0x1 | 0x2 | 0x200 | 0x400))
        with socket.create_server(("0.0.0.0", 5060)) as server:
            server.settimeout(5)
            far.send((FORGED, 1000), 5060, SYN, 1, 0, **more)
            accepted, address = server.accept()
            assert address == (FORGED, 1000)
            far.send((FORGED, 1000), 5060, RST, 2 + len(more.get("data", b"")))
            while "SYN-RECV" in run("ss", "-Htan"):
                time.sleep(0.05)
            accepted.close()
            time.sleep(0.2)
            assert closed.read() == ([], False, False)
            with far.connect(5060):
                server.accept()[0].close()
            assert len(came(closed, 5060)) == 1


def test_a_full_buffer_is_a_loss_after_which_reading_continues() -> None:
    """Reading continues after ENOBUFS."""
    closed = ClosedSockets(buffer=4096)
    closed.open()
    with closing(closed), socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(50):
            client_first(socket.create_connection(server.getsockname()), server.accept()[0])
        until(lambda: closed.read()[1], "the loss")

        def is_reported() -> bool:
            """Whether a connection that is made and closed now is reported."""
            with socket.create_server(("127.0.0.1", 0)) as another:
                client_first(socket.create_connection(another.getsockname()), another.accept()[0])
                time.sleep(0.05)
                port = another.getsockname()[1]
            return any(port_of(each.local_port) == port for each in closed.read()[0])

        # The kernel sends late reports of the first connections at any time, and they fill the buffer again.
        until(is_reported, "the report of a later connection")


def test_one_reading_is_bounded() -> None:
    """A flood of closed connections does not block the event loop."""
    with reports() as closed, socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(MOST_AT_ONCE):  # two reports for each: both ends are here
            client_first(socket.create_connection(server.getsockname()), server.accept()[0])
        time.sleep(0.2)
        first, lost, more = closed.read()
        assert (len(first), lost, more) == (MOST_AT_ONCE, False, True)


def test_a_message_that_cannot_be_read_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every truncation of a real message is a loss, also one without the counter that shows the handshake."""
    with reports() as closed, socket.create_server(("127.0.0.1", 0)) as server:
        client_first(socket.create_connection(server.getsockname()), server.accept()[0])
        assert closed._kernel is not None
        assert select.select([closed._kernel], [], [], 20)[0]
        message = closed._kernel.recv(4096)
    for cut in range(len(message)):
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        here.settimeout(0)
        monkeypatch.setattr(closed, "_kernel", here)
        with here, there:
            there.send(message[:cut])
            assert closed.read() == ([], True, False), cut


@pytest.mark.parametrize("capabilities", [0, 1 << CAP_NET_ADMIN], ids=["no capability", "CAP_NET_ADMIN"])
def test_a_user_with_the_units_capability_or_none_may_follow(capabilities: int) -> None:
    """Reports arrive for a user that is not root."""
    assert run(sys.executable, "-c", _FOLLOWER, str(capabilities)) == "1\n"


# Root does the imports, because the user may lack access to the folders of Python. 8 is PR_SET_KEEPCAPS,
# 38 is PR_SET_NO_NEW_PRIVS; capset takes a version, a pid, and two times three words.
_FOLLOWER = """
import ctypes, encodings.idna, os, socket, struct, sys, time
from ringfence.host.closed import ClosedSockets
libc, capabilities = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
assert libc.prctl(8, 1, 0, 0, 0) == 0 == libc.prctl(38, 1, 0, 0, 0)
os.setgroups([])
os.setresgid(4711, 4711, 4711)
os.setresuid(4711, 4711, 4711)
sets = struct.pack("6I", capabilities, capabilities, 0, 0, 0, 0)
assert libc.capset(struct.pack("Ii", 0x20080522, 0), sets) == 0
assert f"CapEff:\t{capabilities:016x}" in open("/proc/thread-self/status").read()
closed = ClosedSockets()
closed.open()
with socket.create_server(("127.0.0.1", 0)) as server:
    client = socket.create_connection(server.getsockname())
    server.accept()[0].close()
    client.close()
    port = server.getsockname()[1].to_bytes(2, "big")
    found, end = 0, time.monotonic() + 20
    while not found and time.monotonic() < end:
        time.sleep(0.2)
        found += sum(each.local_port == port for each in closed.read()[0])
    print(found)
"""


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.EAFNOSUPPORT, "RestrictAddressFamilies"),
        (errno.EPROTONOSUPPORT, "modprobe inet_diag tcp_diag"),
        (errno.EPERM, "CAP_NET_ADMIN"),
    ],
)
def test_a_socket_that_the_kernel_refuses_is_an_error_with_a_fix(
    number: int, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what failed, why, and what to do."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(number, "refused")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(HostError, match="cannot follow closed TCP connections .*; fix: .*" + fix):
        ClosedSockets().open()
