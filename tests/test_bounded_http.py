"""Answers by HTTP from a hostile server: how much of them is read."""

import gc
import http.client
import io
import threading
import weakref
from typing import Any

import pytest

from ringfence.bounded_http import Deadline, read_body

MOST = 1_000
HEAD = b"HTTP/1.1 200 OK\r\n"


class Endless(io.RawIOBase):
    """What a server sends: a text, and then one byte without an end. ``taken`` bytes were read."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.taken = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any buffer
        """Fill the buffer. Fail if far more was read than an answer may have."""
        wanted = self._text[: len(buffer)].ljust(len(buffer), b"a")
        self._text = self._text[len(buffer) :]
        buffer[:] = wanted
        self.taken += len(buffer)
        assert self.taken < 1 << 20
        return len(buffer)

    def makefile(self, _: str) -> io.BufferedReader:
        """Return a reader of it, as a socket does."""
        return io.BufferedReader(self)


def answer_of(text: bytes) -> http.client.HTTPResponse:
    """Return the answer of a server that sends this text, and then more without an end."""
    server: Any = Endless(text)
    response = http.client.HTTPResponse(server, method="GET")
    response.begin()
    return response


@pytest.mark.parametrize(
    "text",
    [
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"\r\n",
    ],
)
def test_an_answer_without_an_end_is_too_long(text: bytes) -> None:
    """Whatever length a server announces, not much more is read than an answer may have."""
    with pytest.raises(ValueError, match="the answer has more than 1000 bytes"):
        read_body(answer_of(HEAD + text), MOST)


@pytest.mark.parametrize("length", [b"-1", b"-2", b"-ffff", b"3\r\nabc\r\n-1"])
def test_a_chunk_of_negative_length_is_an_error(length: bytes) -> None:
    """Not much more is read than a chunk may have, although the server does not stop."""
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    with pytest.raises((ValueError, http.client.HTTPException)):
        read_body(answer_of(head + length + b"\r\n"), MOST)


def test_a_whole_answer_is_read() -> None:
    """The body is read up to its announced length, or to its last chunk."""
    assert read_body(answer_of(HEAD + b"Content-Length: 3\r\n\r\nabc"), MOST) == (b"abc", True)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    assert read_body(answer_of(HEAD + chunked), MOST) == (b"abc", True)
    assert read_body(answer_of(HEAD + b"Content-Length: 1000\r\n\r\n"), MOST) == (b"a" * 1_000, True)


def test_a_request_leaves_nothing_to_search_for() -> None:
    """The daemon rarely searches for garbage, and a request to an API comes with each ban."""
    gc.disable()
    try:
        with Deadline(60.0) as deadline:
            known = weakref.ref(deadline)
        del deadline
        for timer in [one for one in threading.enumerate() if isinstance(one, threading.Timer)]:
            timer.join(60.0)
            del timer
        assert known() is None
    finally:
        gc.enable()
