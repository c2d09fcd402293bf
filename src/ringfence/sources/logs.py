"""The logs of one Asterisk: the configured files, the journal, or files that ringfence finds.

If no log is configured, these files are searched:

- ringfence's own log channel in Asterisk, ``/var/log/ringfence/ringfence`` or
  ``/var/log/asterisk/ringfence``. It has the levels that carry evidence, and no packets. If it exists, no
  other file is read: ``full`` and ``messages`` repeat its lines, and also contain text that callers wrote.
  Reading them costs time and shows nothing more.
- otherwise ``security``, ``messages`` and ``messages.log`` in ``/var/log/asterisk``, as far as they exist,
  and ``full`` if neither of the last two exists.

The search repeats every ``LOOK_EVERY`` seconds. So a log channel that is configured later in Asterisk is read
without a restart of ringfence. A file that is being read is kept if it is missing for a moment, as in a
rotation. If it is missing for ``KEEP`` seconds, files that were not read until then replace it, if there are
any. If no position in a file is stored, a file that appeared since the last search is read from its start,
and any other file from its end.

Of the logs that are searched, one that is reachable under two names is read only once. The modules that read
logs are imported only if a log may be read.
"""

import asyncio
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from ringfence.parse.line_result import LogAlarm, LogCounts
from ringfence.sources.standby import Sink, Standby, StandbyLog
from ringfence.sources.state import Condition, State, numbers_of
from ringfence.values.event import SourceId

if TYPE_CHECKING:
    from ringfence.parse.custom import Custom
    from ringfence.sources.journal import JournalSource
    from ringfence.sources.log_file import LogFileSource
    from ringfence.sources.log_ingest import AlarmCount, FollowedLog, LogIngest

LOOK_EVERY = 5.0
KEEP = 60.0
"""Seconds for which a missing file is still read, and no other file in its place. A rotation takes less."""

OWN = (Path("/var/log/ringfence/ringfence"), Path("/var/log/asterisk/ringfence"))
SECURITY = Path("/var/log/asterisk/security")
MESSAGES = (Path("/var/log/asterisk/messages"), Path("/var/log/asterisk/messages.log"))
FULL = Path("/var/log/asterisk/full")
LOG_PATHS = (*OWN, SECURITY, *MESSAGES, FULL)

Key = tuple[int, int]
"""Device and inode, which identify a file under any name."""


LogSource: TypeAlias = "FollowedLog | Logs"
"""A log as a source: a file, the journal, or a :class:`Logs` that has found no log yet."""


@frozen
class LogPlan:
    """The logs to read of the Asterisk named ``asterisk``.

    ``paths`` are the configured files. If it is None, the logs are searched among ``candidates`` (in the
    order of ``LOG_PATHS``). ``journal``: the journal is read, and in it the units of ``journal_users``
    (names or numbers) too. ``timezone`` is that of the times in the logs,
    None for this host's. ``customs`` are the administrator's own patterns of messages.
    """

    asterisk: str
    paths: tuple[Path, ...] | None = None
    journal: bool = False
    timezone: tzinfo | None = None
    customs: "tuple[Custom, ...]" = ()
    journal_users: tuple[str, ...] = field(default=(), kw_only=True)
    candidates: tuple[Path, ...] = field(default=LOG_PATHS, kw_only=True)


@frozen
class PathCheck:
    """The result of checking paths: readable files, files without permission, and missing files.

    ``readable`` has the device and inode of each file.
    """

    readable: Mapping[Path, Key]
    forbidden: tuple[Path, ...]
    absent: tuple[Path, ...]


def check_paths(candidates: Iterable[Path]) -> PathCheck:
    """Return which of these files exist, and whether this process may read them. No file is opened."""
    readable: dict[Path, Key] = {}
    forbidden, absent = [], []
    for path in candidates:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            absent.append(path)
        except OSError:
            forbidden.append(path)
        else:
            if os.access(path, os.R_OK, effective_ids=True):
                readable[path] = (status.st_dev, status.st_ino)
            else:
                forbidden.append(path)
    return PathCheck(readable, tuple(forbidden), tuple(absent))


def choose(there: Collection[Path], candidates: Sequence[Path] = LOG_PATHS) -> tuple[Path, ...]:
    """Return which of the existing logs ``there`` to read, so that each event is read only once.

    ``candidates`` is in the order of LOG_PATHS.
    """
    *own, security, messages, newer, full = candidates
    chosen = [path for path in own if path in there]
    if not chosen:
        chosen = [path for path in (messages, newer) if path in there] or [full]
        chosen = [path for path in (security, *chosen) if path in there]
    return tuple(chosen)


class Positions:
    """The position up to which each log was read, as text by the log's key; subclasses may store it.

    A log's key is a text that identifies the log: the name of its source, and its path or ``journal``.
    """

    def __init__(self) -> None:
        self.latest: dict[str, str] = {}

    def read(self) -> Mapping[str, str]:
        """Return the latest position in each log, by the log's key."""
        return self.latest

    def record(self, key: str, position: str) -> None:
        """Record the position up to which the log ``key`` was read."""
        self.latest[key] = position


class Logs:
    """The logs of one Asterisk, each a source of its own.

    If ``plan`` has no log (``paths`` is empty, and ``journal`` is off), :meth:`run` returns at once.
    Otherwise it runs until it is cancelled. ``positions`` has the position up to which each log was read, by
    the log's key, and gets the new ones. ``sink`` gets the events, and the time at which they count
    (monotonic seconds). ``standby`` decides which SECURITY lines count. Its default is for an Asterisk
    without AMI: all of them count. ``hurry`` is set while new lines must be read at once; None: always.

    As long as no log is found, this object is itself a source, so that ``status`` can show it.
    """

    def __init__(
        self,
        plan: LogPlan,
        sink: Sink,
        positions: Positions | None = None,
        standby: Standby | None = None,
        hurry: asyncio.Event | None = None,
    ) -> None:
        self.id = SourceId(plan.asterisk, "log")
        self.condition = Condition(State.CONNECTING)
        self.counts = LogCounts()
        self.last_sign: float | None = None
        self.standing_by = False
        self.alarms: Mapping[LogAlarm, AlarmCount] = {}
        self._plan = plan
        self._sink = sink
        self._positions = positions or Positions()
        self._hurry = hurry
        self._standby = standby if standby is not None else Standby(sink, ami=False)
        self._files: dict[Path, LogFileSource] = {}
        self._tasks: dict[Path, asyncio.Task[None]] = {}
        self._keys: dict[Path, Key] = {}
        self._journal: JournalSource | None = None
        self._absent: dict[Path, float] = {}  # the loop's time since which each candidate has been missing
        _load_readers(plan)

    @property
    def numbers(self) -> Mapping[str, object]:
        """The numbers of a log, as the status shows them, while no log is found."""
        return {**numbers_of(self.counts), "standing_by": self.standing_by, "skipped": self.counts.standby}

    @property
    def sources(self) -> tuple[LogSource, ...]:
        """The logs that are read now. If the search has found no log, this object stands in their place."""
        found: list[FollowedLog] = list(self._files.values())
        if self._journal is not None:
            found.append(self._journal)
        return tuple(found) if found or self._plan.paths is not None else (self,)

    async def run(self) -> None:
        """Search for logs and read them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._plan.journal:
                self._begin_journal(group)
            for path in dict.fromkeys(self._plan.paths or ()):
                self._begin(group, path, new=False)
            while self._plan.paths is None:
                self._find(group)
                await asyncio.sleep(LOOK_EVERY)

    def _find(self, group: asyncio.TaskGroup) -> None:
        """Check which files exist now. Begin to read those that are wanted, and stop reading the others."""
        check = check_paths(self._plan.candidates)
        now = asyncio.get_running_loop().time()
        before, self._absent = self._absent, {path: self._absent.get(path, now) for path in check.absent}
        there = {**self._keys, **check.readable}  # a file that is read now is kept, also during its rotation
        kept = {path: key for path, key in there.items() if now - self._absent.get(path, now) < KEEP}
        wanted, others = self._choose(there), self._choose(kept)
        if any(path not in self._files for path in others):  # they replace a file that has been removed
            wanted = others
        for path in [path for path in self._files if path not in wanted]:
            self._tasks.pop(path).cancel()
            del self._files[path], self._keys[path]
        for path in wanted:
            if path not in self._files:
                self._begin(group, path, new=path in before)
            self._keys[path] = there[path]
        lost = None if self._files or not check.forbidden else self._read_before(check.forbidden)
        if lost is None:
            self.condition = _missing(check)
        else:
            why = f"{lost} was read before, and cannot be read now; fix: let ringfence's user read it again"
            self.condition = Condition(State.UNREADABLE, why)

    def _read_before(self, forbidden: Iterable[Path]) -> Path | None:
        """Return the first of these files that this run or an earlier one has read; None if there is none."""
        from ringfence.sources.log_file import position_key  # noqa: PLC0415 - see _load_readers

        known, pbx = self._positions.read(), self._plan.asterisk
        read = (path for path in forbidden if position_key(SourceId(pbx, f"log:{path}"), path) in known)
        return next(read, None)

    def _choose(self, there: dict[Path, Key]) -> tuple[Path, ...]:
        """Return which of the existing files ``there`` to read, each under one name only."""
        names = {key: path for path, key in reversed(there.items())}
        return choose([path for path, key in there.items() if names[key] == path], self._plan.candidates)

    def _begin(self, group: asyncio.TaskGroup, path: Path, *, new: bool) -> None:
        from ringfence.sources.log_file import LogFileSource, position_key  # noqa: PLC0415 - see _load_readers
        from ringfence.sources.log_rotation import NOWHERE  # noqa: PLC0415 - the same

        source = SourceId(self._plan.asterisk, f"log:{path}")
        position = self._positions.read().get(position_key(source, path), NOWHERE.to_text() if new else None)
        file = LogFileSource(
            source, path, self._ingest_of(source), position, self._positions, hurry=self._hurry
        )
        self._files[path] = file
        self._tasks[path] = group.create_task(file.run(), name=str(source))

    def _begin_journal(self, group: asyncio.TaskGroup) -> None:
        from ringfence.sources.journal import JournalSource, position_key  # noqa: PLC0415 - see _load_readers

        source = SourceId(self._plan.asterisk, "journal")
        position = self._positions.read().get(position_key(source))
        ingest = self._ingest_of(source)
        self._journal = JournalSource(
            source, ingest, position, self._positions, users=self._plan.journal_users
        )
        group.create_task(self._journal.run(), name=str(source))

    def _ingest_of(self, source: SourceId) -> "LogIngest":
        from ringfence.parse.log import LogReader  # noqa: PLC0415 - see _load_readers
        from ringfence.sources.log_ingest import LogIngest  # noqa: PLC0415 - the same

        reader = LogReader(source, timezone=self._plan.timezone, customs=self._plan.customs)
        return LogIngest(StandbyLog(self._standby, reader), self._sink)


def _load_readers(plan: LogPlan) -> None:
    """Load the modules that read the logs of ``plan``. Raise ImportError or OSError.

    The caller can still refuse the configuration. The same error in a running source would end the daemon.
    """
    import ringfence.parse.log  # noqa: PLC0415 - they take memory, and some hosts have no log
    import ringfence.sources.log_file  # noqa: PLC0415 - the same

    if plan.journal:
        import ringfence.sources.journal  # noqa: F401, PLC0415 - the same


def _missing(check: PathCheck) -> Condition:
    """Return the condition to show while no log is found."""
    fix = "give Asterisk the channel of contrib/asterisk/ringfence.logger.conf, or set [asterisk.logs] paths"
    if check.forbidden:
        return Condition(State.WAITING, f"the logs in {check.forbidden[0].parent} cannot be read; fix: {fix}")
    return Condition(State.WAITING, f"no Asterisk log was found; fix: {fix}")
