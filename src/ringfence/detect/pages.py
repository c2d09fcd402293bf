"""The WebSockets that web pages of other sites have opened in the browsers of strangers.

A page can make the browser of each reader guess. So its guesses show no attacker at the browser's address.
Browsers name the page in the request for the WebSocket, and the page cannot change that.

Bound: ``MOST`` connections; the oldest are forgotten first, and their guesses then count as the sender's own.
"""

from collections import OrderedDict
from collections.abc import Iterable

from ringfence.detect.sessions import AddressKey, address_key, remember
from ringfence.values.attempt import Attempt
from ringfence.values.event import Transport
from ringfence.values.packet import CopiedRequest

MOST = 4_096


class Pages:
    """Remembers the WebSockets that web pages of other sites opened, by the browser's address and port."""

    def __init__(self) -> None:
        self.opened: OrderedDict[tuple[AddressKey, int], None] = OrderedDict()

    def take(self, requests: Iterable[CopiedRequest]) -> list[CopiedRequest]:
        """Record the WebSockets that pages of other sites open by ``requests``; return all other requests."""
        others = []
        for request in requests:
            if request.page:
                remember(self.opened, (address_key(request.address), request.port), None, MOST)
            else:
                others.append(request)
        return others

    def sent(self, attempt: Attempt, port: int) -> bool:
        """Whether an attempt came by a WebSocket that a web page of another site opened in a browser.

        ``port`` is that of the sender, the browser.
        """
        by_stream = attempt.transport is not Transport.UDP
        return by_stream and (address_key(attempt.address), port) in self.opened
