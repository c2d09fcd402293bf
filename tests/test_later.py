"""A thread for what may wait: in order, bounded, and nothing lost at the end."""

import threading

from structlog.testing import capture_logs

from ringfence.later import Later


def test_everything_is_done_in_order_before_it_ends() -> None:
    """What was given is done one after the other, all of it, when the block is left."""
    done: list[int] = []
    with Later() as later:
        for number in range(1_000):
            later(lambda number=number: done.append(number))  # type: ignore[misc]

    assert done == list(range(1_000))


def test_who_gives_something_does_not_wait() -> None:
    """A thing that takes its time holds up neither the giver nor what the giver does next."""
    slow = threading.Event()
    done: list[str] = []
    with Later() as later:
        later(slow.wait)
        later(lambda: done.append("after"))
        waited = list(done)
        slow.set()

    assert (waited, done) == ([], ["after"])


def test_more_than_may_wait_is_refused_and_counted() -> None:
    """Beyond the bound a thing is not done, and how many were not is known."""
    slow = threading.Event()
    done: list[int] = []
    with Later(most=3) as later:
        later(slow.wait)
        for number in range(5):
            later(lambda number=number: done.append(number))  # type: ignore[misc]
        slow.set()

    assert (done, later.refused) == ([0, 1], 3)


def test_a_defect_is_logged_and_stops_nothing() -> None:
    """What is raised is logged in full, and the next thing is done."""
    done: list[str] = []
    with capture_logs() as logs, Later() as later:
        later(lambda: 1 / 0)
        later(lambda: done.append("next"))

    assert done == ["next"]
    assert [(entry["event"], type(entry["exc_info"]).__name__) for entry in logs] == [
        ("later.defect", "ZeroDivisionError")
    ]
