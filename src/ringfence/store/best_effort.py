"""Best-effort access to the database: writes are queued, errors are logged and never raised.

Writes run later, in order, in a thread of their own. An error is logged once, shown as
:attr:`BestEffort.error`, and stops no ban, because the kernel has acknowledged it already.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from ringfence.errors import StoreDamagedError, StoreError

_T = TypeVar("_T")


def at_once(action: Callable[[], object]) -> None:
    """Run a write now, for callers that have no queue."""
    action()


class BestEffort:
    """Runs reads and writes of the database at ``path``, and owns their errors. ``later`` runs a write."""

    def __init__(self, path: Path, later: Callable[[Callable[[], object]], object] = at_once) -> None:
        self.damage = ""
        """A message about damage that a read or write met, with what to do; "" if there is none."""
        self.unreadable = ""
        """A message about bans that were unreadable at the start."""
        self._errors = {"writing": "", "reading": ""}
        self._path = path
        self._later = later
        self._log = structlog.get_logger()

    @property
    def error(self) -> str:
        """The present error, "" if none. A full disk can still be read, so reading does not clear it."""
        return self._errors["writing"] or self._errors["reading"]

    def write(self, action: Callable[[], object]) -> object:
        """Queue a write; return what ``later`` returned."""
        return self._later(lambda: self._done(action, None, "writing"))

    def write_now(self, action: Callable[[], object]) -> None:
        """Write; done when this returns."""
        self._done(action, None, "writing")

    def read(self, action: Callable[[], _T], fallback: _T) -> _T:
        """Return the result of a read; ``fallback`` if it fails."""
        return self._done(action, fallback, "reading")

    def report(self, error: StoreError) -> None:
        """Report an error of a read that this object did not run."""
        self._failed(error, "reading")

    def report_unreadable(self, number: int) -> None:
        """Report that this number of bans was unreadable at the start."""
        self.unreadable = f"{number} bans in {self._path} are invalid and are left out"
        self._log.error("store.failed", error=self.unreadable)

    def _done(self, action: Callable[[], _T], fallback: _T, operation: str) -> _T:
        try:
            result = action()
        except StoreError as error:
            self._failed(error, operation)
            return fallback
        self._errors[operation] = ""
        return result

    def _failed(self, error: StoreError, operation: str) -> None:
        known = str(error) in self._errors.values()
        self._errors[operation] = str(error)
        if isinstance(error, StoreDamagedError):
            self.damage = str(error)
        if not known:
            self._log.error("store.failed", error=str(error))
