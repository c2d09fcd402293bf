"""Pages that features serve by HTTP: their answers to a request."""

from collections.abc import Awaitable, Callable

from attrs import frozen


@frozen
class Answer:
    """An HTTP answer: the status line's text, the body and its media type.

    ``more`` are further header lines, each with its line end.
    """

    status: str
    body: bytes = b""
    kind: str = "text/plain"
    more: str = ""

    def encoded(self, *, body: bool = True) -> bytes:
        """Return the answer as bytes of HTTP/1.1; without the ``body`` for a HEAD.

        An answer 304 has no body, and so no length (RFC 9110).
        """
        described = f"Content-Type: {self.kind}\r\nContent-Length: {len(self.body)}\r\n"
        if self.status == NOT_MODIFIED:
            described = ""
        head = f"HTTP/1.1 {self.status}\r\n{described}{self.more}Connection: close\r\n\r\n".encode()
        return head + self.body if body else head


NOT_MODIFIED = "304 Not Modified"

Page = Callable[[bytes], Awaitable[Answer]]
"""A function that returns the answer to a GET or HEAD. Its argument is the request up to the empty line."""


def values_of(head: bytes, name: bytes) -> list[bytes]:
    """Return the value of each header line named ``name`` (in lower case) in ``head``, the request's head."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    return [value.strip() for found, _, value in lines if found.lower() == name]
