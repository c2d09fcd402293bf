"""One log file of one Asterisk as a source: its lines are parsed, and their events are passed on.

:mod:`ringfence.sources.log_rotation` follows the file, and :mod:`ringfence.sources.log_ingest` determines
when its events count. If a defect of ringfence raises an exception, only the piece of the log that was being
parsed is lost.
"""

from contextlib import closing
from pathlib import Path

from ringfence.clock import Backoff
from ringfence.model import SourceId
from ringfence.sources.log_follower import LogFollower
from ringfence.sources.log_ingest import FollowedLog, LogIngest, Remember


class LogFileSource(FollowedLog):
    """A source that follows one log.

    ``ingest`` parses the lines and passes on their events. It is called as soon as new lines are read, and
    not in another task, so that a ban is not delayed. ``position`` is the text that an earlier process passed
    to ``remember`` under position_key(), None at the very first start. ``remember`` gets the position at most
    once a second, and at the end.
    """

    def __init__(
        self,
        source: SourceId,
        path: Path,
        ingest: LogIngest,
        position: str | None = None,
        remember: Remember = lambda _key, _position: None,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(source, ingest, backoff)
        self._log = self._log.bind(path=str(path))
        key = position_key(source, path)
        self._follower = LogFollower(
            path, ingest, position, lambda text: remember(key, text), self._set_condition
        )

    @property
    def skipped(self) -> int:
        """The number of bytes of old lines that were skipped, because there were too many."""
        return self._follower.log.skipped

    async def run(self) -> None:
        """Follow the log until cancelled.

        At the end, lines that wait for later lines or for AMI are passed on.
        """
        with closing(self._follower):
            try:
                await super().run()
            finally:
                self._ingest.close()

    async def _session(self) -> None:
        await self._follower.run()


def position_key(source: SourceId, path: Path) -> str:
    """Return the key under which the position in a log is stored."""
    return f"{source} {path}"
