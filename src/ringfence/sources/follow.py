"""One log followed as it grows: when to look, what to tell of it, and what to remember.

What is read is :mod:`ringfence.sources.trail`'s; this waits for it. inotify (asyncinotify, which takes 70 µs
from a write to the wake-up) tells of writing to the file, and of names that come into its folder. Every
``LOOK_EVERY`` seconds it is looked at all the same, for what inotify does not tell (network file systems, an
overflow, a folder that is not there yet), so a lost wake-up is late and never lost. Where the user has no
inotify instance left the look is every ``LOOK_BLIND`` seconds, and the condition says so.

After each piece it is everybody else's turn: a log of gigabytes delays no manager interface.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from asyncinotify import Inotify, Mask, Watch

from ringfence.sources.state import Condition, State
from ringfence.sources.tail import NOWHERE, Position
from ringfence.sources.trail import Reader, Trail

LOOK_EVERY = 1.0
LOOK_BLIND = 0.1
REMEMBER_EVERY = 1.0

_NAMES = Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB | Mask.ONLYDIR
_WRITING = Mask.MODIFY


class PatientReader(Reader, Protocol):
    """A reader that may hold back what it was given until more comes, for a while."""

    @property
    def patience(self) -> float | None:
        """In how many seconds :meth:`tick` has something to do; None where it has nothing."""

    def tick(self) -> None:
        """Hand on what has waited long enough."""


class Follower:
    """Follows one path. :meth:`run` may be run again after it ended; :meth:`close` ends it for good.

    ``position`` is what ``remember`` was given by an earlier process, None at the very first start; text that
    is no position is one that fits nowhere. ``became`` is told when the condition changes.
    """

    def __init__(
        self,
        path: Path,
        reader: PatientReader,
        position: str | None,
        remember: Callable[[str], None],
        became: Callable[[Condition], None],
    ) -> None:
        self.condition = Condition(State.CONNECTING)
        start = None if position is None else Position.loaded(position) or NOWHERE
        self.trail = Trail(path, reader, start)
        self._path = path
        self._reader = reader
        self._remember = remember
        self._became = became
        self._remembered = (0.0, start)
        self._eyes: Inotify | None = None
        self._watches: dict[str, Watch] = {}
        self._seen: tuple[object, object] = (None, None)
        self._blind = False
        self._idle = False

    async def run(self) -> None:
        """Read what is there and what comes, until cancelled."""
        self.condition = Condition(State.CONNECTING)
        with self._watching():
            while True:
                try:
                    await self._catch_up()
                except OSError as error:
                    self._become(_trouble(self._path, error))
                self._reader.tick()
                await self._wake()

    def close(self) -> None:
        """Give the file back, and have the place remembered."""
        self._note_position(now=True)
        self.trail.close()

    # -- reading ----------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Read everything that there is to read; after each piece it is somebody else's turn."""
        while True:
            while self.trail.step():
                self._note_position()
                await asyncio.sleep(0)
            # What was written before a watch was there is not told of: look once more after adding one.
            if not self._watch_files():
                break
        self._note_position()
        self._become(self._how_it_is())

    def _note_position(self, *, now: bool = False) -> None:
        """Have the place remembered, where it is another one and not too soon after the last."""
        last, known = self._remembered
        time = asyncio.get_running_loop().time()
        if not now and time - last < REMEMBER_EVERY:
            return
        position = self.trail.position
        if position is not None and position != known:
            self._remembered = (time, position)
            self._remember(position.dumped())

    # -- waking up --------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            self._eyes = Inotify()
            self._blind = False
        except OSError:  # the user's instances are used up
            self._blind = True
        try:
            self._watch_folders()
            yield
        finally:
            self._watches.clear()
            self._seen = (None, None)
            if self._eyes is not None:
                self._eyes.close()
                self._eyes = None

    async def _wake(self) -> None:
        """Wait until something happened, until the reader has waited enough, or until it is time to look."""
        look = LOOK_BLIND if self._blind else LOOK_EVERY
        patience = self._reader.patience
        self._idle = False
        try:
            async with asyncio.timeout(look if patience is None else min(look, patience)):
                await (self._eyes.get() if self._eyes is not None else asyncio.Future())
        except TimeoutError:
            self._idle = patience is None
            self._watch_folders()

    def _watch_folders(self) -> None:
        """Watch the folder of the name, and that of the file where the name is a link."""
        self._watch("names", self._path.parent, _NAMES)
        target = Path(os.path.realpath(self._path)).parent
        if target != self._path.parent:
            self._watch("target", target, _NAMES)

    def _watch_files(self) -> bool:
        """Watch the file that is read, by whatever name, and the next one; False if it is so already."""
        present, newest = self.trail.present, self.trail.newest
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
        if self._eyes is None:
            return
        try:
            watch = self._eyes.add_watch(path, mask)
        except OSError as error:  # gone, or not to be read: it is looked at all the same
            self._blind = self._blind or error.errno == errno.ENOSPC  # the user's watches are used up
            return
        old, self._watches[what] = self._watches.get(what), watch
        if old is not None and all(old.wd != kept.wd for kept in self._watches.values()):
            with suppress(OSError):  # the kernel has dropped it with its file
                self._eyes.rm_watch(old)

    # -- what is told -----------------------------------------------------------------------------------

    def _how_it_is(self) -> Condition:
        present = self.trail.present
        if present is None:
            return Condition(State.WAITING, f"{self._path} is not there yet")
        if self._idle and self.trail.newest is None:
            return Condition(State.WAITING, f"{self._path} was taken away, and nothing came in its place")
        disk = os.fstatvfs(present.fd)
        if disk.f_blocks and not disk.f_bavail:
            return Condition(State.FULL, f"nothing can be added to {self._path}: make room on its disk")
        if self._blind:
            return Condition(
                State.LISTENING, f"{self._path}, slowly: raise the limits of fs.inotify (sysctl)"
            )
        return Condition(State.LISTENING, str(self._path))

    def _become(self, condition: Condition) -> None:
        if condition != self.condition:
            self.condition = condition
            self._became(condition)


def _trouble(path: Path, error: OSError) -> Condition:
    """Say why a log cannot be read, and what mends it."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Condition(State.UNREADABLE, f"{path} may not be read: give ringfence's user an ACL on it")
    return Condition(State.UNREADABLE, f"{path} cannot be read: {error.strerror}")
