"""The requests of the laboratory's phones, with a PBX of the test: no Asterisk, no namespace."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.phones import Phone, reply

CHALLENGE = b'WWW-Authenticate: Digest realm="lab",nonce="%s",qop="auth"%s'
OPTIONS = (
    b"OPTIONS sip:phone1@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP pbx;branch=z9\r\nf: <sip:pbx>;tag=1\r\n"
    b"To: <sip:phone1>\r\nCall-ID: one\r\nCSeq: 7 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


def answer(request: bytes, status: bytes, *headers: bytes) -> bytes:
    """Return an answer to a request."""
    kept = [line for line in request.split(b"\r\n") if line.split(b":")[0] in {b"Via", b"Call-ID", b"CSeq"}]
    return b"\r\n".join([b"SIP/2.0 " + status, *kept, *headers, b"Content-Length: 0", b"", b""])


@contextmanager
def phone(react: Callable[[bytes], Iterator[bytes]]) -> Iterator[tuple[Phone, list[bytes]]]:
    """Yield a phone, and the requests that its PBX has received; ``react`` returns the PBX's answers."""
    received: list[bytes] = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pbx,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk,
    ):
        for end in (pbx, desk):
            end.bind(("127.0.0.1", 0))
        pbx.settimeout(20)

        def serve() -> None:
            while (request := pbx.recv(65_535)) != b"stop":
                received.append(request)
                for message in react(request):
                    pbx.sendto(message, desk.getsockname())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Phone("phone1", desk, pbx.getsockname()), received
        finally:
            desk.sendto(b"stop", pbx.getsockname())
            thread.join()


def test_a_nonce_is_used_again_until_it_is_stale() -> None:
    """One challenge is used for several registrations, each use is counted, and a stale one is replaced."""
    nonces = iter((b"first", b"second"))
    stale = threading.Event()

    def pbx(request: bytes) -> Iterator[bytes]:
        if b"Authorization" not in request or (stale.is_set() and b'nonce="first"' in request):
            staleness = b",stale=true" if stale.is_set() else b""
            yield answer(request, b"401 Unauthorized", CHALLENGE % (next(nonces), staleness))
        else:
            yield answer(request, b"200 OK")

    with phone(pbx) as (one, received):
        statuses = [one.register(), one.register()]
        stale.set()
        statuses.append(one.register())

    counts = [request.split(b"nc=")[1][:8] for request in received if b"nc=" in request]
    assert (statuses, counts) == ([200] * 3, [b"00000001", b"00000002", b"00000003", b"00000001"])
    assert len({request.split(b"Call-ID: ")[1].split(b"\r\n")[0] for request in received}) == 1
    assert [int(request.split(b"CSeq: ")[1].split()[0]) for request in received] == [1, 2, 3, 4, 5]


def test_a_wrong_password_is_tried_once() -> None:
    """A phone that is refused sends no further guess."""

    def pbx(request: bytes) -> Iterator[bytes]:
        yield answer(request, b"401 Unauthorized", CHALLENGE % (b"n", b""))

    with phone(pbx) as (one, received):
        assert one.register("wrong") == 401

    assert [b"Authorization" in request for request in received] == [False, True]


def test_a_request_without_an_answer_is_sent_again() -> None:
    """A lost request is repeated unchanged."""
    requests: list[bytes] = []

    def pbx(request: bytes) -> Iterator[bytes]:
        requests.append(request)
        if len(requests) > 1:
            yield answer(request, b"200 OK")

    with phone(pbx) as (one, received):
        assert one.register() == 200

    assert received[0] == received[1]


def test_a_request_of_the_pbx_is_answered() -> None:
    """An OPTIONS is answered by 200 with its own headers, in long or short form; an ACK is not answered."""
    ours = reply(OPTIONS) or b""

    assert ours.startswith(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP pbx;branch=z9\r\nFrom: <sip:pbx>;tag=1\r\n")
    assert b"\r\nCSeq: 7 OPTIONS\r\n" in ours
    assert reply(OPTIONS.replace(b"OPTIONS sip", b"ACK sip")) is None
