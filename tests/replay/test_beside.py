"""A source in a process of its own: nothing is lost on the way, and the process does not outlast its use."""

import os
from pathlib import Path

import pytest
from tests.replay.logs import START, guesses, look, refused, story, unregistered
from tests.support.captures import captures

from ringfence.errors import SourceError
from ringfence.replay.beside import Beside, packed, unpacked
from ringfence.replay.story import Batch, told


def same(one: Batch, other: Batch) -> bool:
    """Say whether two batches tell the same."""
    numbers = [(batch.lines, batch.tampered, batch.read, batch.warnings) for batch in (one, other)]
    return one.events == other.events and [*one.senders] == [*other.senders] and numbers[0] == numbers[1]


def alive(process: int) -> bool:
    """Say whether a process is there."""
    return Path(f"/proc/{process}").exists()


def test_every_recording_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """Events of all kinds, services and addresses, with what text they hold."""
    for number, capture in enumerate(captures()):
        for path, witness in (
            (capture.ami, "ami"),
            (capture.security_log, "log:x"),
            (capture.messages_log, "log:y"),
        ):
            file = look(tmp_path, f"{path.name}-{number}", path.read_bytes())
            for batch in told(story(file, witness)):
                assert same(unpacked(packed(batch)), batch)


def test_a_batch_of_nothing() -> None:
    """A part of a log without an event is a batch all the same."""
    assert same(unpacked(packed(Batch(lines=7, read=9))), Batch(lines=7, read=9))


def test_what_is_told_beside_is_what_is_told(tmp_path: Path) -> None:
    """The same batches in the same order; then the process has ended."""
    data = b"".join(guesses(60, START + n * 100, f"192.0.2.{n}") + refused(START + n) for n in range(50))
    told_here = story(look(tmp_path, "log", data + unregistered()))
    beside = Beside(told_here)
    batches = list(beside)
    assert len(batches) > 3
    assert all(same(*pair) for pair in zip(batches, told(told_here), strict=True))
    beside.close()
    assert not alive(beside._process.pid or 0)


def test_an_error_comes_over(tmp_path: Path) -> None:
    """A file that cannot be read there is said here, with its name."""
    lost = story(look(tmp_path, "log", refused()))
    (tmp_path / "log").unlink()
    beside = Beside(lost)
    with pytest.raises(SourceError, match="log: No such file or directory"):
        list(beside)
    beside.close()


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """It is not taken for the end of the source."""
    beside = Beside(story(look(tmp_path, "log", b"".join(refused(START + n) for n in range(20_000)))))
    os.kill(beside._process.pid or 0, 9)
    with pytest.raises(SourceError, match="was ended"):
        list(beside)
    beside.close()


def test_whoever_has_heard_enough_ends_it(tmp_path: Path) -> None:
    """A process that still has much to tell is gone at once."""
    beside = Beside(story(look(tmp_path, "log", b"".join(refused(START + n) for n in range(50_000)))))
    next(iter(beside))
    beside.close()
    assert not alive(beside._process.pid or 0)
