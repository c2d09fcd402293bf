"""One log file of one Asterisk as a source: it waits for changes, reports the condition, stores the position.

The file is read line by line, across rotation and truncation (``log_rotation.py``), and never twice.

inotify (asyncinotify, 70 µs from a write to the wake-up) reports writes to the file, and new names in its
folder. The file is also checked every ``LOOK_EVERY`` seconds, because inotify misses some changes (network
file systems, an overflow, a folder that does not exist yet). So a missed change only delays the lines. If the
kernel allows this user no more instances or watches of inotify, the file is checked every ``LOOK_BLIND``
seconds, and the condition reports it.

While AMI and the wire deliver everything that a log could add, lines may gather for ``GATHER`` seconds:
each wake-up costs more than the line that caused it. A line that counts ends this, and so does a set
``hurry``.

After each piece of the log other tasks may run. So reading a log of gigabytes does not delay the manager
interface.
"""

import asyncio
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncinotify import Inotify, Mask, Watch

from ringfence.clock import Backoff, until_tick
from ringfence.gathering import patient
from ringfence.sources.log_ingest import FollowedLog, LogIngest
from ringfence.sources.log_rotation import NOWHERE, Position, RotatingLog
from ringfence.sources.logs import Positions
from ringfence.sources.state import Condition, State
from ringfence.values.event import SourceId

LOOK_EVERY = 1.0
LOOK_BLIND = 0.1
WATCH_AGAIN = 60.0
"""Seconds after which inotify is tried again, if the kernel refused an instance or a watch."""
GATHER = 0.5
REMEMBER_EVERY = 1.0

_NAMES = Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB | Mask.ONLYDIR
_WRITING = Mask.MODIFY


class LogFileSource(FollowedLog):
    """A source that follows the log at ``path``.

    ``ingest`` parses the lines and passes on their events. It is called as soon as new lines are read, and
    not in another task, so that a ban is not delayed. If it raises an exception, which is a defect of
    ringfence, only the piece of the log that was being parsed is lost.

    ``positions`` gets the position at most once a second, and at the end. ``position`` is the text that an
    earlier process recorded under position_key(), None at the very first start. If that text is
    invalid, the file is read from its start. ``hurry`` is set while new lines must be read at once, although
    AMI delivers the same events; None: always.
    """

    def __init__(
        self,
        source: SourceId,
        path: Path,
        ingest: LogIngest,
        position: str | None = None,
        positions: Positions | None = None,
        backoff: Backoff | None = None,
        hurry: asyncio.Event | None = None,
    ) -> None:
        super().__init__(source, ingest, backoff)
        self._hurry = hurry
        self._log = self._log.bind(path=str(path))
        start = None if position is None else Position.from_text(position) or NOWHERE
        self._rotating = RotatingLog(path, ingest, start)
        self._path = path
        self._positions = positions or Positions()
        self._key = position_key(source, path)
        self._remembered = (0.0, start)
        self._inotify: Inotify | None = None
        self._watches: dict[str, Watch] = {}
        self._seen: tuple[object, object] = (None, None)
        self._blind = False
        self._idle = False

    @property
    def skipped(self) -> int:
        """The number of bytes of old lines that were skipped, because there were too many."""
        return self._rotating.skipped

    @property
    def numbers(self) -> Mapping[str, object]:
        """The numbers of events, and of skipped lines and bytes, as the status shows them."""
        return {**super().numbers, "skipped_bytes": self.skipped}

    async def run(self) -> None:
        """Follow the log until cancelled.

        At the end, lines that wait for later lines or for AMI are passed on, and the position is stored.
        """
        try:
            await super().run()
        finally:
            try:
                self._ingest.close()
            finally:
                self._save_position(now=True)
                self._rotating.close()

    async def _session(self) -> None:
        """Read the log's present and future lines until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            with self._watching():
                again = loop.time() + WATCH_AGAIN
                while not self._blind or loop.time() < again:
                    await self._follow()

    async def _follow(self) -> None:
        """Read what was written, and wait until more may be there."""
        before = self.counts.events
        try:
            await self._catch_up()
        except OSError as error:
            self._set_condition(_unreadable(self._path, error))
        self._ingest.tick()
        written = await self._wake()
        if written and self.standing_by and self.counts.events == before:
            await self._gather()

    # -- reading ----------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Read all lines that the log has now. Other tasks run after each piece."""
        while True:
            while self._rotating.step():
                self._save_position()
                await asyncio.sleep(0)
            # inotify does not report writes from before the watch, so the file is read again after a watch
            # was added.
            if not self._watch_files():
                break
        self._save_position()
        self._set_condition(self._current_condition())

    def _save_position(self, *, now: bool = False) -> None:
        """Store the position in the log if it has changed. Without ``now``, do so at most once a second."""
        last, known = self._remembered
        at = asyncio.get_running_loop().time()
        if not now and at - last < REMEMBER_EVERY:
            return
        position = self._rotating.position
        if position is not None and position != known:
            self._remembered = (at, position)
            self._positions.record(self._key, position.to_text())

    # -- waking up --------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            self._inotify = Inotify()
            self._blind = False
        except OSError:  # the kernel allows this user no more instances
            self._blind = True
        descriptor = self._inotify.fd if self._inotify is not None else -1
        try:
            self._watch_folders()
            with patient(descriptor):
                yield
        finally:
            self._watches.clear()
            self._seen = (None, None)
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None

    async def _wake(self) -> bool:
        """Wait for a change, the ingest's next tick, or the next check; return whether it is a change."""
        look = until_tick(LOOK_BLIND if self._blind else LOOK_EVERY)
        due_in = self._ingest.due_in
        self._idle = False
        try:
            async with asyncio.timeout(look if due_in is None else min(look, due_in)):
                await (self._inotify.get() if self._inotify is not None else asyncio.Future())
        except TimeoutError:
            self._idle = due_in is None
            self._watch_folders()
            return False
        return True

    async def _gather(self) -> None:
        """Wait ``GATHER`` seconds so that lines are read together, unless they must be read at once."""
        if self._hurry is not None and not self._hurry.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._hurry.wait()

    def _watch_folders(self) -> None:
        """Watch the log's folder for new names. If the log is a link, also watch the linked file's folder."""
        self._watch("names", self._path.parent, _NAMES)
        target = Path(os.path.realpath(self._path)).parent
        if target != self._path.parent:
            self._watch("target", target, _NAMES)

    def _watch_files(self) -> bool:
        """Watch two files for writes: the one that is read (even if renamed), and the one now at the path.

        Return whether one of them is another file than at the last call.
        """
        present, newest = self._rotating.present, self._rotating.newest
        seen = (present and present.key, newest)
        if seen == self._seen:
            return False
        self._seen = seen
        self._watch_folders()
        if present is not None:
            self._watch("present", Path(f"/proc/self/fd/{present.fd}"), _WRITING)
        if newest is not None:
            self._watch("newest", self._path, _WRITING)
        return True

    def _watch(self, name: str, path: Path, mask: Mask) -> None:
        if self._inotify is None:
            return
        try:
            watch = self._inotify.add_watch(path, mask)
        except OSError as error:  # the file is gone or unreadable: the regular check handles it
            self._blind = self._blind or error.errno == errno.ENOSPC  # no more watches are allowed
            return
        old, self._watches[name] = self._watches.get(name), watch
        if old is not None and all(old.wd != kept.wd for kept in self._watches.values()):
            with suppress(OSError):  # the kernel has removed the watch with its file
                self._inotify.rm_watch(old)

    # -- what is reported -------------------------------------------------------------------------------

    def _current_condition(self) -> Condition:
        present = self._rotating.present
        if present is None:
            if self._rotating.position != NOWHERE:
                return Condition(State.UNREADABLE, f"{self._path} was read before, and is gone")
            return Condition(State.WAITING, f"{self._path} does not exist yet")
        if self._idle and self._rotating.newest is None:
            return Condition(State.WAITING, f"{self._path} was removed and not replaced")
        disk = os.fstatvfs(present.fd)
        if disk.f_blocks and not disk.f_bavail:
            return Condition(State.FULL, f"the disk of {self._path} is full; fix: make room on it")
        if self._blind:
            return Condition(
                State.LISTENING, f"{self._path}, slowly; fix: raise the limits of fs.inotify (sysctl)"
            )
        return Condition(State.LISTENING, str(self._path))


def _unreadable(path: Path, error: OSError) -> Condition:
    """Return the condition of a log that cannot be read, with the fix."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        detail = f"{path} cannot be read: permission denied; fix: give ringfence's user an ACL on it"
        return Condition(State.UNREADABLE, detail)
    return Condition(State.UNREADABLE, f"{path} cannot be read: {error.strerror}")


def position_key(source: SourceId, path: Path) -> str:
    """Return the key under which the position in a log is stored."""
    return f"{source} {path}"
