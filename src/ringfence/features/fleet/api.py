"""The local API over HTTP: sends one request at a time, in a thread, with limits of time and size.

The credentials are read from their files when they are needed, so that a change needs no restart. Errors name
neither a credential nor the text of an answer.
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import quote, urlsplit

from ringfence.bounded_http import AGENT, DATE, Deadline, date_from, open_connection, read_body, text_of
from ringfence.clock import Clock
from ringfence.features.fleet.channel import FleetError
from ringfence.features.fleet.decisions import key_of
from ringfence.features.fleet.lapi import DecisionPage, parse_decisions, parse_login, parse_page
from ringfence.features.fleet.messages import alert, login_body
from ringfence.features.fleet.settings import Access
from ringfence.features.fleet.sync import Beat, OwnBan, Pull, Push, Request, Withdraw
from ringfence.values.network import format_network
from ringfence.values.secret import Secret

SECONDS = 10.0
"""The maximum duration of a request in seconds, the whole answer included."""
CONNECT_SECONDS = 3.0
"""The maximum seconds to connect to one address of the API."""
MAX_BODY = 24 * 1024 * 1024
"""The maximum size of an answer in bytes: 140 000 decisions as CrowdSec writes them have some 24 MB."""
RENEW_BEFORE = 60.0  # seconds before its end, a token is replaced

TESTED = IPv4Network("192.0.2.1")
"""The address of a test decision: one for documentation (RFC 5737), which no packet has."""
TEST_RULE, TEST_SECONDS = "test", 60.0

_UNAUTHORIZED = 401
_REFUSED = frozenset({400, 413, 422})
_MEANINGS = {
    401: "the machine's name or password is wrong",
    403: "the key of the bouncer, or the machine, is not accepted",
    404: "there is no such path; is the url that of CrowdSec's local API?",
    429: "too many requests",
}


class Api:
    """The connection to the local API. :meth:`send` blocks; call it in one thread, one call at a time.

    The API computes the end of a decision from times that this host sends, and its tokens end by its clock.
    So requests use its own time, as its answers show it: the clocks of the two may differ by hours.
    """

    def __init__(self, access: Access, clock: Clock, seconds: float | None = None) -> None:
        self._access = access
        self._clock = clock
        self._seconds = SECONDS if seconds is None else seconds
        self._ahead = clock.wall() - clock.mono()
        self._token: Secret | None = None
        self._until = 0.0
        self._deadline: Deadline | None = None
        self._stopped = False

    def stop(self) -> None:
        """End a running request at once, and let no other begin. Any thread may call this."""
        self._stopped = True
        deadline = self._deadline
        if deadline is not None:
            deadline.end()

    def send(self, request: Request, now: float) -> DecisionPage | None:
        """Carry out a request; return the API's decisions for a ``Pull``, None for any other request.

        ``now`` is the present time by the clock that the ends of the request's bans refer to (monotonic
        seconds). Raise FleetError if the request fails.
        """
        try:
            if isinstance(request, Pull):
                return self._pull(request)
            self._change(request, now)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FleetError("stopped" if self._stopped else _text_of(error)) from None
        return None

    def prove(self) -> None:
        """Store a test decision, look it up, and delete it. Raise FleetError if one of these fails.

        The decision is about an address that no host has. This tries both credentials, the password and the
        key. It does not read the stream of decisions, so the daemon misses none.
        """
        now = self._clock.mono()
        ban = OwnBan(TESTED, TEST_RULE, now + TEST_SECONDS)
        self.send(Push((ban,)), now)
        try:
            path = f"/v1/decisions?ip={TESTED.network_address}"
            body = self._request("GET", path, {"X-Api-Key": _plain(self._access.key())})
            found = parse_decisions(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FleetError(_text_of(error)) from None
        finally:
            self.send(Withdraw(ban.network, ban.key[1]), now)
        if not any(key_of(one.packed, one.scenario) == ban.key for one in found):
            raise FleetError("the API has stored a test decision, and does not return it")

    def _pull(self, request: Pull) -> DecisionPage:
        startup = "true" if request.full else "false"
        # Without dedup=false, a longer decision of another origin hides one (crowdsec issues 2014, 3373).
        path = f"/v1/decisions/stream?startup={startup}&scopes=ip,range&dedup=false"
        body = self._request("GET", path, {"X-Api-Key": _plain(self._access.key())})
        return parse_page(body)

    def _change(self, request: Withdraw | Push | Beat, now: float) -> None:
        fresh = self._token is None or self._now() > self._until - RENEW_BEFORE
        if fresh:
            self._log_in()
        try:
            self._authorized(request, now)
        except FleetError as error:
            if error.status != _UNAUTHORIZED or fresh:
                raise
            self._log_in()  # the API was restarted with another key
            self._authorized(request, now)

    def _authorized(self, request: Withdraw | Push | Beat, now: float) -> None:
        token = self._token.reveal() if self._token is not None else ""
        headers = {"Authorization": f"Bearer {token}"}
        if isinstance(request, Beat):
            self._request("GET", "/v1/heartbeat", headers)
        elif isinstance(request, Withdraw):
            # `value`, because `ip` also ends the networks around the address, of every origin.
            what = quote(format_network(request.network), safe=""), quote(request.scenario, safe="")
            self._request("DELETE", f"/v1/decisions?value={what[0]}&scenario={what[1]}", headers)
        else:
            there, machine = self._now(), self._access.machine
            alerts = [
                alert(ban.network, ban.rule, ban.ends - now, ban.facts, there, machine)
                for ban in request.bans
            ]
            self._request("POST", "/v1/alerts", headers, json.dumps(alerts).encode())

    def _log_in(self) -> None:
        self._token = None
        body = login_body(self._access.machine, self._access.password().reveal())
        try:
            answer = self._request("POST", "/v1/watchers/login", {}, body)
        except FleetError as error:  # it refuses the login, and not the ban that waits for it
            raise FleetError(str(error), error.status, error.pause) from None
        login = parse_login(answer)
        self._token, self._until = Secret(login.token), login.expires

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> bytes:
        """Send a request; return the body of its answer. Raise FleetError unless its status is 2xx."""
        connection, base, context = _connection(self._access.url)
        with Deadline(self._seconds) as deadline:
            self._deadline = deadline
            try:
                self._check_running()
                connect = min(CONNECT_SECONDS, self._seconds)
                sock = open_connection(connection.host, connection.port, connect, deadline, context)
                if sock is None:
                    raise FleetError("the API has no address")
                connection.sock = sock  # from now on, closing the connection closes the socket
                self._check_running()
                sock.settimeout(self._seconds)
                content = {"Content-Type": "application/json"} if body is not None else {}
                # CrowdSec demands exactly this form of the agent: name/version.
                agent = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
                connection.request(method, base + path, body, {**agent, **content, **headers})
                # After `Connection: close`, only closing the answer closes the socket.
                with connection.getresponse() as response:
                    date = date_from(response.getheader("Date") or "", DATE)
                    if date is not None:
                        self._ahead = date - self._clock.mono()
                    return _body_of(response)
            finally:
                connection.close()

    def _now(self) -> float:
        """Return the time (epoch seconds) by the API's clock; by this host's as long as that is unknown."""
        return self._clock.mono() + self._ahead

    def _check_running(self) -> None:
        """Raise FleetError if :meth:`stop` was called, because it ends only a connection that is open."""
        if self._stopped:
            raise FleetError("stopped")


def _connection(url: str) -> tuple[http.client.HTTPConnection, str, ssl.SSLContext | None]:
    """Return an unopened connection to ``url``, the beginning of all paths, and the TLS context or None."""
    parts = urlsplit(url)
    host, base = parts.hostname or "", parts.path.rstrip("/")
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, context=context), base, context
    return http.client.HTTPConnection(host, parts.port), base, None


def _plain(secret: Secret) -> str:
    """Return the text of a key; raise ValueError if it does not fit into a header."""
    clear = secret.reveal()
    if not clear.isascii() or not clear.isprintable():
        raise ValueError("the key has characters that no key has")
    return clear


def _body_of(response: http.client.HTTPResponse) -> bytes:
    """Read an answer; raise FleetError unless it is complete, successful and short enough."""
    body, complete = read_body(response, MAX_BODY)
    status = response.status
    if not 200 <= status < 300:  # noqa: PLR2004 - the statuses of success
        meaning = _MEANINGS.get(status, http.client.responses.get(status, "unknown"))
        raise FleetError(f"status {status}: {meaning}", status, _pause_of(response), status in _REFUSED)
    if not complete:
        raise FleetError("the answer ended too early")
    return body


def _pause_of(response: Any) -> float:  # noqa: ANN401 - a response of http.client
    """Return how many seconds the answer's Retry-After asks to wait; 0 if it has no valid one."""
    text = (response.getheader("Retry-After") or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0  # noqa: PLR2004 - digits


def _text_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "the answer is damaged"
    if isinstance(error, http.client.HTTPException) and not isinstance(
        error, OSError | http.client.IncompleteRead
    ):
        return f"the answer is not HTTP ({type(error).__name__})"  # its text may repeat a credential
    return text_of(error)
