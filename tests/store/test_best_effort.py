"""Best-effort access to the database: delayed writes, failures, and the error that it shows."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ringfence.errors import StoreDamagedError, StoreError
from ringfence.store.writer import BestEffort, Later, Writer, at_once

Action = Callable[[], object]
PATH = Path("/nowhere/ringfence.db")


def fail() -> str:
    """Fail as on a full disk."""
    raise StoreError("disk full")


class Disk:
    """A disk that may be full, and what was written to it."""

    def __init__(self) -> None:
        self.full = False
        self.written: list[int] = []

    def write(self, number: int) -> Action:
        """Return a write of a number."""

        def action() -> None:
            if self.full:
                fail()
            self.written.append(number)

        return action


def test_writes_wait_until_they_are_run() -> None:
    """A write is passed on, and its result is the result of the queue; a write in between keeps the order."""
    waiting: list[Action] = []
    disk = Disk()
    best_effort = BestEffort(PATH, waiting.append)
    assert best_effort.write(disk.write(1)) is None
    assert (disk.written, best_effort.waiting) == ([], 1)
    best_effort.write_now(disk.write(2))
    assert disk.written == [1, 2]

    waiting[0]()
    assert (disk.written, best_effort.waiting) == ([1, 2], 0)


def test_what_failed_is_written_later_in_order() -> None:
    """Failed writes are done before the next one that succeeds; until then the error stays, logged once."""
    disk, best_effort = Disk(), BestEffort(PATH)
    disk.full = True
    with capture_logs() as logs:
        for number in (1, 2):
            best_effort.write(disk.write(number))
            assert best_effort.read(lambda: 0, 1) == 0
            assert (best_effort.error, best_effort.takes_writes) == ("disk full", False)
        best_effort.retry()
        disk.full = False
        best_effort.write(disk.write(3))

    assert (disk.written, best_effort.error, best_effort.waiting) == ([1, 2, 3], "", 0)
    assert logs == [{"event": "store.failed", "log_level": "error", "error": "disk full"}]


def test_a_retry_writes_what_failed() -> None:
    """Without a new write, a retry is enough."""
    disk, best_effort = Disk(), BestEffort(PATH)
    disk.full = True
    with capture_logs():
        best_effort.write(disk.write(1))
        disk.full = False
        best_effort.retry()

    assert (disk.written, best_effort.error) == ([1], "")


def test_of_a_state_only_the_latest_waits() -> None:
    """A write with a key replaces the waiting one with the same key."""
    disk, best_effort = Disk(), BestEffort(PATH)
    disk.full = True
    with capture_logs():
        for number in (1, 2, 3):
            best_effort.write(disk.write(number), key="state")
        disk.full = False
        best_effort.write(disk.write(4))

    assert disk.written == [3, 4]


def test_waiting_writes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the oldest write is dropped and counted, and the records may differ."""
    monkeypatch.setattr("ringfence.store.writer.MOST_KEPT", 2)
    disk, best_effort = Disk(), BestEffort(PATH)
    disk.full = True
    with capture_logs():
        for number in (1, 2, 3):
            best_effort.write(disk.write(number))
        disk.full = False
        best_effort.retry()

    assert (disk.written, best_effort.dropped, best_effort.diverged) == ([2, 3], 1, True)
    assert "dropped" in best_effort.lacks


def test_a_state_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit, writes without a key are dropped: no other write records the state of a key."""
    monkeypatch.setattr("ringfence.store.writer.MOST_KEPT", 2)
    disk, best_effort = Disk(), BestEffort(PATH)
    disk.full = True
    with capture_logs():
        best_effort.write(disk.write(1), key="state")
        for number in (2, 3, 4):
            best_effort.write(disk.write(number))
        disk.full = False
        best_effort.retry()

    assert (disk.written, best_effort.dropped) == ([1, 4], 2)


def test_a_write_that_can_never_succeed_stops_no_other() -> None:
    """Damage and a defect are reported, and the writes behind them are done."""

    def damaged() -> None:
        raise StoreDamagedError("malformed")

    disk, waiting = Disk(), list[Action]()
    best_effort = BestEffort(PATH, waiting.append)
    best_effort.write(damaged)
    best_effort.write(lambda: 1 / 0)
    best_effort.write(disk.write(1))
    with capture_logs():
        with pytest.raises(ZeroDivisionError):
            waiting[0]()
        assert best_effort.damage == "malformed"
        waiting[1]()

    assert disk.written == [1]


def test_a_write_with_a_defect_leads_to_a_comparison() -> None:
    """The write is not tried again, so the records may lack a ban that is in force."""
    best_effort = BestEffort(PATH)
    with pytest.raises(ZeroDivisionError):
        best_effort.write(lambda: 1 / 0)

    assert (best_effort.waiting, best_effort.diverged) == (0, True)
    assert "can never succeed" in best_effort.lacks


def test_a_write_that_is_tried_once() -> None:
    """Such a write is lost on a full disk, with an error until the next one; nothing that holds lacks."""
    disk, best_effort = Disk(), BestEffort(PATH)
    disk.full = True
    with capture_logs():
        best_effort.write_once(disk.write(1))
    assert (best_effort.error, best_effort.takes_writes, best_effort.lacks) == ("disk full", False, "")

    disk.full = False
    best_effort.write_once(disk.write(2))
    assert (disk.written, best_effort.error) == ([2], "")


def test_a_write_that_succeeds_ends_the_error_of_one_that_was_tried_once() -> None:
    """The disk takes writes again, although no purge of old rows is due for an hour."""
    disk, best_effort = Disk(), BestEffort(PATH)
    disk.full = True
    with capture_logs():
        best_effort.write_once(disk.write(1))
    disk.full = False
    best_effort.write_kept()
    assert (best_effort.error, best_effort.takes_writes) == ("disk full", False)  # nothing was written

    best_effort.write(disk.write(2))
    assert (disk.written, best_effort.error, best_effort.takes_writes) == ([2], "", True)


def test_a_person_learns_whether_a_change_is_recorded() -> None:
    """The answer waits for the disk: nothing, the error, a disk that hangs, a database in memory."""
    disk, slow = Disk(), threading.Event()

    async def answers() -> list[str]:
        with Writer() as later, capture_logs():
            best_effort = BestEffort(PATH, later)
            best_effort.write(disk.write(1))
            found = [await best_effort.recorded()]
            disk.full = True
            best_effort.write(disk.write(2))
            found.append(await best_effort.recorded())
            disk.full = False
            found.append(await best_effort.recorded())
            best_effort.write(slow.wait)
            found.append(await best_effort.recorded())
            slow.set()
            return found

    *first, last = asyncio.run(answers())
    assert (first, disk.written) == (["", "disk full", ""], [1, 2])
    assert last == f"{PATH}: the disk is slow, and the record still waits"
    assert BestEffort(PATH, memory_reason="no folder").lacks == "no folder"


@pytest.mark.parametrize("ended", [True, False])
def test_a_person_waits_only_for_earlier_writes(*, ended: bool) -> None:
    """A write that arrives while the answer waits, as under an attack, is no reason to call the disk slow."""
    disk, queued = Disk(), list[Action]()
    future: Future[object] = Future()

    def later(action: Action) -> Future[object]:
        queued.append(action)
        return future

    async def answer() -> str:
        best_effort = BestEffort(PATH, later)
        best_effort.write(disk.write(1))
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(best_effort.recorded())
            await asyncio.sleep(0)
            queued[0]()
            best_effort.write(disk.write(2))
            if ended:
                future.set_result(None)
        return asked.result()

    assert asyncio.run(answer()) == ""
    assert disk.written == [1]


def test_a_person_waits_for_no_write_after_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes when the person's change is recorded, although a later write hangs."""
    monkeypatch.setattr("ringfence.store.writer.WAIT", 60.0)
    answered, order = threading.Event(), list[str]()

    def hang() -> None:
        answered.wait(30.0)
        order.append("later")

    async def answer() -> None:
        with Writer() as later:
            best_effort = BestEffort(PATH, later)

            def mine() -> None:
                best_effort.write(hang)
                order.append("mine")

            best_effort.write(mine, key="state")
            assert await best_effort.recorded() == ""
            order.append("answer")
            answered.set()

    asyncio.run(answer())
    assert order == ["mine", "answer", "later"]


def test_a_person_waits_for_no_write_that_shares_an_attempt_with_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer comes when the person's change is recorded, although one that came later hangs behind it."""
    monkeypatch.setattr("ringfence.store.writer.WAIT", 60.0)
    busy, answered, order = threading.Event(), threading.Event(), list[str]()

    def hang() -> None:
        answered.wait(5.0)
        order.append("later")

    async def answer() -> None:
        with Writer() as later:
            later(busy.wait)
            best_effort = BestEffort(PATH, later)
            best_effort.write(order.append, "mine")
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(best_effort.recorded())
                await asyncio.sleep(0)
                best_effort.write(hang)
                busy.set()
            assert asked.result() == ""
            order.append("answer")
            answered.set()

    asyncio.run(answer())
    assert order == ["mine", "answer", "later"]


@pytest.mark.parametrize("later", [at_once, None], ids=["at once", "queued"])
def test_an_answer_leaves_nothing_behind(later: Later | None) -> None:
    """Answers about a full disk add no writes to those that wait, of which there is a limit."""
    disk = Disk()
    disk.full = True

    async def answers() -> int:
        with Writer() as writer, capture_logs():
            best_effort = BestEffort(PATH, writer if later is None else later)
            best_effort.write(disk.write(1))
            for _ in range(3):
                assert await best_effort.recorded() == "disk full"
            return best_effort.waiting

    assert asyncio.run(answers()) == 1


def test_a_client_that_goes_leaves_nothing_behind() -> None:
    """If the answer is no longer wanted while the disk is slow, no write is added to those that wait."""
    busy = threading.Event()

    async def ask() -> tuple[int, int]:
        with Writer() as later:
            best_effort = BestEffort(PATH, later)
            best_effort.write(busy.wait)
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(best_effort.recorded())
                await asyncio.sleep(0)
                before = best_effort.waiting
                asked.cancel()
            after = best_effort.waiting
            busy.set()
            return before, after

    assert asyncio.run(ask()) == (2, 1)


def test_a_failed_read_has_a_fallback() -> None:
    """Each read still returns a value; its error disappears when a read succeeds."""
    best_effort = BestEffort(PATH)
    with capture_logs():
        assert best_effort.read(fail, "nothing") == "nothing"
        assert best_effort.error == "disk full"
        best_effort.read(lambda: 0, 0)

    assert best_effort.error == ""


def test_damage_stays_known_after_later_reads() -> None:
    """Damage that a read met stays known when later reads succeed, because only a restart fixes it."""

    def damaged() -> str:
        raise StoreDamagedError("malformed; fix: restart ringfence")

    best_effort = BestEffort(PATH)
    with capture_logs():
        best_effort.read(damaged, "")
        best_effort.read(lambda: "", "")

    assert (best_effort.error, best_effort.damage) == ("", "malformed; fix: restart ringfence")


def test_one_attempt_waits_at_most() -> None:
    """Ten writes on a disk that fails wait for one attempt, and not for one each."""
    hangs, begun, queued, tried = threading.Event(), threading.Event(), list[Action](), list[int]()

    def refused() -> None:
        begun.set()
        hangs.wait()
        tried.append(1)
        raise StoreError("locked") from OSError()

    with capture_logs(), Writer() as writer:

        def later(action: Action) -> Future[object]:
            queued.append(action)
            return writer(action)

        best_effort = BestEffort(PATH, later)
        best_effort.write(refused)
        begun.wait()
        for _ in range(10):
            best_effort.write(refused)
            best_effort.retry()
        hangs.set()

    assert (len(queued), len(tried), best_effort.waiting) == (2, 2, 11)


def test_a_defect_delays_no_write_behind_it() -> None:
    """The writes behind a defect are done at once, although they share its attempt."""
    disk, slow = Disk(), threading.Event()
    with capture_logs(), Writer() as writer:
        best_effort = BestEffort(PATH, writer)
        writer(slow.wait)
        best_effort.write(lambda: 1 / 0)
        best_effort.write(disk.write(1))
        slow.set()

    assert disk.written == [1]
