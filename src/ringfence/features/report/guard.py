"""The weekly report by mail. It is made each Monday, and passed to each channel that sends mail.

The report covers the last seven days. It is made from the same answers of the daemon as the output of
``ringfence report``. When a report was delivered by a channel, or dropped after several failures, the time is
recorded as that of the channel's last report.
"""

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, time, timedelta, tzinfo
from functools import partial
from typing import Any, Protocol, runtime_checkable

import structlog

from ringfence import control_server
from ringfence.alarms import AlarmRecord
from ringfence.clock import Clock
from ringfence.control import MOST_PAST
from ringfence.control_server import Encoded
from ringfence.errors import ControlError, RingfenceError, StoreError
from ringfence.guard.facts import past_bans
from ringfence.guard.feature import Feature, Given
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.reload import Reloader
from ringfence.lists.regions import files_of
from ringfence.store.database import Store
from ringfence.store.rows import times
from ringfence.store.tables import SavedState
from ringfence.store.writer import BestEffort
from ringfence.values.text import shown

# -- when a weekly report is due: each Monday at 06:00 local time


WEEK = 7 * 86_400.0
_TIME = time(6)


def next_report(after: float, zone: tzinfo | None = None) -> float:
    """Return the first Monday at 06:00 that is later than ``after``. Times are seconds since the epoch.

    ``zone`` is the time zone of 06:00; None means the time zone of this host.
    """
    day = datetime.fromtimestamp(after, zone).date()
    monday = day - timedelta(days=day.weekday())
    first, second = (
        datetime.combine(date, _TIME, zone).timestamp() for date in (monday, monday + timedelta(weeks=1))
    )
    return first if first > after else second


class WeeklySchedule:
    """Decides when the reports of one channel are due. Times are seconds since the epoch.

    ``last`` is the time of the last report. Before the first report, it is the time when the channel was new.
    A report is due at the first Monday, 06:00, after ``last``. So a clock that is set back repeats no report.

    If ``last`` is more than a week in the future, either ``last`` or the present clock is wrong. Then the
    weeks are counted from now. ``last`` is not changed before the next report, because it may be right: some
    hosts start with a clock that is years behind, until a time server corrects it.
    """

    def __init__(self, last: float, zone: tzinfo | None = None) -> None:
        self.last = last
        self._zone = zone
        self._begun_again: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether the channel's weekly report is due at ``now`` (seconds since the epoch)."""
        if self.last <= now + WEEK:
            self._begun_again = None
        elif self._begun_again is None or self._begun_again > now + WEEK:
            self._begun_again = now
        since = self.last if self._begun_again is None else self._begun_again
        return next_report(since, self._zone) <= now

    def done(self, now: float) -> None:
        """Record that the report was sent at ``now`` (seconds since the epoch), or dropped after failures."""
        self.last, self._begun_again = now, None


# -- the time of the last weekly report of each channel, so that a restart neither repeats nor loses one
#
# A channel is one way to send messages. Only channels by mail send reports.


_REPORTS = "reports"


class SavedReports:
    """Loads and saves the time of each channel's last report. Errors are logged and not raised."""

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        self._state = state
        self._best_effort = best_effort

    def load(self) -> dict[str, float]:
        """Return the time (epoch seconds) of each channel's last report, by name; {} if none are readable."""
        try:
            found = json.loads(self._best_effort.read(self._state.fact, None, _REPORTS) or "{}")
            times(*found.values())
            return {name: float(time) for name, time in found.items()}
        except (ValueError, TypeError, AttributeError) as error:  # the recorded text was edited by hand
            self._best_effort.report(StoreError(f"the recorded times of reports are invalid: {error}"))
            return {}

    def save(self, last: Mapping[str, float]) -> object:
        """Queue a write that records the time of each channel's last report. {} removes the record.

        Return what :meth:`BestEffort.write` returns.
        """
        text = json.dumps(dict(last)) if last else None
        return self._best_effort.write(self._state.set_fact, _REPORTS, text, key=_REPORTS)


LOOK_EVERY = 5.0
MOST_TEXT = 500  # characters of the subject and the text of an alarm
RETRY_AFTER = 3_600.0
"""Seconds until the next try after a report could not be made."""

Document = dict[str, Any]


def _decoded(parts: Iterable[bytes]) -> Any:  # noqa: ANN401 - whatever JSON holds
    return json.loads(b"".join(parts))


class ReportCollector:
    """Makes the report of the last seven days.

    ``handlers`` are those of the requests of commands: the report is made from the same answers.
    ``reloader`` has the configuration, which names the files from which locations are read.
    """

    def __init__(
        self,
        side: FirewallSide,
        handlers: Mapping[str, control_server.Handler],
        reloader: Reloader,
    ) -> None:
        self._side = side
        self._handlers = handlers
        self._reloader = reloader

    async def collect(self) -> Document:
        """Return the report of the last seven days; raise RingfenceError if its data cannot be read.

        Threads read the database and compute the report, so that it delays no ban.
        """
        addresses = await self._answer("tops", kind="addresses", seconds=WEEK)
        accounts = await self._answer("tops", kind="accounts", seconds=WEEK)
        history = await self._answer("history", seconds=WEEK)
        status = await self._answer("status")
        active = self._side.common.alarms.records()
        return await asyncio.to_thread(self._summary, history, addresses, accounts, active, status)

    async def _answer(self, do: str, **request: object) -> Any:  # noqa: ANN401 - as the daemon answers
        handler = self._handlers.get(do)
        if handler is None:
            raise ControlError(f"the report needs the request {do}, and this copy of ringfence lacks it")
        found = handler(request)
        if inspect.isawaitable(found):
            found = await found
        if isinstance(found, Encoded):
            parts = found.parts
            return await asyncio.to_thread(_decoded, parts)
        return found

    def _summary(
        self,
        history: Document,
        addresses: list[Document],
        accounts: list[Document],
        active: Iterable[AlarmRecord],
        status: Document,
    ) -> Document:
        from ringfence.features.report.summary import (  # noqa: PLC0415 - loaded once a week
            ReportAnswers,
            locations_by_name,
            summary_of,
        )

        store, now = self._side.common.store, self._side.common.clock.wall()
        alarms = [*active, *store.alarms.past(now - WEEK, MOST_PAST)]
        return summary_of(
            ReportAnswers(
                history,
                [*past_bans(store.bans, now - WEEK, now, None)],
                addresses,
                accounts,
                [_shortened(record.as_json()) for record in alarms],
                status,
                locations_by_name(files_of(self._reloader.settings), addresses),
            )
        )


def _shortened(row: Document) -> Document:
    """Return ``row``, an alarm as JSON, with shortened texts: an account in them may have 64 KB."""
    return row | {key: shown(row[key], MOST_TEXT) for key in ("subject", "text")}


@runtime_checkable
class ReportSender(Protocol):
    """A feature that sends reports by mail."""

    def report_channels(self) -> list[str]:
        """Return the names of all channels that send reports."""

    def has_report(self, name: str) -> bool:
        """Whether the channel ``name`` has a report that it has neither delivered nor dropped yet."""

    def on_report(self, name: str, report: Mapping[str, object], ended: Callable[[], None]) -> None:
        """Send a report by the channel ``name``; ``ended`` is called when it is delivered or dropped."""


class WeeklyReports(Feature):
    """Makes the report when it is due for a channel, and passes it to the feature that sends it."""

    def __init__(self, sender: ReportSender, store: Store, collector: ReportCollector, clock: Clock) -> None:
        self._sender = sender
        self._saved = SavedReports(store.state, store.best_effort)
        self._store = store
        self._collector = collector
        self._clock = clock
        self._schedules = {name: WeeklySchedule(last) for name, last in self._saved.load().items()}
        self._retry_at = clock.mono()
        self._log = structlog.get_logger()

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that makes the weekly reports."""
        return [self.run()]

    async def run(self) -> None:
        """Check every few seconds whether a report is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.check()

    async def check(self) -> None:
        """If a report is due for a channel, make it and pass it on.

        If it cannot be made, the next try is an hour (``RETRY_AFTER``) later.
        """
        names, now = self._sender.report_channels(), self._clock.wall()
        self._follow(names, now)
        due = [
            name for name in names if self._schedules[name].is_due(now) and not self._sender.has_report(name)
        ]
        if due and self._clock.mono() >= self._retry_at and (report := await self._collected()) is not None:
            for name in due:
                self._sender.on_report(name, report, partial(self._ended, name))

    async def _require_writes(self) -> None:
        """Raise StoreError if the database takes no writes.

        The time of the report could then not be recorded, and each restart would send the report again.
        """
        written = self._save()
        if isinstance(written, Future):
            await asyncio.wrap_future(written)
        if not self._store.best_effort.takes_writes:
            raise StoreError("the time of a report cannot be recorded, so no report is sent")

    async def _collected(self) -> Document | None:
        """Return the report of the last seven days. If it cannot be made now, log why and return None."""
        try:
            await self._require_writes()
            return await self._collector.collect()
        except RingfenceError as error:
            if isinstance(error, StoreError):
                self._store.best_effort.report(error)
            self._log.error("report.failed", error=str(error))
        except Exception:  # noqa: BLE001 - a defect is logged in full, and does not stop the daemon
            self._log.exception("report.defect")
        self._retry_at = self._clock.mono() + RETRY_AFTER
        return None

    def _follow(self, names: Sequence[str], now: float) -> None:
        """Create a schedule for each new channel in ``names``, and forget the schedules of removed channels.

        The first report of a new channel is due at the first Monday, 06:00, after ``now`` (epoch seconds).
        """
        if self._schedules.keys() != set(names):
            self._schedules = {name: self._schedules.get(name) or WeeklySchedule(now) for name in names}
            self._save()

    def _ended(self, name: str) -> None:
        if name in self._schedules:
            self._schedules[name].done(self._clock.wall())
            self._save()

    def _save(self) -> object:
        return self._saved.save({name: schedule.last for name, schedule in self._schedules.items()})


def build(given: Given) -> WeeklyReports | None:
    """Return the feature that makes the weekly reports; None if no feature sends reports."""
    sender = next((one for one in given.others if isinstance(one, ReportSender)), None)
    if sender is None:
        return None
    side = given.side
    collector = ReportCollector(side, given.answers, given.reloader)
    return WeeklyReports(sender, side.common.store, collector, side.common.clock)
