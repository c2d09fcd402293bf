"""Whether an administrator has switched enforcement off, also while the database takes no writes.

``ringfence off`` is for emergencies, so it must hold on a full disk too. The database has the switch. While
it cannot record the latest command, an empty file beside the control socket has it: that folder is on a
tmpfs. The file survives a restart of the daemon, but not a reboot. Without such a folder, the daemon's memory
has the command.
"""

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

from ringfence.errors import StoreError
from ringfence.store.file import owner_of
from ringfence.store.tables import SavedState
from ringfence.store.writer import BestEffort

_NAMES = {True: "switched-off", False: "switched-on"}
_WRITABLE_BY_OTHERS = 0o022


class OffSwitch:
    """The switch. ``folder`` is that of the control socket; None: only the database and memory have it."""

    def __init__(self, state: SavedState, best_effort: BestEffort, folder: Path | None) -> None:
        self._state = state
        self._best_effort = best_effort
        self._folder = folder
        self._in_memory: bool | None = None
        self._known = False
        self._lock = threading.Lock()

    @property
    def is_off(self) -> bool:
        """Whether enforcement is switched off. If that cannot be read, the last known value counts."""
        held = self._held()
        self._known = self._best_effort.read(self._state.switched_off, self._known) if held is None else held
        return self._known

    @property
    def is_unrecorded(self) -> bool:
        """Whether the latest command is not in the database."""
        return self._held() is not None

    def set(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Record whether enforcement is switched off, before this returns.

        If the database cannot record it, the command holds nevertheless, and is recorded later.
        """
        with self._lock:
            self._known = value
            try:
                self._state.set_switched_off(value)
            except StoreError:
                failed = True
            else:
                failed = False
            if not failed and not self._best_effort.memory_reason:
                self._clear()
                return
            self._in_memory = None if hold(self._folder, value) else value
        if failed:
            self._best_effort.write(self._record, key="switch")

    def settle(self) -> None:
        """Queue a write that records a command of an earlier run that only the file has."""
        if self.is_unrecorded and not self._best_effort.memory_reason:
            self._best_effort.write(self._record, key="switch")

    def _record(self) -> None:
        with self._lock:
            held = self._held()
            if held is not None:
                self._state.set_switched_off(held)
                self._clear()

    def _held(self) -> bool | None:
        """Return the latest command if the database may lack it, otherwise None."""
        if self._in_memory is not None:
            return self._in_memory
        return _held_in(self._folder)

    def _clear(self) -> None:
        self._in_memory = None
        if self._folder is not None and _held_in(self._folder) is not None:
            with suppress(OSError), owner_of(self._folder / _NAMES[True]).acting():
                for name in _NAMES.values():
                    (self._folder / name).unlink(missing_ok=True)


def hold(folder: Path | None, value: bool) -> bool:  # noqa: FBT001 - the value itself
    """Let the file in ``folder`` have the switch; return whether that was possible.

    The file is empty, so a full tmpfs has room for it.
    """
    if folder is None or not _is_private(folder):
        return False
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with owner_of(folder / _NAMES[value]).acting():
            os.close(os.open(folder / _NAMES[value], flags, 0o600))
            (folder / _NAMES[not value]).unlink(missing_ok=True)
    except (OSError, StoreError):
        return _held_in(folder) is value
    return True


def _held_in(folder: Path | None) -> bool | None:
    """Return the command that a file in ``folder`` has, None without one. If it has both, off counts."""
    if folder is None or not _is_private(folder):
        return None
    return next((value for value, name in _NAMES.items() if os.path.lexists(folder / name)), None)


def _is_private(folder: Path) -> bool:
    """Whether only the owner of ``folder`` and root can put files there."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and not found.st_mode & _WRITABLE_BY_OTHERS
