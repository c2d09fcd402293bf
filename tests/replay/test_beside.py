"""A source in a process of its own: batches arrive unchanged, and the process ends with its use."""

import os
from pathlib import Path

import pytest
from tests.replay.logs import START, guesses, inspected, refused, replay_input, unregistered
from tests.support.captures import captures

from ringfence.errors import SourceError
from ringfence.replay.beside import ReaderProcess, pack, unpack
from ringfence.replay.source_reader import Batch, read_batches


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal."""
    numbers = [(batch.lines, batch.tampered, batch.read, batch.warnings) for batch in (one, other)]
    return one.events == other.events and [*one.senders] == [*other.senders] and numbers[0] == numbers[1]


def alive(process: int) -> bool:
    """Whether a process exists."""
    return Path(f"/proc/{process}").exists()


def test_every_recording_is_unchanged(tmp_path: Path) -> None:
    """Events of all kinds, services and addresses, with any text, are decoded unchanged."""
    for number, capture in enumerate(captures()):
        for path, witness in (
            (capture.ami, "ami"),
            (capture.security_log, "log:x"),
            (capture.messages_log, "log:y"),
        ):
            file = inspected(tmp_path, f"{path.name}-{number}", path.read_bytes())
            for batch in read_batches(replay_input(file, witness)):
                assert same(unpack(pack(batch)), batch)


def test_a_batch_of_nothing() -> None:
    """A part of a log without events is a batch too."""
    assert same(unpack(pack(Batch(lines=7, read=9))), Batch(lines=7, read=9))


def test_the_batches_are_the_same(tmp_path: Path) -> None:
    """The process sends the same batches in the same order, and ends."""
    data = b"".join(guesses(60, START + n * 100, f"192.0.2.{n}") + refused(START + n) for n in range(50))
    batches_of_log = replay_input(inspected(tmp_path, "log", data + unregistered()))
    beside = ReaderProcess(batches_of_log)
    batches = list(beside)
    assert len(batches) > 3
    assert all(same(*pair) for pair in zip(batches, read_batches(batches_of_log), strict=True))
    beside.close()
    assert not alive(beside._process.pid or 0)


def test_an_error_comes_over(tmp_path: Path) -> None:
    """An error in the process is raised here, with the name of the file."""
    lost = replay_input(inspected(tmp_path, "log", refused()))
    (tmp_path / "log").unlink()
    beside = ReaderProcess(lost)
    with pytest.raises(SourceError, match="log: No such file or directory"):
        list(beside)
    beside.close()


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """A killed process is an error, and not the end of the source."""
    beside = ReaderProcess(
        replay_input(inspected(tmp_path, "log", b"".join(refused(START + n) for n in range(20_000))))
    )
    os.kill(beside._process.pid or 0, 9)
    with pytest.raises(SourceError, match="was killed"):
        list(beside)
    beside.close()


def test_closing_ends_the_process(tmp_path: Path) -> None:
    """Closing ends the process at once, even with batches left."""
    beside = ReaderProcess(
        replay_input(inspected(tmp_path, "log", b"".join(refused(START + n) for n in range(50_000))))
    )
    next(iter(beside))
    beside.close()
    assert not alive(beside._process.pid or 0)
