"""The table of bans: searches and sorts the daemon's list, and divides it into pages. No side effects."""

from collections.abc import Callable, Mapping, Sequence
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from attrs import frozen

from ringfence.model import Network, parse_network

ROWS = 100
"""The maximum number of rows of one page."""
MOST_SEARCHED = 200  # characters of a search
_IPV6 = 6

Row = Mapping[str, Any]


@frozen
class Query:
    """The rows that a user asked for: a text to search, the column to sort by, and the number of the page.

    Pages are numbered from 1. With an empty ``search``, all rows are shown.
    """

    search: str = ""
    sort: str = "since"
    descending: bool = True
    page: int = 1


@frozen
class BanPage:
    """One page of the table, for a ``query``: page ``number`` of ``pages``.

    ``rows`` are the bans on this page. There are ``total`` bans in all, of which ``found`` match the search.
    """

    rows: Sequence[Row]
    query: Query
    number: int
    pages: int
    found: int
    total: int


def query_from(parameters: Mapping[str, str]) -> Query:
    """Parse the query parameters of a URL.

    A parameter that is missing or invalid gets its default.
    """
    sort = parameters.get("sort", "")
    page = parameters.get("page", "")
    return Query(
        parameters.get("q", "")[:MOST_SEARCHED].strip(),
        sort if sort in KEYS else "since",
        parameters.get("order", "down" if sort in {"", "since"} else "up") == "down",
        int(page) if page.isascii() and page.isdecimal() and len(page) < len("1000000") else 1,
    )


def page_of(rows: Sequence[Row], query: Query) -> BanPage:
    """Return the page of ``rows`` that a query asks for; the last page if there are fewer pages."""
    found = sorted(_matching(rows, query.search), key=KEYS[query.sort], reverse=query.descending)
    pages = max(1, -(-len(found) // ROWS))
    number = min(max(1, query.page), pages)
    return BanPage(found[(number - 1) * ROWS : number * ROWS], query, number, pages, len(found), len(rows))


def _matching(rows: Sequence[Row], search: str) -> Sequence[Row]:
    """Return the rows that match ``search``; all rows if it is empty.

    An address or network matches the bans of all networks that overlap it. Any other text matches the rows
    that contain it in one of the columns ``_SEARCHED``; upper and lower case do not matter.
    """
    if not search:
        return rows
    try:
        network = parse_network(search)
    except ValueError:
        text = search.casefold()
        return [row for row in rows if any(text in str(row[key] or "").casefold() for key in _SEARCHED)]
    overlaps = _overlap_with(network)
    return [row for row in rows if overlaps(row["address"])]


def _overlap_with(network: Network) -> Callable[[str], bool]:
    """Return a function that checks whether a ban's address or network, given as text, overlaps ``network``.

    The function compares numbers, because parsing the networks of 10,000 rows would take 0.1 s.
    """
    is_ipv6 = network.version == _IPV6
    family = AF_INET6 if is_ipv6 else AF_INET
    first, last = network.network_address.packed, network.broadcast_address.packed
    lowest, highest = int.from_bytes(first), int.from_bytes(last)

    def overlaps(text: str) -> bool:
        if (":" in text) != is_ipv6:
            return False
        address, _, prefix = text.partition("/")
        packed = inet_pton(family, address)
        if not prefix:
            return first <= packed <= last
        start = int.from_bytes(packed)
        return start <= highest and start + (1 << (network.max_prefixlen - int(prefix))) > lowest

    return overlaps


_SEARCHED = ("address", "rule", "account", "reason", "scope")


def _address(row: Row) -> tuple[int, bytes, int]:
    """Return the sort key of a row: the IP version, address and prefix length of its network.

    The network is not parsed, because that would take 0.1 s for 10,000 rows.
    """
    address, _, prefix = row["address"].partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    return family, inet_pton(family, address), int(prefix or 128)


def _number(name: str) -> Callable[[Row], float]:
    return lambda row: -1 if row[name] is None else row[name]


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name] or "").casefold()


def _left(row: Row) -> float:
    return float("inf") if row["timeout"] is None else row["timeout"]


KEYS: Mapping[str, Callable[[Row], Any]] = {
    "address": _address,
    "rule": _text("rule"),
    "account": _text("account"),
    "attempts": _number("attempts"),
    "since": _text("since"),
    "left": _left,
    "packets": _number("packets"),
}
"""The columns by which the table can be sorted, each with its sort key."""
