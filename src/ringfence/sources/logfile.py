"""One log file of one Asterisk as a source: followed, read, and handed on with the time at which it counts.

How a file is followed is told in :mod:`ringfence.sources.trail`, when its events count in
:mod:`ringfence.sources.hearing`. This supervises both. An error of ours on the way of the evidence costs the
piece of the log that it came from: it is seen in ``status``, and the source goes on behind it.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import structlog

from ringfence.model import SourceId
from ringfence.parse.reading import LogCounts
from ringfence.sources.backoff import Backoff
from ringfence.sources.follow import Follower
from ringfence.sources.hearing import AlarmCount, Hearing, LogReader, Sink
from ringfence.sources.state import Condition, State, log_condition

Remember = Callable[[str, str], None]


class LogFileSource:
    """Follows one log. :meth:`run` never ends by itself; ``condition``, ``counts`` and ``alarms`` tell of it.

    ``reader`` is the log's parser. ``position`` is what ``remember`` was given under position_key() by an
    earlier process, None at the very first start; ``remember`` is called at most once a second, and at the
    end. ``sink`` is called with events and the monotonic time at which they count, which for what is live is
    now, in the wake-up itself: it is on the path to a ban. ``settled`` is set once it is known how it goes.
    """

    def __init__(
        self,
        source: SourceId,
        path: Path,
        reader: LogReader,
        sink: Sink,
        position: str | None = None,
        remember: Remember = lambda _key, _position: None,
        backoff: Backoff | None = None,
    ) -> None:
        self.id = source
        self.path = path
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        key = position_key(source, path)
        self._reader = reader
        self._hearing = Hearing(reader, sink)
        self._backoff = backoff if backoff is not None else Backoff()
        self._log = structlog.get_logger().bind(source=str(source), path=str(path))
        self._follower = Follower(
            path, self._hearing, position, lambda text: remember(key, text), self._become
        )

    @property
    def counts(self) -> LogCounts:
        """What was read since the start."""
        return self._reader.counts

    @property
    def skipped(self) -> int:
        """How many bytes of the past were too many to read."""
        return self._follower.trail.skipped

    @property
    def alarms(self) -> Mapping[str, AlarmCount]:
        """What is wrong with the log as a witness, in words, with how often and when last."""
        return self._hearing.alarms

    async def run(self) -> None:
        """Follow the log until cancelled; what was read and held back by then is handed on first."""
        with closing(self._follower):
            try:
                while True:
                    await self._follow()
                    await asyncio.sleep(self._backoff.next())
            finally:
                self._hearing.cut()

    async def _follow(self) -> None:
        try:
            await self._follower.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the source goes on behind that piece
            defect = Condition(State.DEFECT, f"{type(error).__name__}; see the log")
            if defect != self.condition:
                self._log.exception("source.defect")
            self._become(defect)

    def _become(self, condition: Condition) -> None:
        changed, self.condition = condition.state is not self.condition.state, condition
        self.settled.set()
        if changed:
            log_condition(self._log, condition)


def position_key(source: SourceId, path: Path) -> str:
    """Give the name under which it is remembered how far a log was read."""
    return f"{source} {path}"
