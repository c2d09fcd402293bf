"""A writer thread for delayed work: in order, and without loss at the end."""

import threading
from functools import partial

import pytest
from structlog.testing import capture_logs

from ringfence.store.writer import Writer


def test_writes_are_done_in_order_before_the_end() -> None:
    """All actions are done one after the other before the block ends."""
    done: list[int] = []
    with Writer() as later:
        for number in range(1_000):
            later(partial(done.append, number))

    assert done == list(range(1_000))


def test_a_caller_does_not_wait() -> None:
    """A slow action delays neither the caller nor the caller's next steps."""
    slow = threading.Event()
    done: list[str] = []
    with Writer() as later:
        later(slow.wait)
        later(lambda: done.append("after"))
        waited = list(done)
        slow.set()

    assert (waited, done) == ([], ["after"])


def test_a_defect_is_logged_and_stops_nothing() -> None:
    """An exception is logged in full, and the next action is done."""
    done: list[str] = []
    with capture_logs() as logs, Writer() as later:
        later(lambda: 1 / 0)
        later(lambda: done.append("next"))

    assert done == ["next"]
    assert [(entry["event"], type(entry["exc_info"]).__name__) for entry in logs] == [
        ("writer.defect", "ZeroDivisionError")
    ]


def test_the_end_does_not_wait_for_every_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that the disk has no time for are cancelled at the end, and are no defects."""
    monkeypatch.setattr("ringfence.store.writer.WAIT_AT_END", 0.0)
    begun, slow, done = threading.Event(), threading.Event(), list[str]()

    def run() -> bool:
        begun.set()
        return slow.wait()

    with capture_logs() as logs, Writer() as later:
        running = later(run)
        begun.wait()
        waiting = later(lambda: done.append("late"))
        waiting.add_done_callback(lambda _: slow.set())

    assert (running.result(), waiting.cancelled(), done, logs) == (True, True, [], [])
