"""Each line of a log is read once, across rotation and truncation."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sources.logs import ROTATIONS, Log, Numbers

from ringfence.sources import log_rotation as rotating
from ringfence.sources.log_ingest import LogIngest
from ringfence.sources.log_rotation import CHUNK, NOWHERE, Position, RotatingLog, Tail


@pytest.fixture(name="log")
def _log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "ringfence")
    yield log
    log.close()


@pytest.fixture(name="numbers")
def _numbers() -> Numbers:
    return Numbers()


def read_all(rotating: RotatingLog) -> None:
    """Step until there is nothing more."""
    for _ in range(100_000):
        if not rotating.step():
            return
    raise AssertionError("a rotating that always has more")


def upto(number: int) -> list[int]:
    """Return the numbers of that many lines."""
    return list(range(1, number + 1))


def again(rotating: RotatingLog, numbers: Numbers) -> RotatingLog:
    """Return a log that continues at the position of ``rotating``, as a later process does: through text."""
    position = rotating.position
    rotating.close()
    assert position is not None
    return RotatingLog(rotating.path, numbers, Position.from_text(position.to_text()))


def fail_reads(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make each read of the file at ``path`` fail, also under another name."""
    inode, pread = path.stat().st_ino, os.pread

    def failing(descriptor: int, length: int, offset: int) -> bytes:
        if length and os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", failing)


def descriptors_after_steps(rotating: RotatingLog) -> list[int]:
    """Return the number of open descriptors after one step, and after 50 more."""
    found = []
    for _ in range(51):
        with suppress(OSError):
            rotating.step()
        found.append(len(list(Path("/proc/self/fd").iterdir())))
    return [found[0], found[-1]]


def test_the_first_start_ever_begins_at_the_end(log: Log, numbers: Numbers) -> None:
    """Lines from before the very first start are not read; the line that is being written is."""
    log.write(3)
    rotating = RotatingLog(log.path, numbers)
    log.write_in_two(lambda: read_all(rotating))
    log.write(2)
    read_all(rotating)
    rotating.close()

    assert numbers.read == [4, 5, 6]
    assert all(numbers.lives)


def test_a_new_log_is_read_from_its_start(log: Log, numbers: Numbers) -> None:
    """While there is no log the reader waits; its first line is live."""
    log.path.unlink()
    rotating = RotatingLog(log.path, numbers)
    read_all(rotating)
    log.reopen()
    log.write(2)
    read_all(rotating)
    rotating.close()

    assert numbers.read == [1, 2]
    assert all(numbers.lives)


def test_a_log_created_while_ringfence_was_down_is_old(log: Log, numbers: Numbers) -> None:
    """The absence of a log is stored too, so lines that came meanwhile are read, as old."""
    log.path.unlink()
    rotating = RotatingLog(log.path, numbers)
    read_all(rotating)
    log.reopen()
    log.write(2)
    rotating = again(rotating, numbers)
    read_all(rotating)
    log.write()
    read_all(rotating)
    rotating.close()

    assert list(zip(numbers.read, numbers.lives, strict=True)) == [(1, False), (2, False), (3, True)]


def test_a_log_that_is_missing_at_the_start_keeps_its_position(tmp_path: Path, numbers: Numbers) -> None:
    """If the disk of the log is mounted after the start, reading continues at the position, as old."""
    folder, away = tmp_path / "log", tmp_path / "unmounted"
    folder.mkdir()
    log = Log(folder / "ringfence")
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(rotating)
    log.write(2)
    log.close()
    folder.rename(away)
    rotating = again(rotating, numbers)
    before = rotating.position
    read_all(rotating)
    assert rotating.position == before
    away.rename(folder)
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(7)
    assert numbers.lives[5:] == [False, False]


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("while_", ["up", "down"])
def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(
    log: Log, numbers: Numbers, rotation: str, while_: str
) -> None:
    """Lines before, in and after a rotation come once and in order, also across a restart."""
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(rotating)
    if while_ == "down":
        rotating = again(rotating, numbers)
    log.write(5)
    getattr(log, rotation)()
    log.write(5)
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(log.written)
    assert numbers.cuts == 1


def test_the_old_file_is_followed_while_the_new_one_is_empty(log: Log, numbers: Numbers) -> None:
    """With `create` logrotate makes the new file; Asterisk continues with the old one until its reload."""
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    log.write(2)
    read_all(rotating)
    log.path.rename(f"{log.path}.1")
    log.path.touch()
    for _ in range(3):
        log.write()
        read_all(rotating)
    assert numbers.read == upto(5)
    log.reopen()
    log.write()
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(6)


def test_a_truncated_log_is_read_from_its_start(log: Log, numbers: Numbers) -> None:
    """Unread lines from before copytruncate are read in the copy, and nothing is read twice."""
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(rotating)
    log.write(5)
    log.copy_and_truncate()
    log.write(20)
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(30)


def test_a_log_truncated_without_a_copy_is_read_on(log: Log, numbers: Numbers) -> None:
    """After `> ringfence` the old contents are gone, and new lines are read."""
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(rotating)
    log.path.write_bytes(b"")
    log.write(2)
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(7)
    assert numbers.cuts == 1


def test_a_copy_in_place_of_the_log_is_not_read_again(log: Log, numbers: Numbers) -> None:
    """After `cp -p messages m; mv m messages`, only the new lines of the copy are read."""
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(rotating)
    copy = log.path.with_name("copy")
    shutil.copy2(log.path, copy)
    copy.replace(log.path)
    log.reopen()
    log.write()
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(6)


def test_a_copy_under_a_name_of_the_rotation_is_not_read(log: Log, numbers: Numbers) -> None:
    """After `cp ringfence ringfence.20260806`, no later rotation lets the copy be read."""
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(rotating)
    log.write(2)
    shutil.copy(log.path, f"{log.path}.20260806")
    log.rotate_sequential()
    log.write()
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(8)


def test_a_rotated_file_that_cannot_be_read_is_left_out(
    log: Log, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its read error keeps no descriptor open, and the log is read on."""
    late = RotatingLog(log.path, numbers, NOWHERE)
    log.write(2)
    read_all(late)
    log.rotate_sequential()
    unreadable = Path(f"{log.path}.2000")
    unreadable.write_bytes(b"unreadable\n")
    log.write()
    fail_reads(monkeypatch, unreadable)
    before, after = descriptors_after_steps(late)
    late.close()

    assert after <= before
    assert numbers.read == upto(3)


def test_a_position_in_a_file_that_cannot_be_read_is_lost(
    log: Log, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file of the position was rotated and cannot be read, the log is read from its start, as old."""
    late = RotatingLog(log.path, numbers, NOWHERE)
    log.write(2)
    read_all(late)
    late = again(late, numbers)
    log.rotate_sequential()
    log.write(2)
    fail_reads(monkeypatch, Path(f"{log.path}.1000"))
    before, after = descriptors_after_steps(late)
    late.close()

    assert after <= before
    assert numbers.read == upto(4)
    assert numbers.lives[2:] == [False, False]


@pytest.mark.parametrize("copied", [False, True])
def test_a_log_that_cannot_be_read_at_the_start_keeps_its_position(
    log: Log, numbers: Numbers, monkeypatch: pytest.MonkeyPatch, *, copied: bool
) -> None:
    """A read error of the log itself is no reason to read it from its start later, also if it is a copy."""
    late = RotatingLog(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(late)
    late = again(late, numbers)
    if copied:
        copy = log.path.with_name("copy")
        shutil.copy(log.path, copy)
        copy.replace(log.path)
    with monkeypatch.context() as broken:
        fail_reads(broken, log.path)
        with pytest.raises(OSError, match="Input/output error"):
            late.step()
    read_all(late)
    late.close()

    assert numbers.read == upto(5)


@pytest.mark.parametrize("stale", [False, True])
def test_a_file_that_cannot_be_read_is_left_for_the_next_one(
    log: Log, numbers: Numbers, monkeypatch: pytest.MonkeyPatch, *, stale: bool
) -> None:
    """A read error of the open file lasts only until the log is rotated, also if its time is unknown."""

    def fail(_: Tail) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    late = RotatingLog(log.path, numbers, NOWHERE)
    log.write(2)
    read_all(late)
    fail_reads(monkeypatch, log.path)
    if stale:
        monkeypatch.setattr(Tail, "changed", property(fail))
    with pytest.raises(OSError, match="Input/output error"):
        late.step()
    log.rotate_sequential()
    log.write(2)
    read_all(late)
    late.close()

    assert numbers.read == upto(4)


def test_a_lost_position_begins_at_the_start_as_old(log: Log, numbers: Numbers) -> None:
    """If the old file was compressed meanwhile, the present one is read from its start."""
    log.write(3)
    rotating = RotatingLog(log.path, numbers, NOWHERE)
    read_all(rotating)
    log.rotate_sequential()
    Path(f"{log.path}.1000").write_bytes(b"\x1f\x8b compressed")
    log.write(3)
    rotating = again(rotating, numbers)
    read_all(rotating)
    rotating.close()

    assert numbers.read == upto(6)
    assert numbers.lives[3:] == [False] * 3


def test_a_cut_line_is_passed_on_at_the_end_of_its_file(tmp_path: Path) -> None:
    """Asterisk cuts a line at 8191 bytes and its newline with it: the last line of a file is complete."""
    passed_on: list[object] = []

    class Reader(LogIngest):
        def __init__(self) -> None: ...

        def lines(self, data: bytes, *, live: bool) -> None:
            passed_on.append((data, live))

        def cut(self) -> None:
            passed_on.append("cut")

    path = tmp_path / "ringfence"
    rotating = RotatingLog(path, Reader(), NOWHERE)
    path.write_bytes(b"one\ntwo without an end")
    read_all(rotating)
    path.rename(tmp_path / "ringfence.0")
    path.write_bytes(b"three\n")
    read_all(rotating)
    rotating.close()

    assert passed_on == [(b"one\n", False), (b"two without an end", True), "cut", (b"three\n", True)]


def test_a_long_line_is_passed_on_in_pieces(tmp_path: Path) -> None:
    """Of a line without an end no more than a chunk is kept."""
    pieces: list[int] = []

    class Reader(LogIngest):
        def __init__(self) -> None: ...

        def lines(self, data: bytes, *, live: bool) -> None:
            pieces.append(len(data))

        def cut(self) -> None:
            raise AssertionError

    path = tmp_path / "ringfence"
    path.write_bytes(b"x" * 100_000 + b"\n")
    rotating = RotatingLog(path, Reader(), NOWHERE)
    read_all(rotating)
    rotating.close()

    assert sum(pieces) == 100_001
    assert max(pieces) <= CHUNK


def test_the_old_lines_that_are_read_are_bounded(
    log: Log, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that grew by more than that while ringfence was down is read from a line near its end."""
    monkeypatch.setattr(rotating, "MOST_PAST", 1_000)
    log.write(1_000)
    late = RotatingLog(log.path, numbers, NOWHERE)
    read_all(late)
    late.close()

    assert numbers.read == list(range(990, 1_001))
    assert late.skipped == 989 * 90


def test_the_old_lines_of_each_rotated_file_are_bounded(
    log: Log, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files that were rotated while ringfence was down, each is read from a line near its end."""
    late = RotatingLog(log.path, numbers, NOWHERE)
    log.write(2)
    read_all(late)
    log.rotate_sequential()
    for _ in range(2):
        log.write(100)
        log.rotate_sequential()
    log.write()
    monkeypatch.setattr(rotating, "MOST_PAST", 1_000)
    late = again(late, numbers)
    read_all(late)
    late.close()

    assert numbers.read == [1, 2, *range(92, 103), *range(192, 203), 203]
    assert late.skipped == 2 * 89 * 90


def test_several_rotations_between_two_checks_lose_nothing(log: Log, numbers: Numbers) -> None:
    """Unseen files are found among the rotated ones, and the others are not read again."""
    rotating = RotatingLog(log.path, numbers)
    read_all(rotating)
    for _ in range(3):
        log.write(2)
        log.rotate_sequential()
    log.write()
    read_all(rotating)
    rotating.close()

    assert sorted(numbers.read) == upto(7)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 400)),
        st.sampled_from([("write_in_two", 0), ("restart", 0), ("stop", 0), ("copy_and_truncate", 0)]),
        st.tuples(st.just("look"), st.integers(1, 4)),
        st.tuples(st.sampled_from(ROTATIONS), st.just(0)),
    ),
    max_size=40,
)


@settings(
    deadline=None, max_examples=3 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow]
)
@given(ACTIONS)
def test_each_line_is_read_once(actions: list[tuple[str, int]]) -> None:
    """Writing, rotating, truncating, checking and restarting in any order: nothing lost, nothing twice."""
    with tempfile.TemporaryDirectory() as folder:
        log, numbers = Log(Path(folder, "ringfence")), Numbers()
        rotating = RotatingLog(log.path, numbers, NOWHERE)
        rotating.step()
        for name, number in actions:
            if name == "write":
                log.write(number)
            elif name == "look":
                for _ in range(number):
                    rotating.step()
            elif name in {"restart", "stop"}:
                rotating.step()
                rotating = again(rotating, numbers)
            elif name == "copy_and_truncate":
                log.write(3)
                read_all(rotating)  # a copy is recognised by the bytes that were read of it
                log.write(3)
                log.copy_and_truncate()
            else:
                getattr(log, name)()
        log.write()
        read_all(rotating)
        rotating.close()
        log.close()

        assert sorted(numbers.read) == upto(log.written)
