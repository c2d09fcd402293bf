"""The HTTP connections of the live page, with a limit of their number and of the time for a request.

uvicorn itself accepts any number of connections, and waits without a time limit for the requests of each. So
any process of this host could use up the file descriptors of the page, or occupy all connections that uvicorn
serves at a time.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MOST_CONNECTIONS = 256
"""The maximum number of connections at the same time. A browser opens at most six."""
BACKLOG = 100
"""The maximum number of connections that asyncio accepts before it handles other events.

If there are too many connections, some are aborted, but their file descriptors are closed only later. A small
number here limits how many descriptors are open until then.
"""
REQUEST_TIME = 10.0
"""Seconds that a client has to send a whole request, or to continue reading an answer.

After that, its connection is aborted.
"""


class LimitedConnection(H11Protocol):
    """A connection that is aborted if its client is too slow, or if there are too many connections.

    A connection waits for its client until the request is complete, and while the client does not read the
    answer. If there are more than MOST_CONNECTIONS, the one that has waited longest for its client is
    aborted. So new clients are served, however many connections others keep open.

    ``waits_since`` is the time of the event loop when the connection began to wait for its client, None if it
    does not wait. ``is_aborted``: the page has aborted the connection.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of uvicorn
        super().__init__(*arguments, **options)
        self.waits_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_aborted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request. If there are too many connections, abort one."""
        super().connection_made(transport)
        self._update()
        others = (one for one in self.connections if isinstance(one, LimitedConnection))
        counted = [one for one in others if not one.is_aborted]
        if len(counted) > MOST_CONNECTIONS:
            waiting = [one for one in counted if one.waits_since is not None]
            min(waiting, key=lambda one: one.waits_since or 0.0).abort()

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Begin to wait for the client, which has to read the answer."""
        super().pause_writing()
        self._update()

    def resume_writing(self) -> None:
        """Continue the answer, because the client has read a part of it."""
        super().resume_writing()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        self.is_aborted = True
        self._stop_timer()
        self.transport.abort()

    def _update(self) -> None:
        """Start or stop the timer when the page begins or ends to wait for the client."""
        cycle: RequestResponseCycle | None = self.cycle
        waits = self.flow.write_paused or cycle is None or cycle.response_complete or cycle.more_body
        if not waits:
            self._stop_timer()
        elif self._timer is None and not self.is_aborted:
            self.waits_since = self.loop.time()
            self._timer = self.loop.call_later(REQUEST_TIME, self.abort)

    def _stop_timer(self) -> None:
        self.waits_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
