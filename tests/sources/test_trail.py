"""Whatever becomes of a log, each of its lines is read once."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sources.logs import ROTATIONS, Log, Numbers

from ringfence.sources import trail
from ringfence.sources.tail import CHUNK, NOWHERE, Position
from ringfence.sources.trail import Trail


@pytest.fixture(name="log")
def _log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "ringfence")
    yield log
    log.close()


@pytest.fixture(name="numbers")
def _numbers() -> Numbers:
    return Numbers()


def read_all(trail: Trail) -> None:
    """Step until there is nothing more."""
    for _ in range(100_000):
        if not trail.step():
            return
    raise AssertionError("a trail that always has more")


def upto(number: int) -> list[int]:
    """Give the numbers of that many lines."""
    return list(range(1, number + 1))


def again(trail: Trail, numbers: Numbers) -> Trail:
    """Begin anew where that one stopped, as a later process does: through text."""
    position = trail.position
    trail.close()
    assert position is not None
    return Trail(trail.path, numbers, Position.loaded(position.dumped()))


def test_the_first_start_ever_begins_at_the_end(log: Log, numbers: Numbers) -> None:
    """What stood in the log before ringfence was first started is not read; the line being written is."""
    log.write(3)
    trail = Trail(log.path, numbers)
    log.write_in_two(lambda: read_all(trail))
    log.write(2)
    read_all(trail)
    trail.close()

    assert numbers.read == [4, 5, 6]
    assert all(numbers.lives)


def test_a_log_that_comes_into_being_is_read_from_its_start(log: Log, numbers: Numbers) -> None:
    """While there is no log a trail waits; the first line of it is live."""
    log.path.unlink()
    trail = Trail(log.path, numbers)
    read_all(trail)
    log.reopen()
    log.write(2)
    read_all(trail)
    trail.close()

    assert numbers.read == [1, 2]
    assert all(numbers.lives)


def test_a_log_that_came_into_being_while_it_was_down_is_old(log: Log, numbers: Numbers) -> None:
    """That there was nothing is remembered too, so what came meanwhile is read, as old."""
    log.path.unlink()
    trail = Trail(log.path, numbers)
    read_all(trail)
    log.reopen()
    log.write(2)
    trail = again(trail, numbers)
    read_all(trail)
    log.write()
    read_all(trail)
    trail.close()

    assert list(zip(numbers.read, numbers.lives, strict=True)) == [(1, False), (2, False), (3, True)]


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("while_", ["up", "down"])
def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(
    log: Log, numbers: Numbers, rotation: str, while_: str
) -> None:
    """Lines before, in and after a rotation come once and in order, also over a restart."""
    trail = Trail(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(trail)
    if while_ == "down":
        trail = again(trail, numbers)
    log.write(5)
    getattr(log, rotation)()
    log.write(5)
    read_all(trail)
    trail.close()

    assert numbers.read == upto(log.written)
    assert numbers.cuts == 1


def test_the_old_file_is_followed_while_the_new_one_is_empty(log: Log, numbers: Numbers) -> None:
    """With `create` logrotate makes the new file; until Asterisk is told it goes on with the old one."""
    trail = Trail(log.path, numbers, NOWHERE)
    log.write(2)
    read_all(trail)
    log.path.rename(f"{log.path}.1")
    log.path.touch()
    for _ in range(3):
        log.write()
        read_all(trail)
    assert numbers.read == upto(5)
    log.reopen()
    log.write()
    read_all(trail)
    trail.close()

    assert numbers.read == upto(6)


def test_a_truncated_log_is_read_from_its_start(log: Log, numbers: Numbers) -> None:
    """What was not read before copytruncate is read in the copy, and nothing is read twice."""
    trail = Trail(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(trail)
    log.write(5)
    log.copy_and_truncate()
    log.write(20)
    read_all(trail)
    trail.close()

    assert numbers.read == upto(30)


def test_a_log_truncated_without_a_copy_is_read_on(log: Log, numbers: Numbers) -> None:
    """`> ringfence`: what was in it is gone, what comes is read."""
    trail = Trail(log.path, numbers, NOWHERE)
    log.write(5)
    read_all(trail)
    log.path.write_bytes(b"")
    log.write(2)
    read_all(trail)
    trail.close()

    assert numbers.read == upto(7)
    assert numbers.cuts == 1


def test_a_place_that_is_gone_begins_at_the_start_as_old(log: Log, numbers: Numbers) -> None:
    """Where the old file was compressed meanwhile, the present one is read from its start."""
    log.write(3)
    trail = Trail(log.path, numbers, NOWHERE)
    read_all(trail)
    log.rotate_sequential()
    Path(f"{log.path}.1000").write_bytes(b"\x1f\x8b compressed")
    log.write(3)
    trail = again(trail, numbers)
    read_all(trail)
    trail.close()

    assert numbers.read == upto(6)
    assert numbers.lives[3:] == [False] * 3


def test_the_line_that_was_cut_is_handed_on_at_the_end_of_its_file(tmp_path: Path) -> None:
    """Asterisk cuts a line at 8191 bytes and its newline with it: the last of a file is complete as it is."""
    heard: list[object] = []

    class Reader:
        def lines(self, data: bytes, *, live: bool) -> None:
            heard.append((data, live))

        def cut(self) -> None:
            heard.append("cut")

    path = tmp_path / "ringfence"
    trail = Trail(path, Reader(), NOWHERE)
    path.write_bytes(b"one\ntwo without an end")
    read_all(trail)
    path.rename(tmp_path / "ringfence.0")
    path.write_bytes(b"three\n")
    read_all(trail)
    trail.close()

    assert heard == [(b"one\n", False), (b"two without an end", True), "cut", (b"three\n", True)]


def test_a_long_line_is_handed_on_in_pieces(tmp_path: Path) -> None:
    """A line without an end is no reason to keep more of it than a chunk."""
    pieces: list[int] = []

    class Reader:
        def lines(self, data: bytes, *, live: bool) -> None:
            pieces.append(len(data))

        def cut(self) -> None:
            raise AssertionError

    path = tmp_path / "ringfence"
    path.write_bytes(b"x" * 100_000 + b"\n")
    trail = Trail(path, Reader(), NOWHERE)
    read_all(trail)
    trail.close()

    assert sum(pieces) == 100_001
    assert max(pieces) <= CHUNK


def test_no_more_of_the_past_is_read_than_is_of_use(
    log: Log, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that grew by more than that while ringfence was down is read from a line near its end."""
    monkeypatch.setattr(trail, "MOST_PAST", 1_000)
    log.write(1_000)
    late = Trail(log.path, numbers, NOWHERE)
    read_all(late)
    late.close()

    assert numbers.read == list(range(990, 1_001))
    assert late.skipped == 989 * 90


def test_several_rotations_between_two_looks_lose_nothing(log: Log, numbers: Numbers) -> None:
    """Files that came and went unseen are found among the rotated ones, and the others are not read again."""
    trail = Trail(log.path, numbers)
    read_all(trail)
    for _ in range(3):
        log.write(2)
        log.rotate_sequential()
    log.write()
    read_all(trail)
    trail.close()

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


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(ACTIONS)
def test_each_line_is_read_once(actions: list[tuple[str, int]]) -> None:
    """Writing, rotating, truncating, looking and restarting in any order: nothing lost, nothing twice."""
    with tempfile.TemporaryDirectory() as folder:
        log, numbers = Log(Path(folder, "ringfence")), Numbers()
        trail = Trail(log.path, numbers, NOWHERE)
        trail.step()
        for name, number in actions:
            if name == "write":
                log.write(number)
            elif name == "look":
                for _ in range(number):
                    trail.step()
            elif name in {"restart", "stop"}:
                trail.step()
                trail = again(trail, numbers)
            elif name == "copy_and_truncate":
                log.write(3)
                read_all(trail)  # a copy is known by what was read of it
                log.write(3)
                log.copy_and_truncate()
            else:
                getattr(log, name)()
        log.write()
        read_all(trail)
        trail.close()
        log.close()

        assert sorted(numbers.read) == upto(log.written)
