"""The protocols of this host's sockets: each one is asked until it has answered."""

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from tests.support.certificate import certificate_in

from ringfence.host import speech
from ringfence.host.speech import ListeningSocket, Speech, Speeches
from ringfence.values.event import Transport

Server = Callable[[socket.socket], None]


def speaks(answer: bytes) -> Server:
    """Return a server that answers a SIP request so."""

    def serve(connection: socket.socket) -> None:
        if connection.recv(4_096).startswith(b"BYE "):
            connection.sendall(answer)

    return serve


def announces(banner: bytes) -> Server:
    """Return a server that speaks first."""
    return lambda connection: connection.sendall(banner)


def waits(connection: socket.socket) -> None:
    """Read everything, and send nothing."""
    while connection.recv(4_096):
        pass


def sealed(folder: Path, inner: Server, *, demanding: bool = False, newest: bool = True) -> Server:
    """Return the server ``inner`` behind TLS; ``demanding``: clients need a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = certificate_in(folder)
    context.load_cert_chain(file)
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if demanding:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(file)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inside:
            inner(inside)

    return serve


@contextmanager
def listening(server: Server, host: str = "127.0.0.1") -> Iterator[ListeningSocket]:
    """Yield a TCP socket whose connections ``server`` gets, one after the other."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as door:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    with connection, suppress(OSError):
                        server(connection)

        thread = Thread(target=run)
        thread.start()
        try:
            yield ListeningSocket(ip_address(host), door.getsockname()[1], Transport.TCP, 1)
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for servers that send nothing."""
    monkeypatch.setattr(speech, "ANSWER_SECONDS", 0.5)


SIP, HTTP, AMI = (
    b"SIP/2.0 481 Gone\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\n\r\n",
    b"Asterisk Call Manager/5\r\n",
)
CLEAR = {
    "SIP": (speaks(SIP), Speech.SIP),
    "HTTP": (speaks(HTTP), Speech.OTHER),
    "AMI": (announces(AMI), Speech.OTHER),
    "another protocol": (announces(b"220 mail\r\n"), None),
}


@pytest.mark.parametrize("clear_first", [True, False], ids=["in clear first", "by TLS first"])
@pytest.mark.parametrize("kind", CLEAR)
def test_a_server_in_clear_is_recognized_by_its_answer(kind: str, *, clear_first: bool) -> None:
    """SIP answers a BYE, HTTP as well, and the manager interface speaks first; others are unknown."""
    server, expected = CLEAR[kind]
    with listening(server) as one:
        assert Speeches().look([one], [one.port] if clear_first else []).get(one) is expected


@pytest.mark.parametrize("clear_first", [True, False], ids=["in clear first", "by TLS first"])
@pytest.mark.parametrize("kind", CLEAR)
def test_a_server_behind_tls_is_recognized_too(tmp_path: Path, kind: str, *, clear_first: bool) -> None:
    """Behind TLS the same answers show the protocol."""
    server, expected = CLEAR[kind]
    if expected is Speech.SIP:
        expected = Speech.SIPS
    with listening(sealed(tmp_path, server)) as one:
        assert Speeches().look([one], [one.port] if clear_first else []).get(one) is expected


@pytest.mark.parametrize("newest", [True, False], ids=["TLS 1.3", "TLS 1.2"])
def test_a_server_that_demands_a_certificate_speaks_sip(tmp_path: Path, *, newest: bool) -> None:
    """Web servers of Asterisk demand no certificate of clients, but a TLS transport may."""
    with listening(sealed(tmp_path, waits, demanding=True, newest=newest)) as one:
        assert Speeches().look([one], []) == {one: Speech.SIPS}


def test_a_wildcard_address_is_asked_over_loopback() -> None:
    """A socket at all addresses is asked at the loopback address of its IP version."""
    for host in ("0.0.0.0", "::"):
        with listening(speaks(SIP), host) as one:
            assert Speeches().look([one], [one.port]) == {one: Speech.SIP}


def test_each_socket_is_asked_once() -> None:
    """A known socket is not asked again; one that took its place is, and counts as it until it answers."""
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(4_096))
        connection.sendall({1: SIP, 2: b"", 3: b""}.get(len(asked), HTTP))

    speeches = Speeches()
    with listening(serve) as one:
        for _ in range(3):
            assert speeches.look([one], [one.port]) == {one: Speech.SIP}
        assert len(asked) == 1
        other = one._replace(inode=2)
        assert speeches.look([other], [one.port]) == {other: Speech.SIP}  # asked in clear and by TLS
        assert len(asked) == 3
        assert speeches.look([other], [one.port]) == {other: Speech.OTHER}


def test_a_silent_socket_is_asked_again_and_again_later() -> None:
    """A socket without an answer is unknown; the pauses between two questions grow."""
    asked: list[bytes] = []
    numbers = []
    speeches = Speeches()
    with listening(lambda connection: asked.append(connection.recv(4_096))) as one:
        for _ in range(8):
            assert speeches.look([one], [one.port]) == {}
            numbers.append(len(asked))
    assert numbers == [2, 4, 4, 6, 6, 6, 6, 8]  # each time in clear and by TLS


def test_datagrams_are_asked_together() -> None:
    """Of UDP sockets those are SIP that answer; the empty lines before the request are no part of it."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sip,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as silent,
    ):
        sip.bind(("127.0.0.1", 0))
        silent.bind(("::1", 0))
        one = ListeningSocket(ip_address("127.0.0.1"), sip.getsockname()[1], Transport.UDP, 1)
        other = ListeningSocket(ip_address("::1"), silent.getsockname()[1], Transport.UDP, 2)

        def serve() -> None:
            request, sender = sip.recvfrom(4_096)
            assert request.startswith(b"\r\n\r\nBYE sip:")
            sip.sendto(SIP, sender)

        thread = Thread(target=serve)
        thread.start()
        speeches = Speeches()
        assert speeches.look([one, other], []) == {one: Speech.SIP}
        thread.join()
        assert silent.recv(4_096)[0] >> 6 == 0  # the version of a STUN packet, and not of RTP
        assert speeches.look([], []) == {}


def test_a_refused_socket_leaves_a_datagram_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is short of memory or descriptors makes the answer unknown, and nothing fails."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.ENOBUFS, "no buffer space")

    monkeypatch.setattr(socket, "socket", refuse)
    one = ListeningSocket(ip_address("127.0.0.1"), 5060, Transport.UDP, 1)

    assert Speeches().look([one], []) == {}


def test_sockets_that_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets of calls come and go, and so do ports of TCP if there are too many."""
    monkeypatch.setattr(speech, "MOST_KNOWN", 2)
    monkeypatch.setattr(speech, "_ask_stream", lambda *_, **__: Speech.SIP)
    monkeypatch.setattr(speech, "_ask_datagrams", lambda these: [(one, None) for one in these])
    many = [
        ListeningSocket(ip_address("127.0.0.1"), 5060 + number, kind, number)
        for number in range(2)
        for kind in (Transport.UDP, Transport.TCP)
    ]
    speeches = Speeches()
    speeches.look(many, [])
    assert len(speeches._heard) == 4
    speeches.look(many[:1], [])
    assert len(speeches._heard) == 1
