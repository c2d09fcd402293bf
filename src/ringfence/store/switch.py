"""Whether an administrator has switched enforcement off, also while the database takes no writes.

``ringfence off`` is for emergencies, so it must hold at once, and on a full disk too. The database stores the
switch. Until the database has recorded the latest command, an empty file beside the control socket stores
that command. That folder is on a tmpfs, so the file survives a restart of the daemon, but not a reboot.
Without such a folder, the daemon's memory stores the command.
"""

import os
import stat
import threading
from pathlib import Path

from ringfence.errors import StoreError
from ringfence.store.owner import owner_of
from ringfence.store.tables import SavedState
from ringfence.store.writer import BestEffort

_NAMES = {True: "switched-off", False: "switched-on"}
_WRITABLE_BY_OTHERS = 0o022


class OffSwitch:
    """Whether enforcement is off: in memory, in the database, and in a file of ``folder`` (None: no file)."""

    def __init__(self, state: SavedState, best_effort: BestEffort, folder: Path | None) -> None:
        self._state = state
        self._best_effort = best_effort
        self._folder = folder
        self._in_memory: bool | None = None
        self._known = False
        self._lock = threading.Lock()

    @property
    def is_off(self) -> bool:
        """Whether enforcement is switched off; the last known value if the database cannot be read."""
        held = self._held()
        self._known = self._best_effort.read(self._state.switched_off, self._known) if held is None else held
        return self._known

    @property
    def is_unrecorded(self) -> bool:
        """Whether the database lacks the latest command to switch enforcement off or on."""
        return self._held() is not None

    def set(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Switch enforcement off (True) or on at once, and queue the record; never wait for the database."""
        with self._lock:
            self._known = value
            self._in_memory = None if hold(self._folder, value) else value
        self._best_effort.write(self._record, key="switch")

    def settle(self) -> None:
        """Queue a write of the command (off or on) that an earlier run left in a file, if there is one."""
        if self.is_unrecorded and not self._best_effort.memory_reason:
            self._best_effort.write(self._record, key="switch")

    def _record(self) -> None:
        held = self._held()
        if held is None:
            return
        self._state.set_switched_off(held)
        with self._lock:
            # If there is a later command meanwhile, its own write follows.
            if self._held() is held and not self._best_effort.memory_reason:
                self._best_effort.finish_record(self._clear, held)

    def _held(self) -> bool | None:
        """Return the latest command (True: enforcement off) that the database may lack, otherwise None."""
        if self._in_memory is not None:
            return self._in_memory
        return _held_in(self._folder)

    def _clear(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Remove the file with the command, because the database has the command ``value`` (True: off).

        If the removal fails, record ``value`` in the file. Raise StoreError if that fails, too.
        """
        if self._folder is not None and (old := _held_in(self._folder)) is not None:
            try:
                with owner_of(self._folder / _NAMES[True]).acting():
                    for name in _NAMES.values():
                        (self._folder / name).unlink(missing_ok=True)
            except (OSError, StoreError) as error:
                if not hold(self._folder, value):
                    self._in_memory = value
                    raise StoreError(
                        f"{self._folder / _NAMES[old]} cannot be removed, and the next start obeys it"
                        f" ({error}); fix: remove it, and repeat the command"
                    ) from error
        self._in_memory = None


def hold(folder: Path | None, value: bool) -> bool:  # noqa: FBT001 - the value itself
    """Record in a file in ``folder`` that enforcement is off (True) or on; return whether that was possible.

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
    """Return the command that a file in ``folder`` records: True switches enforcement off, False on.

    Return None without such a file, or if other users could write there. If both files exist, off wins.
    """
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
