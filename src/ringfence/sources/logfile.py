"""One log file of one Asterisk as a source: followed, parsed, and passed on with the time at which it counts.

:mod:`ringfence.sources.log_rotation` follows the file, and :mod:`ringfence.sources.log_ingest` determines
when its events count. This module supervises both. A defect of ringfence costs only the piece of the log in
which it happened: ``status`` shows it, and the source continues after that piece.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import structlog

from ringfence.model import SourceId
from ringfence.parse.line_result import LogCounts
from ringfence.sources.backoff import Backoff
from ringfence.sources.log_follower import LogFollower
from ringfence.sources.log_ingest import AlarmCount, LogIngest, LogParser, Sink
from ringfence.sources.standby import StandbyLog
from ringfence.sources.state import Condition, State, log_condition

Remember = Callable[[str, str], None]


class LogFileSource:
    """A source that follows one log. :meth:`run` runs until it is cancelled.

    ``condition``, ``counts`` and ``alarms`` may be read at any time. ``reader`` is the log's parser.
    ``position`` is the text that an earlier process passed to ``remember`` under position_key(), None at the
    very first start. ``remember`` is called at most once a second, and at the end. ``sink`` is called with
    events and the monotonic time at which they count. For live events that is now, in the wake-up itself: it
    is on the path to a ban. ``settled`` is set once the first state is known. ``standby`` decides which
    SECURITY lines count; None: all do.
    """

    def __init__(
        self,
        source: SourceId,
        path: Path,
        reader: LogParser,
        sink: Sink,
        position: str | None = None,
        remember: Remember = lambda _key, _position: None,
        backoff: Backoff | None = None,
        standby: StandbyLog | None = None,
    ) -> None:
        self.id = source
        self.path = path
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        key = position_key(source, path)
        self._reader = reader
        self._ingest = LogIngest(reader, sink, standby)
        self._backoff = backoff if backoff is not None else Backoff()
        self._log = structlog.get_logger().bind(source=str(source), path=str(path))
        self._follower = LogFollower(
            path, self._ingest, position, lambda text: remember(key, text), self._set_condition
        )

    @property
    def counts(self) -> LogCounts:
        """Counters since the start."""
        return self._reader.counts

    @property
    def standing_by(self) -> bool:
        """Whether SECURITY lines are skipped now, because AMI delivers their events."""
        return self._ingest.standing_by

    @property
    def skipped(self) -> int:
        """How many bytes of old lines were skipped because they were too many."""
        return self._follower.log.skipped

    @property
    def alarms(self) -> Mapping[str, AlarmCount]:
        """The alarms about the log as a source: how often each was raised, and when last."""
        return self._ingest.alarms

    async def run(self) -> None:
        """Follow the log until cancelled; lines that wait by then are passed on first."""
        with closing(self._follower):
            try:
                while True:
                    await self._follow()
                    await asyncio.sleep(self._backoff.next())
            finally:
                self._ingest.close()

    async def _follow(self) -> None:
        try:
            await self._follower.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the source goes on after that piece
            defect = Condition(State.DEFECT, f"{type(error).__name__}; see the log")
            if defect != self.condition:
                self._log.exception("source.defect")
            self._set_condition(defect)

    def _set_condition(self, condition: Condition) -> None:
        changed, self.condition = condition.state is not self.condition.state, condition
        self.settled.set()
        if changed:
            log_condition(self._log, condition)


def position_key(source: SourceId, path: Path) -> str:
    """Return the key under which the position in a log is stored."""
    return f"{source} {path}"
