"""The follower of one growing log: it waits for changes, reports the condition, and stores the position.

:mod:`ringfence.sources.log_rotation` reads; this module waits. inotify (asyncinotify, 70 µs from a write to
the wake-up) reports writes to the file, and new names in its folder. The file is also checked every
``LOOK_EVERY`` seconds, because inotify misses some changes (network file systems, an overflow, a folder that
does not exist yet). So a missed change only delays the lines. If the kernel allows this user no more
instances or watches of inotify, the file is checked every ``LOOK_BLIND`` seconds, and the condition reports
it.

After each piece of the log other tasks may run. So reading a log of gigabytes does not delay the manager
interface.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from asyncinotify import Inotify, Mask, Watch

from ringfence.sources.log_rotation import LineConsumer, RotatingLog
from ringfence.sources.log_tail import NOWHERE, Position
from ringfence.sources.state import Condition, State

LOOK_EVERY = 1.0
LOOK_BLIND = 0.1
REMEMBER_EVERY = 1.0

_NAMES = Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB | Mask.ONLYDIR
_WRITING = Mask.MODIFY


class TimedReader(LineConsumer, Protocol):
    """A consumer that may hold lines for a while, until more lines come."""

    @property
    def due_in(self) -> float | None:
        """The seconds until :meth:`tick` has something to do; None if nothing waits."""

    def tick(self) -> None:
        """Pass on the lines that have waited long enough."""


class LogFollower:
    """Follows the log at ``path``, and passes its lines to ``reader``.

    :meth:`run` may run again after it ended; :meth:`close` ends the work for good. ``remember`` is called
    with the position as text, at most once a second, and at the end. ``position`` is the text that an earlier
    process passed to ``remember``, None at the very first start. If that text is invalid, the file is read
    from its start. ``on_condition`` is called when the condition changes.
    """

    def __init__(
        self,
        path: Path,
        reader: TimedReader,
        position: str | None,
        remember: Callable[[str], None],
        on_condition: Callable[[Condition], None],
    ) -> None:
        self.condition = Condition(State.CONNECTING)
        start = None if position is None else Position.from_text(position) or NOWHERE
        self.log = RotatingLog(path, reader, start)
        self._path = path
        self._reader = reader
        self._remember = remember
        self._on_condition = on_condition
        self._remembered = (0.0, start)
        self._inotify: Inotify | None = None
        self._watches: dict[str, Watch] = {}
        self._seen: tuple[object, object] = (None, None)
        self._blind = False
        self._idle = False

    async def run(self) -> None:
        """Read present and future lines until cancelled."""
        self.condition = Condition(State.CONNECTING)
        with self._watching():
            while True:
                try:
                    await self._catch_up()
                except OSError as error:
                    self._set_condition(_unreadable(self._path, error))
                self._reader.tick()
                await self._wake()

    def close(self) -> None:
        """Store the position, and close the file."""
        self._save_position(now=True)
        self.log.close()

    # -- reading ----------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Read all lines that are there now. Other tasks run after each piece."""
        while True:
            while self.log.step():
                self._save_position()
                await asyncio.sleep(0)
            # inotify does not report writes from before the watch, so the file is read again after a watch
            # was added.
            if not self._watch_files():
                break
        self._save_position()
        self._set_condition(self._current_condition())

    def _save_position(self, *, now: bool = False) -> None:
        """Store the position if it has changed: at once with ``now``, else at most once a second."""
        last, known = self._remembered
        time = asyncio.get_running_loop().time()
        if not now and time - last < REMEMBER_EVERY:
            return
        position = self.log.position
        if position is not None and position != known:
            self._remembered = (time, position)
            self._remember(position.to_text())

    # -- waking up --------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            self._inotify = Inotify()
            self._blind = False
        except OSError:  # the kernel allows this user no more instances
            self._blind = True
        try:
            self._watch_folders()
            yield
        finally:
            self._watches.clear()
            self._seen = (None, None)
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None

    async def _wake(self) -> None:
        """Wait for an event of inotify, for the reader's next tick, or for the next check."""
        look = LOOK_BLIND if self._blind else LOOK_EVERY
        due_in = self._reader.due_in
        self._idle = False
        try:
            async with asyncio.timeout(look if due_in is None else min(look, due_in)):
                await (self._inotify.get() if self._inotify is not None else asyncio.Future())
        except TimeoutError:
            self._idle = due_in is None
            self._watch_folders()

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
        present, newest = self.log.present, self.log.newest
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

    def _watch(self, what: str, path: Path, mask: Mask) -> None:
        if self._inotify is None:
            return
        try:
            watch = self._inotify.add_watch(path, mask)
        except OSError as error:  # the file is gone or unreadable: the regular check handles it
            self._blind = self._blind or error.errno == errno.ENOSPC  # no more watches are allowed
            return
        old, self._watches[what] = self._watches.get(what), watch
        if old is not None and all(old.wd != kept.wd for kept in self._watches.values()):
            with suppress(OSError):  # the kernel has removed the watch with its file
                self._inotify.rm_watch(old)

    # -- what is reported -------------------------------------------------------------------------------

    def _current_condition(self) -> Condition:
        present = self.log.present
        if present is None:
            return Condition(State.WAITING, f"{self._path} does not exist yet")
        if self._idle and self.log.newest is None:
            return Condition(State.WAITING, f"{self._path} was removed and not replaced")
        disk = os.fstatvfs(present.fd)
        if disk.f_blocks and not disk.f_bavail:
            return Condition(State.FULL, f"the disk of {self._path} is full; fix: make room on it")
        if self._blind:
            return Condition(
                State.LISTENING, f"{self._path}, slowly; fix: raise the limits of fs.inotify (sysctl)"
            )
        return Condition(State.LISTENING, str(self._path))

    def _set_condition(self, condition: Condition) -> None:
        if condition != self.condition:
            self.condition = condition
            self._on_condition(condition)


def _unreadable(path: Path, error: OSError) -> Condition:
    """Return the condition of a log that cannot be read, with the fix."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        detail = f"{path} cannot be read: permission denied; fix: give ringfence's user an ACL on it"
        return Condition(State.UNREADABLE, detail)
    return Condition(State.UNREADABLE, f"{path} cannot be read: {error.strerror}")
