"""Requests by HTTP of which nothing is endless: the whole request has an end in time, and its answer in size.

The timeout of a socket does not bound a request: a server that sends a byte now and then never meets it.
"""

import http.client
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import ringfence
from ringfence.model import printable

AGENT = f"ringfence/{ringfence.__version__}"
"""The User-Agent of requests. CrowdSec demands exactly this form: name/version."""
_PART = 65_536


class Deadline:
    """The end of one request, ``seconds`` after the block begins.

    At the end, the connection is shut, and the block raises TimeoutError whatever it raised.
    """

    def __init__(self, seconds: float) -> None:
        self._over = threading.Event()
        self._connection: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._connection = None
        if isinstance(error, Exception):
            self.check()

    def check(self) -> None:
        """Raise TimeoutError if the time is over."""
        if self._over.is_set():
            raise TimeoutError from None

    def watch(self, connection: socket.socket) -> None:
        """Shut ``connection`` at the end; raise TimeoutError if it opened too late.

        An answer with `Connection: close` takes the socket from its HTTPConnection, so that one cannot tell.
        """
        self._connection = connection
        self.check()

    def shut(self) -> None:
        """Shut the connection now, if it is open. May be called in another thread."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown: that one removes the TLS object, which the other thread uses.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _end(self) -> None:
        self._over.set()
        self.shut()


def read_body(response: http.client.HTTPResponse, most: int) -> tuple[bytes, bool]:
    """Return the body of an answer, and whether it is complete.

    Raise ValueError if it has more than ``most`` bytes.
    """
    length, body = response.length, bytearray()
    while part := response.read(_PART):
        body += part
        if len(body) > most:
            raise ValueError(f"the answer has more than {most} bytes")
    return bytes(body), length is None or len(body) >= length


def text_of(error: Exception) -> str:
    """Return why a request failed, for people."""
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended too early"
    return printable(str(error))[:200] or type(error).__name__
