"""One request by HTTPS, with limits of size, time and redirects.

A server that offers a list is not trusted with more than its list. So a redirect must not lead to another
scheme, nor to an address that is not public: the fetcher may reach servers that others cannot. The
address that was checked is the one that is connected.
"""

import http.client
import ssl
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from urllib.parse import urljoin, urlsplit

from attrs import frozen

from ringfence.bounded_http import AGENT, Deadline, open_connection, read_body, text_of
from ringfence.features.feeds.formats import MAX_LIST
from ringfence.features.feeds.plan import FetchError
from ringfence.values.network import Address

SECONDS = 60.0
"""The maximum seconds from the look-up of the host to the answer's last byte; each redirect has as many."""
CONNECT_SECONDS = 10.0
"""The maximum seconds to connect to one address of the host: IPv6 may lead nowhere, and IPv4 work."""
MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORT = 443
_NAT64, _UNICAST = IPv6Network("64:ff9b::/96"), IPv6Network("2000::/3")


@frozen
class Limits:
    """The limits of an HTTPS request: the answer's size in bytes, and the seconds (for each redirect)."""

    size: int = MAX_LIST
    seconds: float = SECONDS


@frozen
class HttpAnswer:
    """An HTTP answer: its status, its headers by their names in lower case, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def is_public(address: Address) -> bool:
    """Whether an address belongs to the Internet.

    An IPv6 address that stands for an IPv4 address is judged as that: a translator may lead it into the own
    network. Of 6to4, Teredo, and NAT64 for local use, none is public.
    """
    if isinstance(address, IPv6Address):
        translated = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped
        if translated is not None:
            return is_public(translated)
        if address not in _UNICAST or address.sixtofour is not None or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast


def get(
    url: str,
    headers: Mapping[str, str],
    context: ssl.SSLContext,
    limits: Limits | None = None,
    public: Callable[[Address], bool] = is_public,
) -> HttpAnswer:
    """Request ``url``, follow up to ``MAX_REDIRECTS`` redirects, and return the answer. Raise FetchError.

    The time limit holds for each redirect on its own. ``public`` decides to which addresses a redirect may
    lead. The error names the host, and never the URL, which may contain a key.
    """
    limits, host = limits or Limits(), ""
    allowed: Callable[[Address], bool] = _any_address
    for _ in range(MAX_REDIRECTS + 1):
        host = urlsplit(url).hostname or ""
        try:
            answer = _request(url, headers, context, limits, allowed)
        except FetchError as error:
            raise FetchError(f"{host}: {error}") from None
        except TimeoutError:
            raise FetchError(f"{host}: did not answer in time") from None
        except http.client.IncompleteRead:
            raise FetchError(f"{host}: the answer ended too early") from None
        except http.client.HTTPException as error:  # its text may repeat the path, which may have a key
            raise FetchError(f"{host}: the answer is not HTTP ({type(error).__name__})") from None
        except (OSError, ValueError) as error:
            raise FetchError(f"{host}: {text_of(error)}") from None
        if answer.status not in _REDIRECTS or "location" not in answer.headers:
            return answer
        url, allowed = _target(url, answer.headers["location"]), public
        if not url:
            raise FetchError(f"{host}: redirects to an address that is not plain HTTPS")
    raise FetchError(f"{host}: redirects more than {MAX_REDIRECTS} times")


def _target(url: str, location: str) -> str:
    """Return the URL to which a redirect of ``url`` leads; "" if it is not HTTPS or has odd characters."""
    try:
        found = urljoin(url, location)
        plain = urlsplit(found).scheme == "https" and found.isascii() and found.isprintable()
    except ValueError:
        return ""
    # http.client refuses a blank by an error that has the path, and a path may have a key.
    return found if plain and " " not in found else ""


def _any_address(_: Address) -> bool:
    return True


def _request(
    url: str,
    headers: Mapping[str, str],
    context: ssl.SSLContext,
    limits: Limits,
    allowed: Callable[[Address], bool],
) -> HttpAnswer:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host, port = parts.hostname or "", parts.port or _PORT
    with Deadline(limits.seconds) as deadline:
        connection = http.client.HTTPSConnection(host, port, context=context)
        try:
            connect = min(CONNECT_SECONDS, limits.seconds)
            sock = open_connection(host, port, connect, deadline, context, allowed)
            if sock is None:
                raise FetchError("a redirect leads to an address that is not public")
            connection.sock = sock  # from now on, closing the connection closes the socket
            sock.settimeout(limits.seconds)
            connection.request(
                "GET", path, headers={"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
            )
            # After `Connection: close`, only closing the answer closes the socket.
            with connection.getresponse() as response:
                found = {name.lower(): value.strip() for name, value in response.getheaders()}
                redirects = response.status in _REDIRECTS
                body = b"" if redirects else _body(response, found, limits.size)
                return HttpAnswer(response.status, found, body)
        finally:
            connection.close()


def _body(response: http.client.HTTPResponse, headers: Mapping[str, str], most: int) -> bytes:
    """Read an answer's body; raise FetchError unless it is complete, uncompressed, and short enough."""
    if headers.get("content-encoding", "identity") != "identity":
        raise FetchError("the answer is compressed, although nobody asked for it")
    if response.length is None and not response.chunked:
        raise FetchError("the answer does not say how long it is")
    body, complete = read_body(response, most)
    if not complete:
        raise FetchError("the answer ended too early")
    return body
