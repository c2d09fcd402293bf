"""Other services of the PBX's host, and their clients on the attacker's side: web servers, SSH and TFTP.

    with served(lab):
        with client(lab, "198.19.90.7", WEB) as page:
            assert echoes(page)

A web server and the SSH server send back what arrives. The TFTP server answers each request from a new port,
like a real one (RFC 1350), and goes on there.
"""

import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address

from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, PBX_IPV6, socket_in

WEB, OTHER_WEB, SSH, TFTP = 443, 8443, 2222, 69
PORTS = [f"{WEB}/tcp", f"{OTHER_WEB}/tcp", f"{SSH}/tcp", f"{TFTP}/udp"]
"""The ports as ``also`` of ``[fence]`` names them."""
BANNERS = {WEB: b"", OTHER_WEB: b"", SSH: b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"}
PATIENCE = 2.0
"""Seconds that a client waits: the kernel sends a lost first packet again after one."""


class _Server(threading.Thread):
    """Serves all ports, for IPv4 and IPv6, until :meth:`end`."""

    def __init__(self, namespace: str) -> None:
        super().__init__()
        self._namespace = namespace
        self._ended, self._ending = socket.socketpair()
        self._listeners = {self._socket(socket.SOCK_STREAM, port): banner for port, banner in BANNERS.items()}
        for listener in self._listeners:
            listener.listen(64)
        self._tftp = self._socket(socket.SOCK_DGRAM, TFTP)
        self._clients: list[socket.socket] = []

    def run(self) -> None:
        while self._ended not in (
            ready := select.select([self._ended, self._tftp, *self._listeners, *self._clients], [], [], None)[
                0
            ]
        ):
            for one in ready:
                with suppress(OSError):
                    self._serve(one)

    def end(self) -> None:
        """Stop, and close all sockets."""
        self._ending.close()
        self.join()
        for one in (self._ended, self._tftp, *self._listeners, *self._clients):
            one.close()

    def _serve(self, one: socket.socket) -> None:
        if one in self._listeners:
            client, _ = one.accept()
            self._clients.append(client)
            client.sendall(self._listeners[one])
        elif one.type == socket.SOCK_DGRAM:
            data, sender = one.recvfrom(2_048)
            if one is self._tftp:
                one = self._socket(socket.SOCK_DGRAM, 0)
                self._clients.append(one)
            one.sendto(data, sender)
        elif data := _received(one):
            one.sendall(data)
        else:
            self._clients.remove(one)
            one.close()

    def _socket(self, kind: int, port: int) -> socket.socket:
        made = socket_in(self._namespace, socket.AF_INET6, kind)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        return made


@contextmanager
def served(lab: Lab) -> Iterator[None]:
    """Serve all ports on the PBX's host while the block runs."""
    server = _Server(lab.network.pbx)
    server.start()
    try:
        yield
    finally:
        server.end()


@contextmanager
def client(lab: Lab, source: str, port: int) -> Iterator[socket.socket]:
    """Yield a connection from an address to a port; its server has answered."""
    with _bound(lab, source, socket.SOCK_STREAM) as made:
        made.connect((_host(source), port))
        while (banner := BANNERS[port]) and not banner.endswith(made.recv(100)):
            pass
        yield made


def echoes(connection: socket.socket) -> bool:
    """Whether what is sent now comes back."""
    with suppress(OSError):
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    return False


def opened(lab: Lab, sources: Sequence[str], ports: Sequence[int]) -> int:
    """Return how many connections open, of one from each source to each port, all at once."""
    with ExitStack() as stack:
        waiting = []
        for source, port in ((source, port) for source in sources for port in ports):
            one = stack.enter_context(_bound(lab, source, socket.SOCK_STREAM))
            one.setblocking(False)  # noqa: FBT003 - the name says it
            with suppress(BlockingIOError):
                one.connect((_host(source), port))
            waiting.append(one)
        count, until = len(waiting), time.monotonic() + PATIENCE
        while waiting and (left := until - time.monotonic()) > 0.0:
            for one in select.select([], waiting, [], left)[1]:
                waiting.remove(one)
                count -= one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        return count - len(waiting)


def transfers(lab: Lab, source: str) -> bool:
    """Whether a TFTP server answers a request, and then what is sent to the port of its answer."""
    with _bound(lab, source, socket.SOCK_DGRAM) as made, suppress(OSError):
        made.sendto(b"\0\1phone.cfg\0octet\0", (_host(source), TFTP))
        _, place = made.recvfrom(2_048)
        made.sendto(b"\0\4\0\1", place)
        return place[1] != TFTP and made.recv(100) == b"\0\4\0\1"
    return False


def _bound(lab: Lab, source: str, kind: int) -> socket.socket:
    family = socket.AF_INET if ip_address(source).version == 4 else socket.AF_INET6
    made = socket_in(lab.network.attacker, family, kind)
    made.settimeout(PATIENCE)
    made.bind((source, 0))
    return made


def _host(source: str) -> str:
    return PBX_IPV4 if ip_address(source).version == 4 else PBX_IPV6


def _received(one: socket.socket) -> bytes:
    try:
        return one.recv(2_048)
    except ConnectionError:
        return b""
