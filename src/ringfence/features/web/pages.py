"""The handlers of the pages: each one asks the daemon, and renders its answer with a template."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

import structlog
from attrs import frozen
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ringfence import street
from ringfence.alarm_codes import every_code
from ringfence.control import MOST_ENDED
from ringfence.errors import ControlError, HangingError, NoAnswerError, RingfenceError
from ringfence.explain.headlines import (
    BAD_VERDICTS,
    account_headline,
    address_headline,
    begun_rules,
    is_account,
)
from ringfence.features.web.commands import (
    COMMANDS,
    LENGTHS,
    Order,
    WebCommand,
    run_command,
    warnings_of,
)
from ringfence.features.web.daemon_client import DaemonClient
from ringfence.features.web.entrance import Form, WebSession, require_change
from ringfence.features.web.rendering import Renderer
from ringfence.pages.charts import PERIODS, Column, chart_of, columns_of, ticks_of
from ringfence.pages.templates import MOST_TEXT
from ringfence.pages.ticks import Tick
from ringfence.values.ban import COLUMNS
from ringfence.values.location import area_of, text_of
from ringfence.values.network import Network, parse_network
from ringfence.values.text import rfc3339

# -- the table of bans: searches and sorts the daemon's list, and divides it into pages. No side effects


ROWS = 100
"""The maximum number of rows of one page."""
MOST_SEARCHED = 200  # characters of a search
_IPV6 = 6

Row = Mapping[str, Any]


@frozen
class Query:
    """A user's view of the table of bans: a text to search, the column to sort by, the number of the page.

    Pages are numbered from 1. With an empty ``search``, all rows are shown.
    """

    search: str = ""
    sort: str = "since"
    descending: bool = True
    page: int = 1


@frozen
class BanPage:
    """One page of the table of bans, for a ``query``: page ``number`` of ``pages``.

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
        sort if sort in SORTABLE else "since",
        parameters.get("order", "down" if sort in {"", "since"} else "up") == "down",
        int(page) if page.isascii() and page.isdecimal() and len(page) < len("1000000") else 1,
    )


def current(rows: Sequence[Row], now: str) -> Sequence[Row]:
    """Return the rows of the bans that have not ended at ``now`` (RFC 3339): ``rows`` may be a minute old."""
    return [row for row in rows if row["expires"] is None or row["expires"] > now]


def page_of(rows: Sequence[Row], query: Query) -> BanPage:
    """Return the page of ``rows`` that a query asks for; the last page if there are fewer pages."""
    found = sorted(
        _matching(rows, query.search), key=partial(_sort_key, query.sort), reverse=query.descending
    )
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
    return list(_overlapping(network, rows))


def _overlapping(network: Network, rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows whose address or network overlaps ``network``.

    Numbers are compared, because parsing the networks of 10,000 rows would take 0.1 s.
    """
    is_ipv6 = network.version == _IPV6
    family = AF_INET6 if is_ipv6 else AF_INET
    lowest, highest = int(network.network_address), int(network.broadcast_address)
    for row in rows:
        if (":" in row["address"]) == is_ipv6:
            address, _, prefix = row["address"].partition("/")
            start = int.from_bytes(inet_pton(family, address))
            size = 1 << (network.max_prefixlen - int(prefix or network.max_prefixlen))
            if start <= highest and start + size > lowest:
                yield row


_SEARCHED = ("address", "rule", "account", "reason", "scope")


def _address(row: Row) -> tuple[int, bytes, int]:
    """Return the sort key of a row: the IP version, address and prefix length of its network.

    The network is not parsed, because that would take 0.1 s for 10,000 rows.
    """
    address, _, prefix = row["address"].partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    return family, inet_pton(family, address), int(prefix or 128)


SORTABLE = "address", "rule", "account", "attempts", "since", "left", "packets", *COLUMNS
"""The columns by which the table can be sorted."""


def _sort_key(column: str, row: Row) -> Any:  # noqa: ANN401 - all keys of one column can be compared
    """Return the key by which a row is sorted in one of the columns ``SORTABLE``."""
    match column:
        case "address":
            return _address(row)
        case "left":
            return row["expires"] is None, row["expires"]
        case "attempts" | "packets":
            return -1 if row[column] is None else row[column]
        case "rule" | "account" | "since":
            return str(row[column] or "").casefold()
        case _:
            return row[column] is not None, row[column]


REFRESH = 5
"""Seconds between two updates of an open page."""
_BANS_FOR, _STATUS_FOR, _HISTORY_FOR, _NEWS_FOR = 5.0, 4.0, 30.0, 2.0
"""Seconds for which all open pages share an answer of the daemon.

In this order: bans and lists, the status, the history, and everything else.
"""
MOST_BANS = 20_000
"""The maximum number of bans that the table has. 100,000 would take 200 MB of memory."""
_MOST_GROUPS = 50  # groups of attempts on the page of an address; the latest ones
_MOST_SENDERS = 20  # on the overview; the latest ones
_LOCATIONS_WITHIN = 1.0  # seconds that a table waits for the locations of its addresses
_PAST = 30 * 86_400  # seconds: cleared alarms and ended bans are shown if they are not older
_MOST_ROWS = 200  # in a table that is not divided into pages
_KINDS = ("attempt", "ban", "alarm")
_UNKNOWN = "It may have been done. Look at the bans, the lists and the alarms before you repeat it."


class Pages:
    """Handles the requests for pages, and runs confirmed commands."""

    def __init__(self, client: DaemonClient, renderer: Renderer) -> None:
        self._client = client
        self._renderer = renderer
        self._log = structlog.get_logger()

    async def overview(self, request: Request, _: WebSession) -> Response:
        """Return the page of health and alarms, charts, addresses nearest to a ban, and latest attempts."""
        period = PERIODS.get(request.query_params.get("period", ""), PERIODS["day"])
        top = await self._client.recent(_NEWS_FOR, "top")
        status = await self._client.recent(_STATUS_FOR, "status")
        history = await self._client.recent(_HISTORY_FOR, "history", seconds=period.seconds)
        columns = columns_of(history, period.column)
        ticks = ticks_of(columns, period.column)
        return self._page(
            request,
            "overview.html",
            top=top,
            status=status,
            senders=top["senders"][:_MOST_SENDERS],
            columns=columns,
            charts=_charts(columns, ticks),
            period=period,
            periods=PERIODS.values(),
        )

    async def bans(self, request: Request, _: WebSession) -> Response:
        """Return the page with a part of the table of current bans, as the URL's parameters ask.

        The list of bans may be some seconds old. After the page is sent, a newer list is requested for the
        page's next update.
        """
        rows = await self._client.latest(_BANS_FOR, "bans", most=MOST_BANS)
        query, now = query_from(request.query_params), rfc3339(time.time())
        # In a thread: sorting so many rows takes some 20 ms, in which no other page would be served.
        shown = await asyncio.to_thread(lambda: page_of(current(rows, now), query))
        areas = await self._areas(shown.rows)
        response = self._page(request, "bans.html", shown=shown, areas=areas, is_cut=len(rows) >= MOST_BANS)
        response.background = BackgroundTask(self._renew_bans)
        return response

    async def _renew_bans(self) -> None:
        """Request a newer list of bans for the page's next update; that update reports an error."""
        with suppress(RingfenceError):
            await self._client.recent(_BANS_FOR, "bans", most=MOST_BANS)

    async def past(self, request: Request, _: WebSession) -> Response:
        """Return the page of the bans that ended last, at most 30 days ago."""
        rows = await self._client.recent(_HISTORY_FOR, "past_bans", seconds=_PAST)
        areas = await self._areas(rows[:_MOST_ROWS])
        return self._page(request, "past.html", rows=rows, areas=areas, is_cut=len(rows) >= MOST_ENDED)

    async def _areas(self, rows: Sequence[Row]) -> Mapping[str, str]:
        """Return the location of the address of each row, by address; {} if the daemon is slow or fails.

        The caller then shows the table without locations, because the user needs the table.
        """
        if not rows:
            return {}
        networks = [row["address"] for row in rows]
        try:
            async with asyncio.timeout(_LOCATIONS_WITHIN):
                found = await self._client.ask("locations", networks=networks)
        except (RingfenceError, TimeoutError):
            return {}
        return {network: area_of(one) for network, one in zip(networks, found, strict=True)}

    async def log(self, request: Request, _: WebSession) -> Response:
        """Return the page of the latest attempts, bans and alarms; of one kind if the URL names it."""
        kind = request.query_params.get("kind", "")
        kinds = [kind] if kind in _KINDS else [*_KINDS]
        rows = await self._client.recent(_NEWS_FOR, "latest", kinds=tuple(kinds))
        return self._page(request, "log.html", rows=[*reversed(rows)], kind=kind if kind in _KINDS else "")

    async def alarms(self, request: Request, _: WebSession) -> Response:
        """Return the page of the active alarms, and of those that cleared in the last 30 days.

        Critical ones come first, because senders can cause any number of others.
        """
        active = await self._client.recent(_NEWS_FOR, "alarms")
        ranks = {str(code): code.rank for code in every_code()}
        active = sorted(active, key=lambda row: ranks.get(row["code"], 1), reverse=True)
        past = await self._client.recent(_HISTORY_FOR, "alarms", past=True, seconds=_PAST)
        return self._page(request, "alarms.html", active=active, past=past)

    async def lists(self, request: Request, _: WebSession) -> Response:
        """Return the page of the allow list and the deny list, and of what features add to them."""
        sides = {side: await self._client.recent(_BANS_FOR, "lists", side=side) for side in ("allow", "deny")}
        status = await self._client.recent(_STATUS_FOR, "status")
        return self._page(request, "lists.html", sides=sides, status=status)

    async def of_feature(self, request: Request, _: WebSession) -> Response:
        """Return the page of the feature that the path names, with the daemon's answer to its request."""
        name = request.url.path.removeprefix("/")
        return self._page(request, f"{name}/page.html", **{name: await self._client.recent(_NEWS_FOR, name)})

    async def why(self, request: Request, _: WebSession) -> Response:
        """Return the page with what ``ringfence why`` prints about an address, a network or an account.

        The URL's parameter ``about`` names it; without it, redirect to the overview. Raise ControlError if it
        is invalid.
        """
        about = request.query_params.get("about", "").strip()[:MOST_TEXT]
        if not about:
            return RedirectResponse("/", HTTPStatus.SEE_OTHER)
        if is_account(about):
            found = await self._client.ask_costly("why_account", account=about)
            for module in street.modules("why_account"):
                do, fields = module.request(about)
                found |= module.facts(await self._client.ask_costly(do, **fields), about)
            return self._page(
                request,
                "why_account.html",
                found=found,
                headline=account_headline(found),
                bad=found["verdict"] in BAD_VERDICTS,
                lines=[line for module in street.modules("why_account") for line in module.lines(found)],
            )
        try:
            network = str(parse_network(about))
        except ValueError:
            raise ControlError(f"{about[:100]} is not an address or a network") from None
        found = await self._client.ask_costly("why", network=network)
        return self._page(
            request,
            "why.html",
            found=found,
            headline=address_headline(found),
            where=text_of(found["location"]),
            groups=found["groups"][:_MOST_GROUPS],
            rules=begun_rules(found),
            limits=[line for module in street.modules("why") for line in module.lines(found)],
        )

    async def confirm(self, request: Request, session: WebSession) -> Response:
        """Return the page that asks the user to confirm a command. Nothing is changed yet.

        Raise WebError if the user may only read, ControlError if the command or its argument is invalid.
        """
        require_change(session)
        name = request.query_params.get("do", "")
        command = COMMANDS.get(name)
        if command is None:
            raise ControlError("this page does not know the command")
        what = command.check(request.query_params.get("what", ""))
        return self._page(
            request,
            "confirm.html",
            name=name,
            command=command,
            what=what,
            lengths=LENGTHS,
            warnings=await warnings_of(self._client, command, what),
        )

    async def run(self, request: Request, session: WebSession, form: Form) -> Response:
        """Run a command that the user has confirmed, and return the page that shows its result.

        A line is logged before the daemon gets the command, and another one about its result. Raise WebError
        if the user may only read, ControlError if the command is invalid or fails.
        """
        person = session.person.name
        command = COMMANDS.get(form.get("do", ""))
        if command is None:
            raise ControlError("this page does not know the command")
        what = command.check(form.get("what", ""))
        order = Order(what, person, form.get("length", ""), form.get("note", "")[:200])
        log = self._log.bind(user=person, command=form["do"], what=what)
        if session.person.read_only:
            log.warning("web.command_refused")
        require_change(session)
        log.info("web.command", **_details(command, order))
        try:
            outcome = await run_command(self._client, command, order)
        except NoAnswerError as error:
            log.warning("web.command_unknown", error=str(error))
            if isinstance(error, HangingError):  # it says what becomes of the request
                raise
            raise NoAnswerError(f"{error}. {_UNKNOWN}") from None
        except ControlError as error:
            log.warning("web.command_failed", error=str(error))
            raise
        except asyncio.CancelledError:
            log.warning("web.command_unknown", error="the page was stopped before the daemon answered")
            raise
        finally:
            self._client.forget()
        log.info("web.command_done", problems=outcome.problems)
        return self._page(request, "done.html", command=command, name=form["do"], what=what, outcome=outcome)

    def _page(self, request: Request, template: str, **values: object) -> Response:
        return self._renderer.page(request, template, refresh=REFRESH, most=_MOST_ROWS, **values)


def _details(command: WebCommand, order: Order) -> dict[str, str]:
    """Return what the log shows of a command: the length of a ban and the user's reason, if it has them."""
    details = {"length": order.length} if command.has_length else {}
    return details | ({"reason": order.signed} if command.has_note else {})


def _charts(columns: Sequence[Column], ticks: Sequence[Tick]) -> list[dict[str, Any]]:
    """Return the values of the overview's two charts, of attempts and of bans, for the template."""
    attempts, proven, bans = zip(*((one.attempts, one.proven, one.bans) for one in columns), strict=True)
    return [
        chart_of("Attempts", sum(attempts), columns, {"attempts": attempts, "proven": proven}, ticks),
        chart_of("Bans", sum(bans), columns, {"bans": bans}, ticks),
    ]
