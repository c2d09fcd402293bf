"""RDAP, the successor of whois: asks a server for the abuse contacts of banned addresses (RFC 9082).

Only the child process that sends a message does this. Every query runs in a thread of its own, and the
process waits for the thread for a limited time. A socket's timeout would not be enough: it limits neither a
DNS query nor a server that sends a byte now and then. A late thread ends with the process.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPException, HTTPResponse
from ipaddress import IPv6Address, IPv6Network, ip_network
from ssl import create_default_context
from threading import Thread
from typing import Any
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from ringfence.model import Address
from ringfence.networks import is_loopback
from ringfence.notify.rdap_answer import Registration, parse_answer

MAX_ADDRESSES = 5
"""The maximum number of queries for one message."""

EACH = 3.0
IN_ALL = 8.0
"""The time limits in seconds: ``EACH`` for one query, ``IN_ALL`` for all queries of a message."""

MAX_ANSWER = 256 * 1024
MAX_REDIRECTS = 5
MAX_REASON = 100
"""The maximum length (characters) of the reason why a query failed. A server may have written it."""

_LATE = "no answer in time"
_CHUNK = 16 * 1024
_OK, _REDIRECTS = 200, frozenset({301, 302, 303, 307, 308})
_HEADERS = {"Accept": "application/rdap+json, application/json;q=0.9", "User-Agent": "ringfence"}
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_DOCUMENTATION = IPv6Network("3fff::/20")  # RFC 9637; Python 3.11 does not know it


def add_registrations(content: Mapping[str, Any], server: str, timeout: float) -> str:
    """Add the abuse contact to the bans in ``content``; also country and organisation if a ban has none.

    Bans of one network share a query. There are at most MAX_ADDRESSES queries, so later bans may get nothing.
    ``timeout`` is the channel's time limit in seconds; the queries take at most half of it.

    Return a text about the failed queries, "" if none failed. A failed query raises no exception.
    """
    deadline = time.monotonic() + min(IN_ALL, timeout / 2)
    known: dict[Address, Registration] = {}
    failures: list[str] = []
    for event in content["events"]:
        if event["event"] != "ban":
            continue
        address = ip_network(event["subject"]).network_address
        if not is_public(address):
            continue
        found = known.get(address) or next((one for one in known.values() if one.covers(address)), None)
        if found is None:
            left = min(EACH, deadline - time.monotonic())
            if len(known) == MAX_ADDRESSES or left <= 0:
                continue
            answer = _within(left, partial(ask, server, address, left))
            failures += [answer] if isinstance(answer, str) else []
            found = Registration()
            if isinstance(answer, Registration) and (answer.first is None or answer.covers(address)):
                found = answer
            known[address] = found
        _add(event, found)
    return f"RDAP: {len(failures)} of {len(known)} queries failed: {failures[0]}" if failures else ""


def _add(event: dict[str, Any], found: Registration) -> None:
    for key, value in (("abuse", found.abuse), ("country", found.country), ("organisation", found.name)):
        if value:
            event.setdefault(key, value)


def is_public(address: Address) -> bool:
    """Whether a registry assigns the address to someone on the Internet.

    Other addresses are not queried.
    """
    if isinstance(address, IPv6Address):
        public = address in _GLOBAL_IPV6 and address not in _DOCUMENTATION and address.sixtofour is None
        return public and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved


def ask(server: str, address: Address, seconds: float) -> Registration | str:
    """Return the registration of the network of ``address``, or the reason for the failure as text.

    Return after about ``seconds``, if DNS and the server allow it: see :func:`_within` for a strict limit.
    """
    deadline = time.monotonic() + seconds
    url = f"{server.rstrip('/')}/ip/{address}"
    try:
        for _ in range(MAX_REDIRECTS + 1):
            if not _is_allowed(url, server):
                return "it redirects to an address that is not asked"
            left = deadline - time.monotonic()
            if left <= 0:
                return _LATE
            request = Request(url, headers=_HEADERS)  # noqa: S310 - the scheme is checked
            with _opener(url).open(request, timeout=left) as response:
                if response.status not in _REDIRECTS:
                    return _registration(response, deadline)
                url = urljoin(url, response.headers.get("Location", ""))
    except (OSError, HTTPException, ValueError) as error:
        return _reason(error)
    return "it redirects too often"


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return _LATE
    return (getattr(reason, "strerror", None) or str(reason) or type(reason).__name__)[:MAX_REASON]


def _registration(response: HTTPResponse, deadline: float) -> Registration | str:
    if response.status != _OK:
        return f"it answers {response.status}"
    body = bytearray()
    while part := response.read1(_CHUNK):
        body += part
        if len(body) > MAX_ANSWER:
            return "its answer is too long"
        if time.monotonic() > deadline:
            return _LATE
    return parse_answer(bytes(body)) or "its answer is not that of an RDAP server"


def _opener(url: str) -> OpenerDirector:
    """Return an object for HTTP requests (urllib's opener) that does not follow redirects.

    urllib's own handler of redirects would first read the whole text of the redirect.
    """
    opener = OpenerDirector()
    proxies: dict[str, str] | None = {} if _is_local(url) else None  # None: use the environment's
    for handler in (ProxyHandler(proxies), HTTPHandler(), HTTPSHandler(context=create_default_context())):
        opener.add_handler(handler)
    return opener


def _is_allowed(url: str, server: str) -> bool:
    """Whether a query may go to ``url``, the address of ``server`` or of a redirect.

    Any URL on ``server`` itself is allowed. A redirect to another host is allowed only with https, the
    standard port, and a name with a dot (so not ``localhost``). So a redirect cannot reach a service of the
    local network by its IP address. If the name has a private address, the server there needs a valid
    certificate for the name.
    """
    parts, own = urlsplit(url), urlsplit(server)
    if (parts.scheme, parts.netloc) == (own.scheme, own.netloc):
        return True
    host = parts.hostname or ""
    is_name = "." in host and host[-1].isalpha() and not is_loopback(host)
    return parts.scheme == "https" and parts.netloc in {host, f"{host}:443"} and is_name


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def _within(seconds: float, call: Callable[[], Registration | str]) -> Registration | str:
    """Return the result of ``call``, or the text of an error if there is no result within ``seconds``."""
    results: list[Registration | str] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - a defect here must not keep a message from being sent
            results.append(f"a defect in ringfence: {type(error).__name__}")

    thread = Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # ringfence's systemd unit limits the number of threads
        return str(error)
    thread.join(seconds)
    return results[0] if results else _LATE
