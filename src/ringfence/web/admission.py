"""The page of a link for one use: it admits the address that it is opened from to the fence.

Nobody logs in to this page, so every request is hostile input. The daemon knows which links are valid, and
admits. This page passes on the token, and the address that the proxy names. Only a button does so, because
programs that look at links open them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ringfence.errors import ControlError, DaemonUnreachableError
from ringfence.model import Address, Network, parse_network
from ringfence.networks import sender_of
from ringfence.web.daemon_client import DaemonClient
from ringfence.web.entrance import form_of, is_own
from ringfence.web.rendering import Renderer

MOST_TRIES = 10
TRIES_WITHIN = 60.0
"""A sender may press the button ``MOST_TRIES`` times within this time (seconds)."""
MOST_SENDERS = 1_024
"""The maximum number of senders whose tries are counted. The one that tried first is forgotten."""
MOST_WAITING = 20
"""The maximum number of requests that wait for the daemon. It gets one after the other."""
_MOST_TOKEN = 64  # characters; a token has 43


def client_of(request: Request, header: str) -> Address | None:
    """Return the address that a request comes from; None if the page cannot know it.

    The proxy names it in ``header``. "" means that no proxy is known to do that. A header that appears twice,
    or names more than one address, may come from the client itself, so it counts for nothing.
    """
    values = request.headers.getlist(header) if header else []
    if len(values) != 1:
        return None
    try:
        network = parse_network(str(ip_address(values[0].strip())))
    except ValueError:
        return None
    address = network.network_address
    local = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
    return None if local else address


class Tries:
    """Counts how often each sender pressed the button."""

    def __init__(self) -> None:
        self._tries: dict[Network, deque[float]] = {}

    def add(self, sender: Network, now: float) -> bool:
        """Count a try at ``now`` (monotonic seconds); return False if the sender made too many."""
        tries = self._tries.get(sender)
        if tries is None:
            while len(self._tries) >= MOST_SENDERS:
                del self._tries[next(iter(self._tries))]
            tries = self._tries[sender] = deque(maxlen=MOST_TRIES)
        if len(tries) == MOST_TRIES and now - tries[0] < TRIES_WITHIN:
            return False
        tries.append(now)
        return True


class Admission:
    """Handles the page of a link. ``header`` is where the proxy names its client; "" if nowhere.

    ``url`` is the URL of the site as browsers use it. ``mono`` returns monotonic seconds.
    """

    def __init__(
        self, client: DaemonClient, renderer: Renderer, url: str, header: str, mono: Callable[[], float]
    ) -> None:
        self._client = client
        self._renderer = renderer
        self._url = url
        self._header = header
        self._mono = mono
        self._tries = Tries()
        self._turn = asyncio.Semaphore()
        self._waiting = 0
        self._log = structlog.get_logger()

    async def form(self, request: Request) -> Response:
        """Show the button, and the address that it would admit. This uses nothing up."""
        token = request.query_params.get("token", "")[:_MOST_TOKEN]
        return self._page(request, HTTPStatus.OK, token=token)

    async def admit(self, request: Request) -> Response:
        """Admit the address that the request comes from, if the token is valid; show until when."""
        form = await form_of(request)
        address = client_of(request, self._header)
        if form is None or not is_own(request, self._url) or address is None:
            return self._page(request, HTTPStatus.FORBIDDEN, problem="This form is not valid.")
        if not self._tries.add(sender_of(address), self._mono()):
            return self._page(request, HTTPStatus.TOO_MANY_REQUESTS, problem="Too many tries. Wait a minute.")
        if self._waiting >= MOST_WAITING:
            return self._page(request, HTTPStatus.SERVICE_UNAVAILABLE, problem="Too busy. Wait a minute.")
        token = form.get("token", "")
        if not 0 < len(token) <= _MOST_TOKEN or not token.isascii():
            return self._page(request, HTTPStatus.FORBIDDEN, problem="This link is not valid.")
        try:
            until = await self._redeem(token, address)
        except DaemonUnreachableError:
            raise
        except ControlError as error:
            self._log.warning("web.admit_refused", client=str(address), error=str(error))
            return self._page(request, HTTPStatus.FORBIDDEN, problem=str(error))
        self._log.info("web.admitted", client=str(address), until=until)
        return self._page(request, HTTPStatus.OK, until=until)

    async def _redeem(self, token: str, address: Address) -> str:
        self._waiting += 1
        try:
            async with self._turn:
                return str(await self._client.command("fence_redeem", token=token, address=str(address)))
        finally:
            self._waiting -= 1

    def _page(
        self, request: Request, status: HTTPStatus, token: str = "", problem: str = "", until: str = ""
    ) -> Response:
        address = client_of(request, self._header)
        return self._renderer.page(
            request, "admit.html", status, token=token, problem=problem, until=until, address=address
        )
