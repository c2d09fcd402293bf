"""The failed login of the proof, against a server that speaks SIP as Asterisk does."""

import os
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from ringfence.features.setup.proof import (
    ManagerTarget,
    SipListener,
    failed_login,
    failed_manager_login,
    targets_of,
)
from ringfence.values.event import SETUP_ACCOUNT

_CHALLENGE = (
    b"SIP/2.0 401 Unauthorized\r\n"
    b'WWW-Authenticate: Digest realm="asterisk",nonce="1795252347/c816",algorithm=MD5\r\n\r\n'
)


class SipServer:
    """A UDP server that answers each request with the next of ``answers``, and keeps the requests."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[tuple[bytes, str]] = []
        self._answers = answers
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def target(self) -> SipListener:
        """Its address."""
        return SipListener("127.0.0.1", self._socket.getsockname()[1], udp=True)

    def close(self) -> None:
        """Stop; the answers that are left are not sent."""
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        for answer in self._answers:
            data, sender = self._socket.recvfrom(65_535)
            self.requests.append((data, sender[0]))
            self._socket.sendto(answer, sender)


@pytest.fixture(name="server")
def _server() -> Iterator[SipServer]:
    server = SipServer(_CHALLENGE, b"SIP/2.0 401 Unauthorized\r\n\r\n")
    yield server
    server.close()


def test_a_wrong_digest_comes_from_a_loopback_address(server: SipServer) -> None:
    """The first request is challenged, and the second one answers the challenge wrongly."""
    assert failed_login([server.target]) == server.target
    server.close()
    (first, sender), (second, _) = server.requests

    assert re.fullmatch(r"127\.\d+\.\d+\.\d+", sender)
    assert first.startswith(b"REGISTER sip:127.0.0.1 SIP/2.0\r\n")
    assert b"Authorization" not in first
    assert f'username="{SETUP_ACCOUNT}",realm="asterisk",nonce="1795252347/c816"'.encode() in second
    calls = [re.findall(rb"\r\nCall-ID: (.*)\r\n", request) for request in (first, second)]
    assert calls[0] == calls[1]


def test_the_next_target_is_tried_if_one_does_not_answer(server: SipServer) -> None:
    """A closed port, and an answer that is not SIP, are left out."""
    other = SipServer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    targets = [SipListener("127.0.0.1", port, udp=True), other.target, server.target]

    assert failed_login(targets) == server.target
    other.close()


def test_without_an_answer_there_is_no_login() -> None:
    """Nothing listens."""
    assert failed_login([]) is None


def test_a_target_is_shown_with_its_transport() -> None:
    """The proof names the address."""
    assert str(SipListener("192.0.2.1", 5060, udp=False)) == "192.0.2.1:5060 by TCP"


@pytest.mark.kernel
def test_the_sockets_of_the_process_are_the_targets(netns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """UDP comes before TCP and 5060 before other ports; other programs, AMI and IPv6 do not count."""
    monkeypatch.setattr("ringfence.host.listening._NAME", _own_name())
    ports = [(socket.SOCK_STREAM, "0.0.0.0", 5060), (socket.SOCK_STREAM, "127.0.0.1", 5038)]
    ports += [(socket.SOCK_DGRAM, "127.0.0.2", 5160), (socket.SOCK_DGRAM, "0.0.0.0", 5060)]
    opened = []
    for kind, host, port in ports:
        one = socket.socket(socket.AF_INET, kind)
        opened.append(one)
        one.bind((host, port))
        if kind == socket.SOCK_STREAM:
            one.listen()
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.append(one)
    one.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)  # bind without having the address
    one.bind(("2001:db8::", 5060))
    try:
        found = targets_of(os.getpid(), 5038)
    finally:
        for one in opened:
            one.close()

    assert [str(target) for target in found] == [
        "127.0.0.1:5060 by UDP",
        "127.0.0.2:5160 by UDP",
        "127.0.0.1:5060 by TCP",
    ]


def _own_name() -> str:
    with open("/proc/self/comm", encoding="utf-8") as file:  # noqa: PTH123 - of the main thread
        return file.read().strip()


@pytest.mark.parametrize(
    ("answers", "refused"),
    [
        (
            (
                b"Asterisk Call Manager/11.0.0\r\n",
                b"Response: Error\r\nMessage: Authentication failed\r\n\r\n",
            ),
            True,
        ),
        ((b"SSH-2.0-OpenSSH\r\n",), False),
    ],
)
def test_a_wrong_user_is_tried_at_ami(answers: tuple[bytes, ...], refused: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Only a server that is AMI, and refuses the user, counts."""
    received = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.send(answers[0])
                for answer in answers[1:]:
                    received.append(connection.recv(65_535))
                    connection.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        target = ManagerTarget("127.0.0.1", listener.getsockname()[1])
        done = failed_manager_login(target)
        thread.join()

    assert done == (target if refused else None)
    assert [f"Username: {SETUP_ACCOUNT}\r\n".encode() in request for request in received] == [True] * refused


def test_without_ami_no_login_is_tried() -> None:
    """A closed port is no target."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert failed_manager_login(ManagerTarget("127.0.0.1", port)) is None
