"""HTTP requests with limits: a time limit for the whole request, and a size limit for its answer.

The timeout of a socket does not bound a request: a server that sends a byte now and then never exceeds it.
"""

import errno
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import ringfence
from ringfence.values.network import Address
from ringfence.values.text import printable

AGENT = f"ringfence/{ringfence.__version__}"
"""The User-Agent of requests: name/version."""
DATE = "%a, %d %b %Y %H:%M:%S GMT"
"""The usual format of a date in an HTTP header, for ``strptime`` (RFC 9110, 5.6.7)."""
_PART = 65_536
_Found = tuple[Any, ...]  # one address, as getaddrinfo returns it
_Answers = SimpleQueue[list[_Found] | OSError | UnicodeError]
_MOST_ADDRESSES = 4  # of a server


class Deadline:
    """A context manager that limits one HTTP request to ``seconds`` from the start of its block.

    When the time is over, or after :meth:`end`, the connection is shut. An error of the block then becomes a
    TimeoutError.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = 0.0
        self._over = threading.Event()
        self._answers: _Answers | None = None
        self._connection: socket.socket | None = None
        self._timer = threading.Timer(seconds, self.end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._ends = time.monotonic() + self._seconds
        _start(self._timer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        del self._timer  # it refers to this object: no search for garbage is needed to free both
        self._connection = None
        if isinstance(error, Exception):
            self.check()

    def check(self) -> None:
        """Raise TimeoutError if the time of the request is over."""
        if self._over.is_set():
            raise TimeoutError from None

    def resolve(self, host: str, port: int) -> list[_Found]:
        """Look up the addresses of a TCP server, as ``getaddrinfo`` returns them.

        Raise TimeoutError when the time of the request is over, OSError if the look-up fails.

        The resolver has no time limit of its own: a thread asks it, and is abandoned when the time is over.
        """
        answers: _Answers = SimpleQueue()
        self._answers = answers
        self.check()  # an end() before this line has put nothing into the queue

        def ask() -> None:
            try:
                answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        _start(threading.Thread(target=ask, name="resolver", daemon=True))
        try:
            found = answers.get(timeout=max(0.0, self._ends - time.monotonic()))
        except Empty:
            raise TimeoutError from None
        if isinstance(found, OSError | UnicodeError):
            raise found
        return found

    def watch(self, connection: socket.socket) -> None:
        """Shut ``connection`` when the time of the request is over; raise TimeoutError if it is over now.

        The socket is kept here: an HTTPConnection forgets its socket at an answer with `Connection: close`.
        """
        self._connection = connection
        self.check()

    def end(self) -> None:
        """End the request now: shut its connection, and open no other. Any thread may call this.

        The request does not wait for the resolver either.
        """
        self._over.set()
        answers, connection = self._answers, self._connection
        if answers is not None:
            answers.put(TimeoutError())
        if connection is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown: that one removes the TLS object, which the other thread uses.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _start(thread: threading.Thread) -> None:
    """Start a thread that one request needs. Raise OSError if the kernel refuses it."""
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        raise OSError(errno.EAGAIN, "cannot start a thread: resource temporarily unavailable") from None


def open_connection(
    host: str,
    port: int,
    seconds: float,
    deadline: Deadline,
    context: ssl.SSLContext | None = None,
    allowed: Callable[[Address], bool] = lambda _: True,
) -> socket.socket | None:
    """Connect to the first address of ``host`` that ``allowed`` accepts and that answers within ``seconds``.

    With ``context``, the connection uses TLS. ``deadline`` limits everything together: look-up, all tries,
    and the TLS handshake. Return None if no address is allowed. Raise OSError if no connection succeeds.
    """
    found = deadline.resolve(host, port)
    usable = [one for one in found if allowed(ip_address(str(one[4][0]).partition("%")[0]))]
    failed: OSError | None = None
    for family, kind, protocol, _, address in usable[:_MOST_ADDRESSES]:
        deadline.check()
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(seconds)
            deadline.watch(connection)
            connection.connect(address)
            if context is None:
                return connection
            # The deadline needs the socket of TLS before its handshake, which a server may draw out.
            connection = context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
            deadline.watch(connection)
            connection.do_handshake()
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    if failed is not None:
        raise failed
    return None


def date_from(text: str, *forms: str) -> float | None:
    """Parse a date in UTC in one of ``forms`` (of ``strptime``); return epoch seconds, None if none fits."""
    for form in forms:
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    return None


def read_body(response: http.client.HTTPResponse, most: int) -> tuple[bytes, bool]:
    """Read the body of an HTTP answer; return it, and whether it has the announced length.

    Raise ValueError if the body has more than ``most`` bytes.
    """
    length, body, part = response.length, bytearray(), bytearray(_PART)
    # Not read(): if a chunk has a negative length, read() returns all that the server sends until it stops.
    while size := response.readinto(part):
        body += memoryview(part)[:size]
        if len(body) > most:
            raise ValueError(f"the answer has more than {most} bytes")
    return bytes(body), length is None or len(body) >= length


def text_of(error: Exception) -> str:
    """Return the reason why an HTTP request failed with ``error``, as a short text for people."""
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended too early"
    return printable(str(error))[:200] or type(error).__name__
