"""The list of banned networks for routers that fetch it: plain text by HTTP, one network on each line.

The server of the metrics serves it, and only to requests with the token. A router drops
all packets of a network on the list, and it asks seldom. So the list is narrower than the kernel's bans:

- It has no claimed ban, because the address of a claimed attempt may be forged; and no ban that was found in
  the kernel without a record, because nobody knows its evidence. Bans by administrators are on the list.
- It has no network with an exempt address or a friend in it. A former friend counts as a friend: its phone
  may register again before the router asks again. After a start there is no list until the friends are known.
- No network is inside another one, because some routers refuse such a list.
- It has at most ``most`` networks of each IP version: those whose bans were placed last.
- It is never empty, see ``NOBODY``.

A list is made in slices, so that a ban waits for one slice only; and seldom, however many routers ask.
"""

import asyncio
import hmac
from base64 import b64decode
from binascii import Error
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from math import inf

from attrs import define, frozen

from ringfence.clock import Clock
from ringfence.features.publish.settings import PublishSettings
from ringfence.guard.feature import Feature, Given, Number, Section
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.http_page import NOT_MODIFIED, Answer, Page, values_of
from ringfence.ledger import Record, network_of, parts_of, scope_of
from ringfence.values.ban import WHOLE_SCOPES, Origin
from ringfence.values.network import BITS, VERSIONS, Network, NetworkSet, format_network
from ringfence.values.secret import Secret

FRESH = 10.0
"""Seconds for which the same list is served again before a new one is made."""

SLICE = 0.004
"""Seconds of work on a list after which the event loop runs other work of the daemon."""

PATHS: Mapping[bytes, tuple[int, ...]] = {b"/bans": (4, 6), b"/bans/ipv4": (4,), b"/bans/ipv6": (6,)}
"""The paths of the lists, with the IP versions that each contains."""

NOBODY = "# nobody is banned\n"
"""The text of a list without a network: for an empty answer, pfSense would keep its old list for ever."""

_MOST_MADE = 3  # how often a request makes the list, because an address becomes a friend meanwhile
_LATER = f"Retry-After: {FRESH:.0f}\r\n"


@frozen
class PublishedList:
    """A list of banned networks as text, one in a line, with its entity tag (RFC 9110 section 8.8.3)."""

    text: bytes
    tag: bytes

    @classmethod
    def of(cls, text: str) -> "PublishedList":
        """Return the list with this text and its entity tag, a hash of the text."""
        data = text.encode()
        return cls(data, f'"{sha256(data).hexdigest()[:32]}"'.encode())


@define
class PublishCounts:
    """The numbers of networks on the latest list for routers, and of those for which it had no room.

    ``refused`` counts the requests without the right token since the start.
    """

    published: int = 0
    left_out: int = 0
    refused: int = 0


class Publisher(Feature):
    """Makes the lists of banned networks, and serves them by HTTP to routers that have the token."""

    def __init__(self, side: FirewallSide, token: Secret, most: int) -> None:
        self.counts = PublishCounts()
        self._side = side
        self._token = token.reveal().encode()
        self._most = most
        self._clock = side.common.clock
        self._lock = asyncio.Lock()
        self._made = self._given_up = -inf
        self._spared: tuple[int, NetworkSet] = (0, NetworkSet())
        self._lists: dict[tuple[int, ...], PublishedList] = {}

    def pages(self) -> dict[bytes, Page]:
        """Return the HTTP page of each list, by its path."""
        return {path: self._page(versions) for path, versions in PATHS.items()}

    def section(self) -> Section:
        """Return the numbers for the status: networks on the latest list, left out ones, refused requests."""
        text = "Networks on the latest list for routers."
        listed = Number("published_networks", text, self.counts.published)
        text = "Networks for which the latest list for routers had no room."
        left_out = Number("published_left_out", text, self.counts.left_out)
        text = "Requests for the list for routers without the right token."
        refused = Number("publish_refused", text, self.counts.refused, only_grows=True)
        return Section((listed, left_out, refused))

    def _page(self, versions: tuple[int, ...]) -> Page:
        async def answer(head: bytes) -> Answer:
            if not self._is_authorized(head):
                self.counts.refused += 1
                return Answer(
                    "401 Unauthorized",
                    b"The token is missing or wrong; see [publish].\n",
                    more='WWW-Authenticate: Bearer, Basic realm="ringfence"\r\n',
                )
            if not self._side.exempt.friends.startup.for_bans:
                return Answer("503 Service Unavailable", b"The phones are not known yet.\n", more=_LATER)
            published = await self._list(versions)
            if published is None:
                return Answer("503 Service Unavailable", b"The phones change too often.\n", more=_LATER)
            tag = f"ETag: {published.tag.decode()}\r\nCache-Control: no-cache\r\n"
            if _is_known(head, published.tag):
                return Answer(NOT_MODIFIED, more=tag)
            return Answer("200 OK", published.text, kind="text/plain; charset=utf-8", more=tag)

        return answer

    def _is_authorized(self, head: bytes) -> bool:
        """Whether the request with this ``head`` has the right token. Each comparison takes the same time."""
        given = values_of(head, b"authorization")
        token = _token_of(given[0]) if len(given) == 1 else b""
        return hmac.compare_digest(sha256(token).digest(), sha256(self._token).digest())

    async def _list(self, versions: tuple[int, ...]) -> PublishedList | None:
        """Return the list of ``versions`` (of IP), at most ``FRESH`` seconds old; make it if necessary.

        If an address has become a friend or exempt, the list is made again at once. If this happens again and
        again while it is made, return None for the next ``FRESH`` seconds.
        """
        async with self._lock:
            if self._clock.mono() - self._given_up < FRESH:
                return None
            for _ in range(_MOST_MADE):
                if not self._is_fresh():
                    spared = self._present_friends()
                    await self._make()
                    self._made, self._spared = self._clock.mono(), spared
                if self._is_fresh():  # otherwise an address has become a friend while the list was made
                    return self._lists[versions]
            self._given_up = self._clock.mono()
            return None

    def _present_friends(self) -> tuple[int, NetworkSet]:
        return self._side.detector.friends.changes, self._side.detector.exempt

    def _is_fresh(self) -> bool:
        return self._clock.mono() - self._made < FRESH and self._present_friends() == self._spared

    async def _make(self) -> None:
        pause = _Pauses(self._clock)
        found = await self._select(pause)
        texts = {}
        for version in VERSIONS:
            networks = outermost(version, found[version])
            lines = []
            for network in networks:
                if pause.is_due():
                    await pause.take()
                lines.append(f"{format_network(network)}\n")
            texts[version] = "".join(lines)
        self._lists = {
            versions: PublishedList.of("".join(texts[version] for version in versions) or NOBODY)
            for versions in PATHS.values()
        }
        self.counts.published = sum(text.count("\n") for text in texts.values())

    async def _select(self, pause: "_Pauses") -> dict[int, set[tuple[int, int]]]:
        """Select the networks of the list: return first address and prefix length of each, by IP version."""
        ledger = self._side.detector.bans
        found: dict[int, set[tuple[int, int]]] = {version: set() for version in VERSIONS}
        left_out: set[tuple[int, int, int]] = set()  # bans of several scopes may have the same network
        for key in reversed(list(ledger.keys())):
            if pause.is_due():
                await pause.take()
            record = ledger.get(key)
            if record is None or not is_proven(key, record) or record.expires <= pause.now:
                continue
            version, address, length = parts_of(key)
            if (address, length) in found[version]:
                continue
            if len(found[version]) >= self._most:
                left_out.add((version, address, length))
            elif self._is_publishable(network_of(key)[0]):
                found[version].add((address, length))
        self.counts.left_out = len(left_out)
        return found

    def _is_publishable(self, network: Network) -> bool:
        """Whether no exempt address and no friend, present or former, is in ``network``."""
        return not (
            self._side.detector.exempt.overlaps(network) or self._side.detector.friends.any_known_in(network)
        )


class _Pauses:
    """Lets other work of the daemon run after each slice (``SLICE`` seconds) of long work.

    ``now`` is the wall-clock time at the start of the present slice.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends = clock.mono() + SLICE
        self.now = clock.wall()

    def is_due(self) -> bool:
        """Whether the present slice of ``SLICE`` seconds is over."""
        return self._clock.mono() >= self._ends

    async def take(self) -> None:
        """Let the event loop run other work once, and start the next slice."""
        await asyncio.sleep(0)
        self._ends = self._clock.mono() + SLICE
        self.now = self._clock.wall()


def is_proven(key: int, record: Record) -> bool:
    """Whether a ban is an administrator's, or a rule's wide ban on attempts whose address is verified.

    ``key`` is the network and the scope of the ban as a number, ``record`` its record in the ledger.
    """
    if record.origin is Origin.ADMIN:
        return True
    return record.origin is Origin.RULE and scope_of(key) in WHOLE_SCOPES and record.counts.proven > 0


def outermost(version: int, networks: Iterable[tuple[int, int]]) -> Iterator[Network]:
    """Yield those networks of ``networks`` that no other one of them contains, in ascending order.

    ``networks`` have the first address and the prefix length of each. ``version`` is their IP version.
    """
    kind, bits = IPv4Network if version == VERSIONS[0] else IPv6Network, BITS[version]
    end = -1
    for address, length in sorted(networks):  # a wide network comes before those inside it
        if address > end:
            end = address + (1 << bits - length) - 1
            yield kind((address, length))


def _token_of(value: bytes) -> bytes:
    """Return the token in the value of an Authorization header; b"" if it has none.

    The token follows ``Bearer`` (RFC 6750), or is the password of ``Basic`` (RFC 7617) with any user name:
    pfSense can only put a user name and a password into the URL.
    """
    scheme, _, credentials = value.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return credentials.strip()
        case b"basic":
            try:
                return b64decode(credentials.strip(), validate=True).partition(b":")[2]
            except Error:
                return b""
    return b""


def _is_known(head: bytes, tag: bytes) -> bool:
    """Whether a request's ``head`` shows that the client has the list with this tag (RFC 9110, 13.1.2)."""
    known = [one.strip() for value in values_of(head, b"if-none-match") for one in value.split(b",")]
    return any(one.removeprefix(b"W/") == tag or one == b"*" for one in known)


def build(given: Given) -> Publisher | None:
    """Return the publisher of the lists for routers; None if the configuration has no token for them."""
    publish = given.reloader.settings.of(PublishSettings)
    if publish.token is None:
        return None
    return Publisher(given.side, publish.token, publish.max_entries)
