"""The page of a link: it admits the address that the link is opened from to the fence.

Nobody logs in to this page, so every request is hostile input. The daemon knows which links are valid, and
admits the address. This page passes on the token, and the address that the proxy names. Only a button does
so, because programs that look at links open them. The token stands in the fragment of the link (after #),
which browsers do not send: so no log of a proxy has it. A script of the page puts it into the form.
"""

import asyncio
from collections import deque
from http import HTTPStatus
from ipaddress import ip_address
from math import inf

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ringfence.clock import Clock
from ringfence.errors import ControlError, DaemonUnreachableError
from ringfence.features.web.daemon_client import DaemonClient
from ringfence.features.web.entrance import form_of, is_own
from ringfence.features.web.rendering import Renderer
from ringfence.values.network import Address, Network, parse_network, prefix_of, sender_of

MOST_TRIES = 10
TRIES_WITHIN = 60.0
"""The period in seconds in which a sender may press an admission link's button ``MOST_TRIES`` times."""
MOST_OF_PREFIX = 30
"""The maximum number of tries of one prefix (IPv4 /24, IPv6 /48) within ``TRIES_WITHIN`` seconds."""
MOST_SENDERS = 2_048
"""The maximum number of senders and prefixes whose tries are counted."""
MOST_SHARED = 100
"""The maximum number of tries of all senders beyond ``MOST_SENDERS``, within ``TRIES_WITHIN`` seconds."""
MOST_LOGGED = 10
"""The maximum number of refused tries that are logged within ``TRIES_WITHIN`` seconds."""
MOST_WAITING = 20
"""The maximum number of admissions that wait for the daemon, which gets one after the other."""
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
    """Counts how often the button of an admission link was pressed: by sender, and by prefix around it.

    A local user can name any address in the header, and a customer may own many /64 networks. So a sender is
    never forgotten within TRIES_WITHIN seconds. While the table is full, all further senders share one limit.
    """

    def __init__(self) -> None:
        self._tries: dict[Network, deque[float]] = {}
        self._shared: deque[float] = deque(maxlen=MOST_SHARED)

    def add(self, address: Address, now: float) -> bool:
        """Count a try of ``address`` at ``now`` (monotonic seconds); return whether it is permitted.

        A try is not permitted if the sender or its prefix has made too many. If the table is full, all
        further senders share one limit.
        """
        of_sender = self._tries_of(sender_of(address), MOST_TRIES, now)
        of_prefix = self._tries_of(prefix_of(address), MOST_OF_PREFIX, now)
        counted = [of_sender] if of_prefix is of_sender else [of_sender, of_prefix]
        if any(_is_reached(tries, now) for tries in counted):
            return False
        for tries in counted:
            tries.append(now)
        return True

    def _tries_of(self, network: Network, most: int, now: float) -> deque[float]:
        """Return the times (monotonic seconds) of the latest tries of a sender or prefix, at most ``most``.

        If the table is full at ``now``, return those of all senders without room together.
        """
        tries = self._tries.pop(network, None)
        if tries is None:
            if len(self._tries) >= MOST_SENDERS:
                oldest = next(iter(self._tries))
                times = self._tries[oldest]
                if times and now - times[-1] < TRIES_WITHIN:
                    return self._shared
                del self._tries[oldest]
            tries = deque(maxlen=most)
        self._tries[network] = tries
        return tries


def _is_reached(tries: deque[float], now: float) -> bool:
    """Whether as many tries as ``tries`` can hold were made within a minute before ``now``."""
    return len(tries) == tries.maxlen and now - tries[0] < TRIES_WITHIN


class Admission:
    """Handles the page of a link that admits an address.

    ``header`` is the header in which the proxy names its client, "" if it does not.
    ``url`` is the URL of the site as browsers use it.
    """

    def __init__(self, client: DaemonClient, renderer: Renderer, url: str, header: str, clock: Clock) -> None:
        self._client = client
        self._renderer = renderer
        self._url = url
        self._header = header
        self._clock = clock
        self._tries = Tries()
        self._logged: deque[float] = deque(maxlen=MOST_LOGGED)
        self._limited = -inf
        self._turn = asyncio.Semaphore()
        self._waiting = 0
        self._log = structlog.get_logger()

    async def form(self, request: Request) -> Response:
        """Return the page with the button, and the address that it would admit. No link is used."""
        return self._page(request, HTTPStatus.OK)

    async def admit(self, request: Request) -> Response:
        """Admit the address that the request comes from, if its link's token is valid.

        Return the page that shows until when, or why not (403, 429 or 503). Raise DaemonUnreachableError if
        the daemon does not answer.
        """
        form = await form_of(request)
        address = client_of(request, self._header)
        if form is None or not is_own(request, self._url) or address is None:
            return self._page(request, HTTPStatus.FORBIDDEN, problem="This form is not valid.")
        if not self._tries.add(address, self._clock.mono()):
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
            self._log_refusal(address, error)
            return self._page(request, HTTPStatus.FORBIDDEN, problem=str(error))
        self._log.info("web.admitted", client=str(address), until=until)
        return self._page(request, HTTPStatus.OK, until=until)

    def _log_refusal(self, address: Address, error: ControlError) -> None:
        """Log that a link did not admit ``address``, and why, at most MOST_LOGGED times a minute."""
        now = self._clock.mono()
        if _is_reached(self._logged, now):
            return
        self._logged.append(now)
        self._log.warning("web.admit_refused", client=str(address), error=str(error))
        if _is_reached(self._logged, now) and now - self._limited >= TRIES_WITHIN:
            self._limited = now
            self._log.warning("web.admit_limited", what="log lines about refusals")

    async def _redeem(self, token: str, address: Address) -> str:
        self._waiting += 1
        try:
            async with self._turn:
                return str(await self._client.command("fence_redeem", token=token, address=str(address)))
        finally:
            self._waiting -= 1

    def _page(self, request: Request, status: HTTPStatus, problem: str = "", until: str = "") -> Response:
        address = client_of(request, self._header)
        return self._renderer.page(
            request, "admit.html", status, problem=problem, until=until, address=address, most=_MOST_TOKEN
        )
