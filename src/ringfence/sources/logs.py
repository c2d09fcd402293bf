"""The logs of one Asterisk: those that are named, the journal, or the files that are found.

What is found, where nothing is named:

- the channel of ringfence's own, ``/var/log/ringfence/ringfence`` or ``/var/log/asterisk/ringfence``. It has
  the levels that tell and no packets, so where it is, nothing else is read: ``full`` and ``messages`` carry
  the same lines again, and beside them text that callers wrote. It costs time and shows nothing more.
- else ``security``, ``messages`` and ``messages.log`` in ``/var/log/asterisk``, each for its levels, and
  ``full`` where neither of the last two is.

It is looked for again every ``LOOK_EVERY`` seconds, so a channel that Asterisk is given later is read without
a restart. A file that was read once is not given up because it is gone for a moment, as in a rotation. What
came into being since the last look is read from its start, what was there at the first one from its end.

A log that is told of by two names is read once. The parsers are loaded when there is something to read.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from ringfence.model import SecurityEvent, SourceId
from ringfence.parse.reading import LogCounts
from ringfence.sources.state import Condition, State

if TYPE_CHECKING:
    from ringfence.parse.custom import Custom
    from ringfence.sources.hearing import AlarmCount
    from ringfence.sources.journal import JournalSource
    from ringfence.sources.logfile import LogFileSource

LOOK_EVERY = 5.0

OWN = (Path("/var/log/ringfence/ringfence"), Path("/var/log/asterisk/ringfence"))
SECURITY = Path("/var/log/asterisk/security")
MESSAGES = (Path("/var/log/asterisk/messages"), Path("/var/log/asterisk/messages.log"))
FULL = Path("/var/log/asterisk/full")
PLACES = (*OWN, SECURITY, *MESSAGES, FULL)

Key = tuple[int, int]
"""Device and inode: one file, whatever its names."""


class LogSource(Protocol):
    """What is told of a log: a file, the journal, or that there is none."""

    @property
    def id(self) -> SourceId:
        """Which Asterisk, and by which way."""

    @property
    def condition(self) -> Condition:
        """How it is."""

    @property
    def counts(self) -> LogCounts:
        """What was read since the start."""

    @property
    def alarms(self) -> "Mapping[str, AlarmCount]":
        """What is wrong with it as a witness, in words, with how often and when last."""


@frozen
class LogPlan:
    """Which logs of ``asterisk`` are to be read, and how. ``paths`` is None where they are to be found."""

    asterisk: str
    paths: tuple[Path, ...] | None = None
    journal: bool = False
    timezone: tzinfo | None = None
    customs: "tuple[Custom, ...]" = ()
    places: tuple[Path, ...] = field(default=PLACES, kw_only=True)


@frozen
class Look:
    """What one look at the places found: the files that may be read, those that may not, and none at all."""

    readable: Mapping[Path, Key]
    forbidden: tuple[Path, ...]
    absent: tuple[Path, ...]


def look_at(places: Iterable[Path]) -> Look:
    """See which of these files are there, and whether this process may read them. Opens none."""
    readable: dict[Path, Key] = {}
    forbidden, absent = [], []
    for place in places:
        try:
            about = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            absent.append(place)
        except OSError:
            forbidden.append(place)
        else:
            if os.access(place, os.R_OK, effective_ids=True):
                readable[place] = (about.st_dev, about.st_ino)
            else:
                forbidden.append(place)
    return Look(readable, tuple(forbidden), tuple(absent))


def choose(there: Collection[Path], places: Sequence[Path] = PLACES) -> tuple[Path, ...]:
    """Choose which of the files that are there to read. ``places`` is in the order of PLACES."""
    *own, security, messages, newer, full = places
    chosen = [place for place in own if place in there]
    if not chosen:
        chosen = [place for place in (messages, newer) if place in there] or [full]
        chosen = [place for place in (security, *chosen) if place in there]
    return tuple(chosen)


class Logs:
    """The logs of one Asterisk, each a source of its own. With any to read :meth:`run` never ends by itself.

    ``positions`` gives what ``remember`` was told before, by this process or an earlier one. ``sink`` is that
    of :class:`ringfence.sources.logfile.LogFileSource`. ``after``: who reads the same logs still, and is
    waited for, since two would tell everything twice.

    It is a source itself as long as nothing is found, so that ``status`` can say so.
    """

    def __init__(
        self,
        plan: LogPlan,
        sink: Callable[[Sequence[SecurityEvent], float], None],
        positions: Callable[[], Mapping[str, str]] = dict,
        remember: Callable[[str, str], None] = lambda _key, _position: None,
        after: Collection[asyncio.Task[None]] = (),
    ) -> None:
        self.id = SourceId(plan.asterisk, "log")
        self.condition = Condition(State.CONNECTING)
        self.counts = LogCounts()
        self.alarms: Mapping[str, AlarmCount] = {}
        self._plan = plan
        self._sink = sink
        self._positions = positions
        self._remember = remember
        self._after = after
        self._files: dict[Path, LogFileSource] = {}
        self._tasks: dict[Path, asyncio.Task[None]] = {}
        self._keys: dict[Path, Key] = {}
        self._journal: JournalSource | None = None
        self._absent: frozenset[Path] = frozenset()

    @property
    def sources(self) -> tuple[LogSource, ...]:
        """What is read now, or this itself where a file is missed."""
        found: list[LogSource] = list(self._files.values())
        if self._journal is not None:
            found.append(self._journal)
        return tuple(found) if found or self._plan.paths is not None else (self,)

    async def run(self) -> None:
        """Read until cancelled."""
        if self._after:
            await asyncio.wait(self._after)
        async with asyncio.TaskGroup() as group:
            if self._plan.journal:
                self._begin_journal(group)
            for path in dict.fromkeys(self._plan.paths or ()):
                self._begin(group, path, new=False)
            while self._plan.paths is None:
                self._find(group)
                await asyncio.sleep(LOOK_EVERY)

    def _find(self, group: asyncio.TaskGroup) -> None:
        """Look which files are there now, begin those that are to be read, and end those that are not."""
        look = look_at(self._plan.places)
        there = {**self._keys, **look.readable}  # a file that is read stays one, also while it is rotated
        names = {key: path for path, key in reversed(there.items())}
        wanted = choose([path for path, key in there.items() if names[key] == path], self._plan.places)
        for path in [path for path in self._files if path not in wanted]:
            self._tasks.pop(path).cancel()
            del self._files[path], self._keys[path]
        for path in wanted:
            if path not in self._files:
                self._begin(group, path, new=path in self._absent)
            self._keys[path] = there[path]
        self._absent = frozenset(look.absent)
        self.condition = _missing(look)

    def _begin(self, group: asyncio.TaskGroup, path: Path, *, new: bool) -> None:
        from ringfence.parse.log import LogReader  # noqa: PLC0415 - loaded when there is something to read
        from ringfence.sources.logfile import LogFileSource, position_key  # noqa: PLC0415 - the same
        from ringfence.sources.tail import NOWHERE  # noqa: PLC0415 - the same

        source = SourceId(self._plan.asterisk, f"log:{path}")
        reader = LogReader(source, timezone=self._plan.timezone, customs=self._plan.customs)
        position = self._positions().get(position_key(source, path), NOWHERE.dumped() if new else None)
        file = LogFileSource(source, path, reader, self._sink, position, self._remember)
        self._files[path] = file
        self._tasks[path] = group.create_task(file.run(), name=str(source))

    def _begin_journal(self, group: asyncio.TaskGroup) -> None:
        from ringfence.parse.log import LogReader  # noqa: PLC0415 - loaded when there is something to read
        from ringfence.sources.journal import JournalSource, position_key  # noqa: PLC0415 - the same

        source = SourceId(self._plan.asterisk, "journal")
        reader = LogReader(source, timezone=self._plan.timezone, customs=self._plan.customs)
        position = self._positions().get(position_key(source))
        self._journal = JournalSource(source, reader, self._sink, position, self._remember)
        group.create_task(self._journal.run(), name=str(source))


def _missing(look: Look) -> Condition:
    """Say that no log is found; shown as long as that is so."""
    mend = "give Asterisk the channel of contrib/asterisk/ringfence.logger.conf, or set [asterisk.logs] paths"
    if look.forbidden:
        return Condition(State.WAITING, f"{look.forbidden[0].parent}: what is there may not be read: {mend}")
    return Condition(State.WAITING, f"no log of Asterisk's is here: {mend}")
