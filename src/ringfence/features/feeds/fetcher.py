"""The fetcher: requests each list of its plan when it is due, and writes what it gets.

It asks with the validators of the last answer (ETag, Last-Modified), so an unchanged list costs the server
nothing. All times have some jitter, so that many hosts do not ask at once. After failures it waits longer
each time.

APIBAN sends only what is new since a cursor, in pages. The fetcher keeps each address for a week after it
was seen, as APIBAN does.

Beside each list is a file with what is known about it for the next request. The daemon reads both, and trusts
neither. :func:`run` is the process.
"""

import json
import logging
import os
import random
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from attrs import asdict, evolve, frozen

from ringfence.bounded_http import DATE, date_from
from ringfence.features.feeds.formats import (
    MAX_CURSOR,
    MAX_STATE,
    STATE_SUFFIX,
    FeedFormat,
    parse_apiban,
    parse_apiban_refusal,
)
from ringfence.features.feeds.https import HttpAnswer, get
from ringfence.features.feeds.plan import FetchError, PlannedFeed, read_plan

FIRST_RETRY = 60.0
"""Seconds until the first retry after a failed request. Each further failure doubles them."""
MAX_RETRY = 6 * 3_600.0
LEAST_PAUSE = 60.0
"""The minimum number of seconds between two requests of a list, also if an administrator asks for more."""
MAX_RETRY_AFTER = 86_400.0
APIBAN_PAGES = 10
APIBAN_PAUSE = 130.0
"""Seconds after a round of ``APIBAN_PAGES`` requests until the next one: APIBAN permits 11 in two minutes."""
APIBAN_KEEPS = 7 * 86_400.0
APIBAN_MOST = 500_000
"""The maximum number of addresses that are kept. They take some 60 MB of memory."""
APIBAN_FIRST = "100"
"""The cursor of APIBAN that asks for all addresses."""
MAX_VALIDATOR = 512
"""The maximum length of an ETag or a date that is sent back to the server with the next request."""
_JITTER = 0.1
_MAX_TEXT = 300
_MAX_WAIT = 3_600.0  # seconds; the clock may be set meanwhile

_OK, _NOT_MODIFIED = 200, 304
_REFUSED = frozenset({400, 403, 404})
_RETRY_LATER = frozenset({429, 503})
_DATES = (DATE, "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
"""The formats of a date in HTTP, for ``strptime``: the usual one and two obsolete ones (RFC 9110, 5.6.7)."""

Get = Callable[[str, Mapping[str, str], ssl.SSLContext], HttpAnswer]


@frozen
class FeedState:
    """The known facts about a fetched list, for its next request. Times are in seconds since the epoch.

    ``checked`` is when the server last sent the list, or confirmed it, and ``tried`` when it was last asked;
    None for never. ``error`` is why the latest request failed, "" if it did not. ``due`` is the time of the
    next request. ``wait`` is the time before which the server does not want one, not even if an administrator
    asks. ``failures`` is the number of failed requests since the last success. ``etag`` and ``modified`` are
    the server's validators of the list. ``cursor`` is where APIBAN's next page begins. ``identity`` is the
    digest of the source to which these facts belong (:attr:`PlannedFeed.identity`).
    """

    checked: float | None = None
    tried: float | None = None
    error: str = ""
    due: float = 0.0
    wait: float = 0.0
    failures: int = 0
    etag: str = ""
    modified: str = ""
    cursor: str = ""
    identity: str = ""


def load_state(path: Path) -> FeedState:
    """Read the state of the list ``path`` from its file; return an empty one if it is missing or damaged."""
    try:
        with path.with_name(path.name + STATE_SUFFIX).open("rb") as file:
            found: dict[str, Any] = json.loads(file.read(MAX_STATE))
        return FeedState(
            checked=None if found["checked"] is None else float(found["checked"]),
            tried=None if found["tried"] is None else float(found["tried"]),
            error=str(found["error"])[:_MAX_TEXT],
            due=float(found["due"]),
            wait=float(found["wait"]),
            failures=int(found["failures"]),
            etag=str(found["etag"])[:MAX_VALIDATOR],
            modified=str(found["modified"])[:MAX_VALIDATOR],
            cursor=str(found["cursor"])[:MAX_CURSOR],
            identity=str(found["identity"]),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return FeedState()


def save_state(path: Path, state: FeedState) -> None:
    """Write the state of the list ``path`` to the file beside it; raise OSError if that fails."""
    write(path.with_name(path.name + STATE_SUFFIX), json.dumps(asdict(state)).encode())


def write(path: Path, content: bytes) -> None:
    """Replace a file's content so that a crash leaves the old or the new one; raise OSError if it fails."""
    partial = path.with_name(f".{path.name}.new")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:  # the disk may be full, and others need the room too
        with suppress(OSError):
            partial.unlink()
        raise


class _LaterError(FetchError):
    """The server asks to come back later: ``after`` is its Retry-After, "" if it names no time."""

    def __init__(self, after: str, status: int) -> None:
        super().__init__(f"the server answers {status} and asks to wait")
        self.after = after


class Fetcher:
    """Fetches block lists of a plan when they are due. ``wall`` returns seconds since the epoch.

    ``context`` returns a TLS context. It is called when a list is due, and not once at the start: the host's
    trusted certificates are updated while the fetcher runs.
    """

    def __init__(
        self,
        feeds: Iterable[PlannedFeed],
        wall: Callable[[], float],
        context: Callable[[], ssl.SSLContext],
        get: Get = get,
        rng: random.Random | None = None,
    ) -> None:
        self._feeds = list(feeds)
        self._wall = wall
        self._context = context
        self._get = get
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._log = structlog.get_logger()
        self.states = {feed.name: _known(feed) for feed in self._feeds}

    def tick(self) -> float:
        """Fetch each list whose next request is due; return the seconds until another one is due."""
        for feed in self._feeds:
            # A clock that was set back must not stop a feed for ever.
            latest = self._wall() + max(MAX_RETRY_AFTER, MAX_RETRY, feed.every) * (1 + _JITTER)
            if not self._wall() < self.states[feed.name].due <= latest:
                self._fetch(feed)
        due = min((state.due for state in self.states.values()), default=self._wall() + MAX_RETRY)
        return max(due - self._wall(), 0.0)

    def hurry(self) -> None:
        """Make all lists due as soon as their servers permit."""
        for feed in self._feeds:
            state = self.states[feed.name]
            pause = APIBAN_PAUSE if feed.format is FeedFormat.APIBAN else LEAST_PAUSE
            earliest = max((state.tried or 0.0) + pause, state.wait)
            self.states[feed.name] = evolve(state, due=min(state.due, max(earliest, self._wall())))

    def _fetch(self, feed: PlannedFeed) -> None:
        state = self.states[feed.name]
        least = APIBAN_PAUSE if feed.format is FeedFormat.APIBAN else 0.0
        try:
            if state.identity != feed.identity:
                state = _begun(feed)
            found = self._pages(feed, state) if feed.format is FeedFormat.APIBAN else self._list(feed, state)
            state = evolve(found, error="", failures=0, tried=self._wall())
        except FetchError as error:
            now = self._wall()
            asked = _seconds_of(error.after, now) if isinstance(error, _LaterError) else 0.0
            state = self._failed(evolve(state, wait=now + asked), now, str(error), max(least, asked))
        except OSError as error:
            why = f"{feed.path}: cannot be written: {error.strerror}"
            state = self._failed(state, self._wall(), why, least)
        self.states[feed.name] = state
        if state.error:
            self._log.warning("feed.failed", feed=feed.name, error=state.error)
        else:
            self._log.info("feed.fetched", feed=feed.name)
        with suppress(OSError):  # the next request tries to write it again
            save_state(feed.path, state)

    def _failed(self, state: FeedState, now: float, error: str, least: float) -> FeedState:
        failures = state.failures + 1
        pause = max(min(FIRST_RETRY * 2 ** min(failures - 1, 20), MAX_RETRY), least)
        return evolve(
            state, error=error[:_MAX_TEXT], failures=failures, tried=now, due=now + self._about(pause)
        )

    def _about(self, seconds: float) -> float:
        return seconds * (1 + _JITTER * self._rng.random())

    def _list(self, feed: PlannedFeed, state: FeedState) -> FeedState:
        """Request a whole list, write it if it changed, return its new state; raise FetchError or OSError."""
        headers: dict[str, str] = {}
        if feed.path.exists():
            headers |= {"If-None-Match": state.etag} if state.etag else {}
            headers |= {"If-Modified-Since": state.modified} if state.modified else {}
        answer = self._get(feed.url, headers, self._context())
        now = self._wall()
        checked = evolve(state, checked=now, due=now + self._about(max(feed.every, LEAST_PAUSE)))
        if answer.status == _NOT_MODIFIED and headers:
            return checked
        _check_status(answer)
        write(feed.path, answer.body)
        return evolve(checked, etag=_validator(answer, "etag"), modified=_validator(answer, "last-modified"))

    def _pages(self, feed: PlannedFeed, state: FeedState) -> FeedState:
        """Request APIBAN's new pages, write all addresses of the last week, return the list's new state.

        Raise FetchError or OSError.
        """
        now = self._wall()
        seen = {address: last for address, last in _seen(feed).items() if now - last < APIBAN_KEEPS}
        cursor, more = state.cursor if seen and state.cursor else APIBAN_FIRST, True
        pages, context = 0, self._context()
        while more and pages < APIBAN_PAGES:
            pages += 1
            url = f"{feed.url}/{quote(feed.key, safe='')}/banned/{cursor}"
            answer = self._get(url, {}, context)
            if answer.status in _REFUSED:
                refusal = parse_apiban_refusal(answer.body)
                if refusal:
                    raise FetchError(f"APIBAN: {refusal}")
                more = False
                break
            _check_status(answer)
            try:
                page = parse_apiban(answer.body)
            except ValueError as error:
                raise FetchError(f"APIBAN's answer {error}") from None
            seen |= dict.fromkeys(page.addresses, now)
            if len(seen) > APIBAN_MOST:
                raise FetchError(f"APIBAN names more than {APIBAN_MOST} addresses in a week")
            more, cursor = page.cursor != cursor, page.cursor
        write(feed.path, "".join(f"{address} # {last:.0f}\n" for address, last in seen.items()).encode())
        pause = APIBAN_PAUSE if more else max(feed.every, APIBAN_PAUSE)
        # Pages may come slowly. The limit is kept because the pause begins after the last one.
        return evolve(state, checked=now, cursor=cursor, due=self._wall() + self._about(pause))


def _known(feed: PlannedFeed) -> FeedState:
    """Return the saved state of a feed's list; an empty one if it is about another source."""
    state = load_state(feed.path)
    return state if state.identity == feed.identity else FeedState()


def _begun(feed: PlannedFeed) -> FeedState:
    """Remove the list that the feed had from another source; save and return an empty state.

    The list is removed first. Otherwise a crash could leave a list that seems to come from the present
    source. Raise OSError if the list cannot be removed, or the state not be saved.
    """
    feed.path.unlink(missing_ok=True)
    state = FeedState(identity=feed.identity)
    save_state(feed.path, state)
    return state


def _seen(feed: PlannedFeed) -> dict[str, float]:
    """Return the addresses in the feed's file that APIBAN has named, each with the time (epoch seconds)."""
    found = {}
    with suppress(OSError, ValueError):
        for line in feed.path.read_text("ascii").split("\n"):
            address, _, last = line.partition(" # ")
            if last:
                found[address] = float(last)
    return found


def _check_status(answer: HttpAnswer) -> None:
    """Raise FetchError unless the HTTP answer has the status 200."""
    if answer.status in _RETRY_LATER:
        raise _LaterError(answer.headers.get("retry-after", ""), answer.status)
    if answer.status != _OK:
        raise FetchError(f"the server answers with the status {answer.status}")


def _seconds_of(after: str, now: float) -> float:
    """Return how many seconds from ``now`` (epoch seconds) a Retry-After asks to wait: at most a day.

    Return 0 if it is malformed.
    """
    if after.isascii() and after.isdecimal():
        return min(float(after), MAX_RETRY_AFTER)
    date = date_from(after, *_DATES)
    return 0.0 if date is None else min(max(date - now, 0.0), MAX_RETRY_AFTER)


def _validator(answer: HttpAnswer, name: str) -> str:
    """Return the header ``name`` (ETag, say) to send back next time; "" if it is too long or unprintable."""
    value = answer.headers.get(name, "")
    return value if len(value) <= MAX_VALIDATOR and value.isascii() and value.isprintable() else ""


def run(plan: Path) -> None:
    """Fetch the lists of the plan until SIGTERM or SIGINT; raise FetchError if there is no plan.

    These signals end the process at once, also while a server is silent: each file is replaced as a whole.
    After SIGHUP, all lists are due.
    """
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda *_: sys.exit())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    os.umask(0o022)  # the daemon reads the lists as another user
    fetcher = Fetcher(read_plan(plan), time.time, ssl.create_default_context)
    while True:
        if signal.sigtimedwait({signal.SIGHUP}, min(fetcher.tick(), _MAX_WAIT)) is not None:
            fetcher.hurry()
