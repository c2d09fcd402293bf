"""Best-effort access to the database: delayed writes, failures, and the error that it shows."""

from collections.abc import Callable
from pathlib import Path

from structlog.testing import capture_logs

from ringfence.errors import StoreDamagedError, StoreError
from ringfence.store.writer import BestEffort

Action = Callable[[], object]
PATH = Path("/nowhere/ringfence.db")


def fail() -> str:
    """Fail as on a full disk."""
    raise StoreError("disk full")


def test_writes_wait_until_they_are_run() -> None:
    """A write is passed on, and its result is the result of the queue."""
    waiting: list[Action] = []
    written: list[int] = []
    best_effort = BestEffort(PATH, waiting.append)
    assert best_effort.write(lambda: written.append(1)) is None
    best_effort.write_now(lambda: written.append(2))
    assert written == [2]

    waiting[0]()
    assert written == [2, 1]


def test_an_error_is_logged_once_and_shown() -> None:
    """Each read still returns a value; the error disappears when both a read and a write succeed."""
    best_effort = BestEffort(PATH)
    with capture_logs() as logs:
        assert best_effort.read(fail, "nothing") == "nothing"
        best_effort.write(fail)
        assert best_effort.error == "disk full"
        best_effort.write(lambda: None)
        best_effort.read(lambda: 0, 0)

    assert best_effort.error == ""
    assert logs == [{"event": "store.failed", "log_level": "error", "error": "disk full"}]


def test_reading_does_not_clear_a_write_error() -> None:
    """A failed write is shown until a write succeeds, whatever is read in between."""
    best_effort = BestEffort(PATH)
    with capture_logs() as logs:
        for _ in range(2):
            best_effort.write(fail)
            assert best_effort.read(lambda: 0, 1) == 0
            assert "full" in best_effort.error
    best_effort.write(lambda: None)

    assert best_effort.error == ""
    assert [entry["event"] for entry in logs] == ["store.failed"]


def test_damage_stays_known_after_later_reads() -> None:
    """Damage that a read met stays known when later reads succeed, because only a restart fixes it."""

    def damaged() -> str:
        raise StoreDamagedError("malformed; fix: restart ringfence")

    best_effort = BestEffort(PATH)
    with capture_logs():
        best_effort.read(damaged, "")
        best_effort.read(lambda: "", "")

    assert (best_effort.error, best_effort.damage) == ("", "malformed; fix: restart ringfence")
