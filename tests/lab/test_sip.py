"""The counts of the SIP client, with a PBX of the test: no Asterisk, no namespace."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.support.sip import MOST_GUESSES, Result, expand, options_of, plan_of, run
from tests.support.sip_wire import TcpWire, connect

TRYING = b"SIP/2.0 100 Trying"
REFUSED = b"SIP/2.0 403 Forbidden"
CHALLENGED = b'SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm="lab",nonce="n"'


def answer(request: bytes, head: bytes) -> bytes:
    """Return an answer with this head to a request."""
    via = request.split(b"\r\n")[1]
    return head + b"\r\n" + via + b"\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def pbx(react: Callable[[bytes], Iterator[bytes]]) -> Iterator[str]:
    """Answer each datagram with ``react`` until the context ends; yield the PBX's address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(10)

        def serve() -> None:
            while True:
                request, sender = bound.recvfrom(65535)
                if not request:
                    return
                for message in react(request):
                    bound.sendto(message, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{bound.getsockname()[1]}"
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", bound.getsockname())
            thread.join()


def client(target: str, *arguments: str) -> Result:
    """Run the client in this process."""
    return run(plan_of(options_of(*arguments, "--target", target)), ["127.0.0.1"], 1)


def unguarded(request: bytes) -> Iterator[bytes]:
    """Answer like an unguarded Asterisk with chan_sip, which sends 100 Trying first."""
    yield answer(request, TRYING)
    yield answer(request, REFUSED if b"Authorization:" in request else CHALLENGED)


@pytest.mark.parametrize(
    "arguments",
    [("guess",), ("guess", "--reuse-nonce"), ("pipeline",), ("pipeline", "--window", "5")],
)
def test_final_answers_are_counted_once(arguments: tuple[str, ...]) -> None:
    """Provisional answers do not count, and each guess is answered once."""
    with pbx(unguarded) as target:
        result = client(target, *arguments, "--number", "20")

    assert (result.sent, result.answered, result.statuses) == (20, 20, {"403": 20})


@pytest.mark.parametrize("mode", ["probe", "flood"])
def test_requests_without_a_digest_are_counted(mode: str) -> None:
    """If no password is guessed, each request counts, and so does each answer."""
    with pbx(unguarded) as target:
        result = client(target, mode, "--number", "20")

    assert (result.sent, result.answered, result.statuses) == (20, 20, {"401": 20})
    assert result.challenges_sent == 0


def test_an_answer_sent_twice_counts_once() -> None:
    """A retransmitted answer is the same answer."""

    def twice(request: bytes) -> Iterator[bytes]:
        yield from unguarded(request)
        yield from unguarded(request)

    with pbx(twice) as target:
        assert client(target, "guess", "--number", "10").answered == 10
        assert client(target, "pipeline", "--number", "10").answered == 10


def test_an_answer_that_comes_late_is_counted() -> None:
    """An answer after the client's timeout counts, because the guesser has it."""

    def slow(request: bytes) -> Iterator[bytes]:
        time.sleep(1.2)
        yield from unguarded(request)

    with pbx(slow) as target:
        result = client(target, "probe", "--number", "5", "--timeout", "1.0", "--silences", "1")

    assert (result.sent, result.answered, result.stopped) == (1, 1, "silence")


def test_the_answer_to_another_request_is_not_counted() -> None:
    """A guess is answered only by the answer to the guess itself."""

    def confused(request: bytes) -> Iterator[bytes]:
        yield answer(request, REFUSED).replace(b"z9hG4bK", b"z9hG4bKx")

    with pbx(confused) as target:
        result = client(target, "probe", "--timeout", "0.1")

    assert (result.sent, result.answered) == (1, 0)


def test_tcp_is_framed_by_content_length() -> None:
    """Messages are complete, however the stream is cut; a closed connection returns none."""
    messages = [answer(b"\r\nVia: x", head) for head in (TRYING, REFUSED)]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        wire = TcpWire(listening.getsockname(), "127.0.0.1", 1.0)
        accepted, _ = listening.accept()
        with accepted:
            stream = b"\r\n\r\n" + b"".join(messages)
            for start in range(0, len(stream), 7):
                accepted.sendall(stream[start : start + 7])
        received = [wire.receive(1.0) for _ in range(3)]
        wire.close()

    assert received == [*messages, None]


def test_nothing_is_sent_out_of_the_laboratory() -> None:
    """A destination outside the laboratory's networks is refused before a socket is made."""
    with pytest.raises(ValueError, match="outside the laboratory"):
        connect("UDP", ("192.0.2.1", 5060), "0.0.0.0", 0.1)


def test_a_plan_without_end_is_refused() -> None:
    """Number and time have a maximum."""
    for arguments in (("--number", str(MOST_GUESSES + 1)), ("--seconds", "1e9")):
        with pytest.raises(ValueError, match="at most"):
            plan_of(options_of("guess", *arguments))


def test_sources_are_expanded() -> None:
    """Lists and ranges, IPv4 and IPv6, both ends included."""
    assert list(expand("198.18.1.9,198.19.0.254-198.19.1.1")) == [
        "198.18.1.9",
        *("198.19.0.254", "198.19.0.255", "198.19.1.0", "198.19.1.1"),
    ]
    assert list(expand("fd00:19::9-fd00:19::a")) == ["fd00:19::9", "fd00:19::a"]
