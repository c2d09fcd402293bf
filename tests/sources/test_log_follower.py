"""A log followed in a running loop: its delay, its failures, and the stored position."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from asyncinotify import Inotify
from tests.sources.logs import ROTATIONS, Log, Numbers
from tests.support.daemon import until as wait_until
from tests.support.netns import run as run_command
from tests.support.sources import Written

from ringfence.parse.line_result import LogCounts
from ringfence.sources import log_file as follow
from ringfence.sources.log_file import LogFileSource
from ringfence.sources.log_rotation import open_log
from ringfence.sources.state import Condition, State
from ringfence.values.event import SourceId

NOBODY = 65_534
START = '{"device": 0, "inode": 0, "offset": 0, "mark": "", "done": []}'
PATIENCE = 20.0


class Patient(Numbers):
    """Numbers, from a reader that holds nothing."""

    due_in: float | None = None
    standing_by = False
    counts_events = False
    ticks = 0

    @property
    def counts(self) -> LogCounts:
        """Each line is an event, or none is."""
        return LogCounts(events=len(self.read) if self.counts_events else 0)

    def tick(self) -> None:
        """Count the call."""
        self.ticks += 1

    def close(self) -> None:
        """Pass on nothing: no line waits."""


class Recorded(LogFileSource):
    """A source that records its conditions and positions."""

    def __init__(
        self,
        conditions: list[Condition],
        path: Path,
        reader: Patient,
        position: str | None,
        written: Written,
        hurry: asyncio.Event,
    ) -> None:
        super().__init__(
            SourceId("pbx", "log"),
            path,
            reader,
            position,
            written,
            hurry=hurry,
        )
        self._conditions = conditions

    def _set_condition(self, condition: Condition) -> None:
        if condition != self.condition:
            self._conditions.append(condition)
        super()._set_condition(condition)


class Followed:
    """A running source, the lines that it passed on, and its conditions."""

    def __init__(self, path: Path, position: str | None = START) -> None:
        self.reader = Patient()
        self.written = Written()
        self.positions = self.written.texts
        self.conditions: list[Condition] = []
        self.hurry = asyncio.Event()
        self.source = Recorded(self.conditions, path, self.reader, position, self.written, self.hurry)

    @property
    def states(self) -> list[State]:
        """The states it was in, in order."""
        return [condition.state for condition in self.conditions]

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until ``true`` returns a true value."""
        async with asyncio.timeout(PATIENCE):
            while not true():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.002)

    async def until_read(self, number: int) -> None:
        """Wait until so many lines were read."""
        await self.until(lambda: len(self.reader.read) >= number)

    async def until_state(self, state: State) -> None:
        """Wait until it is in that state."""
        await self.until(lambda: self.source.condition.state is state)


def following(
    path: Path, then: Callable[[Followed], Coroutine[Any, Any, None]], position: str | None = START
) -> Followed:
    """Follow ``path`` while ``then`` runs; no descriptor of it may be left."""

    async def session() -> Followed:
        followed = Followed(path, position)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(followed.source.run())
            try:
                await then(followed)
            finally:
                task.cancel()
        return followed

    before = descriptors()
    followed = asyncio.run(session())
    # Listing them opens one, of any number. Descriptors of earlier tests may be closed meanwhile.
    assert len(descriptors() - before) <= 1
    return followed


def descriptors() -> set[str]:
    """Return the open descriptors of this process."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def upto(number: int) -> list[int]:
    """Return the numbers of that many lines."""
    return list(range(1, number + 1))


@pytest.fixture(name="log")
def _log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "ringfence")
    yield log
    log.close()


def test_a_line_is_passed_on_at_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel wakes it, without any check by the clock."""
    monkeypatch.setattr(follow, "LOOK_EVERY", 60.0)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        for number in range(1, 20):
            log.write()
            await followed.until_read(number)
        log.rotate_rotate()
        log.write()
        await followed.until_read(20)
        log.rotate_late()
        log.write()
        await followed.until_read(23)

    assert following(log.path, then).reader.read == upto(23)


def test_lines_gather_while_nothing_can_be_missing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """While AMI delivers, lines wait for others; a hurry ends that at once, and so does the end of AMI."""
    monkeypatch.setattr(follow, "LOOK_EVERY", 60.0)
    monkeypatch.setattr(follow, "GATHER", 60.0)

    async def then(followed: Followed) -> None:
        followed.reader.standing_by = True
        await followed.until_state(State.LISTENING)
        log.write()
        await asyncio.sleep(0.2)
        assert followed.reader.read == []
        followed.hurry.set()
        await followed.until_read(1)
        log.write()
        await followed.until_read(2)
        followed.hurry.clear()
        followed.reader.standing_by = False
        log.write()
        await followed.until_read(3)

    assert following(log.path, then).reader.read == upto(3)


def test_a_line_that_counts_ends_the_gathering(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a read that reported an event, the next lines are read at once."""
    monkeypatch.setattr(follow, "LOOK_EVERY", 60.0)
    monkeypatch.setattr(follow, "GATHER", 2.0)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        followed.reader.standing_by = followed.reader.counts_events = True
        for number in range(1, 20):
            log.write()
            await followed.until_read(number)

    began = time.monotonic()
    following(log.path, then)
    assert time.monotonic() - began < 30.0  # 19 times gathered are 38 seconds


@pytest.mark.parametrize("rotation", [*ROTATIONS, "copy_and_truncate"])
def test_nothing_is_lost_at_full_speed(log: Log, rotation: str) -> None:
    """A writer at full speed whose log is rotated again and again: every line comes, once."""

    def write(reader: Patient) -> None:
        for _ in range(20):
            for _ in range(50):
                log.write(5)
            # A check between two rotations: of two at once, files with the same times look alike, and lines
            # that are written between two checks and truncated are in no copy.
            wait_until(lambda: len(reader.read) >= log.written, "every line")
            getattr(log, rotation)()
            time.sleep(0.05)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        await asyncio.to_thread(write, followed.reader)
        log.write()
        await followed.until(lambda: log.written in followed.reader.read[-10:])

    followed = following(log.path, then)
    assert sorted(followed.reader.read) == upto(log.written)
    assert all(followed.reader.lives)


def test_a_follower_of_an_idle_log_does_next_to_nothing(log: Log) -> None:
    """No busy loop: neither with a file, nor without one, nor with a FIFO without a writer."""
    os.mkfifo(log.path.with_name("fifo"))

    async def then(_followed: Followed) -> None:
        for _ in range(5):
            before = time.thread_time()
            await asyncio.sleep(1.0)
            if time.thread_time() - before < 0.05:
                return
        raise AssertionError("it is busy")

    for name in ("ringfence", "missing", "fifo"):
        following(log.path.with_name(name), then)


def test_a_fifo_is_read_as_a_stream(tmp_path: Path) -> None:
    """Lines of several writers come, also one that was split in two."""
    path = tmp_path / "ringfence"
    os.mkfifo(path)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        for _ in range(2):
            log = Log(path)
            log.written = len(followed.reader.read)
            log.write(3)
            log.write_in_two(lambda: time.sleep(0.01))
            await followed.until_read(log.written)
            log.close()

    followed = following(path, then)
    assert followed.reader.read == upto(8)
    assert followed.positions == []


def test_a_log_and_its_folder_may_come_later(tmp_path: Path) -> None:
    """A missing log is waited for, and read from its start when it comes."""
    path = tmp_path / "log" / "asterisk" / "ringfence"

    async def then(followed: Followed) -> None:
        await followed.until_state(State.WAITING)
        path.parent.mkdir(parents=True)
        log = Log(path)
        log.write(3)
        await followed.until_read(3)
        log.close()

    followed = following(path, then, None)
    assert followed.reader.read == [1, 2, 3]
    assert followed.conditions[0] == Condition(State.WAITING, f"{path} does not exist yet")


def test_a_log_that_was_read_before_and_is_gone_is_unreadable(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log with a stored position that is missing at the start is a fault until it is back."""
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.05)

    async def read(followed: Followed) -> None:
        log.write()
        await followed.until_read(1)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.UNREADABLE)
        log.reopen()
        await followed.until_state(State.LISTENING)

    position = following(log.path, read).positions[-1]
    log.path.unlink()
    assert following(log.path, then, position).conditions == [
        Condition(State.UNREADABLE, f"{log.path} was read before, and is gone"),
        Condition(State.LISTENING, str(log.path)),
    ]


def test_a_deleted_log_is_missing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deleted log is read as long as it is written to; then the state names it."""
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.05)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        log.path.unlink()
        log.write(2)
        await followed.until_read(2)
        await followed.until_state(State.WAITING)
        log.reopen()
        log.write()
        await followed.until_read(3)
        await followed.until_state(State.LISTENING)

    states = following(log.path, then).states
    assert (states[:2], states[-1]) == ([State.LISTENING, State.WAITING], State.LISTENING)


def test_links_are_followed_and_resolved_again(tmp_path: Path) -> None:
    """A link to a log elsewhere: rotation there is noticed, and so is a change of the link."""
    one, two = Log(tmp_path / "one"), Log(tmp_path / "two")
    path = tmp_path / "etc" / "ringfence"
    path.parent.mkdir()
    path.symlink_to(one.path)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        one.write()
        await followed.until_read(1)
        one.rotate_sequential()
        one.write()
        await followed.until_read(2)
        two.written = 2
        other = path.with_name("other")
        other.symlink_to(two.path)
        other.rename(path)
        two.write()
        await followed.until_read(3)

    followed = following(path, then)
    one.close()
    two.close()
    assert followed.reader.read == [1, 2, 3]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_log_without_permission_is_named_with_the_fix() -> None:
    """A log without permission is a state of its own; once permitted, it is read without a restart."""

    async def then(followed: Followed) -> None:
        await followed.until_state(State.UNREADABLE)
        os.seteuid(0)
        log.path.chmod(0o644)
        os.seteuid(NOBODY)
        await followed.until_state(State.LISTENING)
        log.write()
        await followed.until_read(1)

    with TemporaryDirectory() as name:  # others may not enter the folder of all tests
        Path(name).chmod(0o755)
        log = Log(Path(name) / "ringfence")
        log.path.chmod(0o600)
        os.seteuid(NOBODY)
        try:
            followed = following(log.path, then)
        finally:
            os.seteuid(0)
            log.close()
    assert (
        followed.conditions[0].detail
        == f"{log.path} cannot be read: permission denied; fix: give ringfence's user an ACL on it"
    )


def test_a_disk_that_fails_is_named_and_tried_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO is a state; the log is read on when the disk works again."""
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.02)
    log.write(2)
    fails = [True]
    pread = os.pread

    def failing(descriptor: int, length: int, offset: int) -> bytes:
        if fails[0]:
            raise OSError(5, "Input/output error")
        return pread(descriptor, length, offset)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.UNREADABLE)
        fails[0] = False
        await followed.until_read(2)

    monkeypatch.setattr(os, "pread", failing)
    followed = following(log.path, then)
    assert followed.conditions[0].detail == f"{log.path} cannot be read: Input/output error"


def test_a_folder_in_place_of_the_log_is_named(tmp_path: Path) -> None:
    """A folder in place of a log is reported."""

    async def then(followed: Followed) -> None:
        await followed.until_state(State.UNREADABLE)

    followed = following(tmp_path, then)
    assert followed.conditions[0].detail == f"{tmp_path} cannot be read: it is neither a file nor a FIFO"


def test_what_is_no_log_is_not_opened(tmp_path: Path) -> None:
    """A socket, like a device, is named without opening it: to open some devices changes them."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "socket"))
        (tmp_path / "log").symlink_to(tmp_path / "socket")
        with pytest.raises(OSError, match="neither a file nor a FIFO"):  # to open it is ENXIO
            open_log(tmp_path / "log")


@pytest.mark.kernel
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk does not report a full disk, and no event comes: the source's state shows it."""
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.02)
    run_command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path))
    try:
        log = Log(tmp_path / "ringfence")

        async def then(followed: Followed) -> None:
            log.write()
            await followed.until_state(State.LISTENING)
            with pytest.raises(OSError, match="No space left"):
                (tmp_path / "core").write_bytes(bytes(128 * 1024))
            await followed.until_state(State.FULL)
            (tmp_path / "core").unlink()
            await followed.until_state(State.LISTENING)

        following(log.path, then)
        log.close()
    finally:
        run_command("umount", str(tmp_path))


def test_without_inotify_the_log_is_polled(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a free inotify instance reads the log all the same, and the state names the limit."""

    def used_up() -> Inotify:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(follow, "Inotify", used_up)

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        log.write()
        await followed.until_read(1)
        log.rotate_sequential()
        log.write()
        await followed.until_read(2)

    followed = following(log.path, then)
    assert (
        followed.conditions[-1].detail == f"{log.path}, slowly; fix: raise the limits of fs.inotify (sysctl)"
    )


def test_inotify_is_tried_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a passing lack of instances or of watches, the log is followed as usual again."""
    monkeypatch.setattr(follow, "WATCH_AGAIN", 0.3)
    answers: list[Exception] = [OSError(errno.EMFILE, "Too many open files")] * 2

    class Scarce(Inotify):
        def __init__(self) -> None:
            if answers:
                raise answers.pop()
            super().__init__()

    monkeypatch.setattr(follow, "Inotify", Scarce)

    async def then(followed: Followed) -> None:
        await followed.until(lambda: str(log.path) in [one.detail for one in followed.conditions])
        log.write()
        await followed.until_read(1)

    slowly, usual = (
        one.detail for one in following(log.path, then).conditions if one.state is State.LISTENING
    )

    assert "slowly" in slowly
    assert (usual, answers) == (str(log.path), [])


def test_watches_do_not_accumulate(log: Log) -> None:
    """A thousand rotations later the kernel holds no more watches than at first."""

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        for number in range(1, 300):
            log.write()
            log.rotate_sequential() if number % 50 == 0 else log.rotate_rotate_over()
            await followed.until_read(number)
        await asyncio.sleep(0.05)
        assert watches() <= 3

    def watches() -> int:
        return sum(
            Path("/proc/self/fdinfo", fd).read_text().count("inotify wd")
            for fd in descriptors()
            if Path("/proc/self/fdinfo", fd).exists()
        )

    following(log.path, then)


def test_the_position_is_stored_once_a_second_and_at_the_end(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy log costs the store one write a second; the last position is stored at the end."""
    monkeypatch.setattr(follow, "REMEMBER_EVERY", 0.2)

    async def then(followed: Followed) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            log.write()
            await asyncio.sleep(0.002)
        assert len(followed.positions) <= 4

    first = following(log.path, then)
    log.write()

    async def read_one(followed: Followed) -> None:
        await followed.until_read(1)

    second = following(log.path, read_one, first.positions[-1])
    assert first.reader.read + second.reader.read == upto(log.written)
    assert second.reader.lives == [False]


def test_a_waiting_reader_gets_its_tick(log: Log) -> None:
    """A reader that holds lines is called again after its time."""

    async def then(followed: Followed) -> None:
        await followed.until_state(State.LISTENING)
        before = followed.reader.ticks
        followed.reader.due_in = 0.01
        log.write()
        await followed.until(lambda: followed.reader.ticks > before + 5)

    following(log.path, then)


def test_other_tasks_run_during_a_long_read(log: Log) -> None:
    """While the follower reads a long log, the loop continues after each chunk."""
    for _ in range(400):
        log.write(500)
    turns = 0

    async def then(followed: Followed) -> None:
        nonlocal turns
        while len(followed.reader.read) < log.written:
            await asyncio.sleep(0)
            turns += 1

    following(log.path, then)
    assert turns > 500


SCRIPTS: Sequence[str] = ("gone", "[]", '{"device": -1}', "{}", '"x"', "")


@pytest.mark.parametrize("text", SCRIPTS)
def test_an_invalid_position_fits_no_file(log: Log, text: str) -> None:
    """An invalid stored position makes the log be read from its start, as old."""
    log.write(2)

    async def then(followed: Followed) -> None:
        await followed.until_read(2)

    assert following(log.path, then, text).reader.lives == [False, False]
