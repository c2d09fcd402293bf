"""One open file: whole lines, and positions that fit or do not."""

import os
from pathlib import Path

import pytest

from ringfence.sources.log_rotation import (
    CHUNK,
    NOWHERE,
    Fifo,
    Position,
    RewrittenError,
    Tail,
    open_log,
    open_tails,
    rotated_files,
)


def tail_of(path: Path) -> Tail:
    """Open a regular file."""
    file = open_log(path)
    assert isinstance(file, Tail)
    return file


def test_only_whole_lines_are_returned(tmp_path: Path) -> None:
    """A line is returned when its end is there, and then from its beginning."""
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    tail = tail_of(path)
    assert [tail.read(), tail.read()] == [b"one\n", b""]
    with path.open("ab") as file:
        file.write(b"o\nthree")
    assert [tail.read(), tail.read(), tail.rest()] == [b"two\n", b"", b"three"]
    tail.close()


@pytest.mark.parametrize("anew", [b"", b"other\n", b"0123456789\n" * 20])
def test_a_rewritten_file_is_noticed(tmp_path: Path, anew: bytes) -> None:
    """A shorter, equally long or longer file is noticed if its bytes differ from those that were read."""
    path = tmp_path / "log"
    path.write_bytes(b"a line\n" * 3)
    tail = tail_of(path)
    tail.read()
    path.write_bytes(anew)

    with pytest.raises(RewrittenError) as raised:
        tail.read()
    assert raised.value.tail is tail
    assert tail.rest() == b""
    tail.close()


def test_a_position_fits_the_file_and_its_copy(tmp_path: Path) -> None:
    """The bytes before the position decide, not the name or the inode alone."""
    path, copy, other = (tmp_path / name for name in ("log", "copy", "other"))
    path.write_bytes(b"one\ntwo\n")
    tail = tail_of(path)
    empty = tail.position
    tail.read()
    position = Position.from_text(tail.position.to_text())
    copy.write_bytes(b"one\ntwo\nthree\n")
    other.write_bytes(b"one\nTWO\n")
    files = [tail_of(each) for each in (path, copy, other)]

    assert position is not None
    assert [file.fits(position) for file in files] == [True, True, False]
    assert [file.fits(empty) for file in files] == [True, False, False]
    assert [file.fits(NOWHERE) for file in files] == [False, False, False]
    for file in (tail, *files):
        file.close()


def test_the_last_line_is_where_a_first_start_begins(tmp_path: Path) -> None:
    """It begins after the last line's end; a line without an end for longer than a chunk is skipped."""
    path = tmp_path / "log"
    for content, offset in ((b"", 0), (b"one\n", 4), (b"one\ntw", 4), (b"tw", 0), (b"x" * 20_000, 20_000)):
        path.write_bytes(content)
        tail = tail_of(path)
        tail.go_to_last_line()
        assert tail.offset == offset
        tail.close()


def test_rotated_files_are_recognised(tmp_path: Path) -> None:
    """Numbers, times and dates of Asterisk and logrotate; never another log, nor a compressed one."""
    path = tmp_path / "messages"
    wanted = ["messages.0", "messages.12", "messages.1700000000", "messages-20261120", "messages-20261120.1"]
    others = ["messages", "messages.log", "messages.0.gz", "messages.1.bz2", "messages_log", "amessages.0"]
    for age, name in enumerate([*reversed(wanted), *others]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(0, 1_000 + age))

    assert [found.name for found in rotated_files(path)] == wanted[::-1]
    assert [found.name for found in rotated_files(path, 1_003)] == wanted[1::-1]
    assert rotated_files(tmp_path / "none" / "messages") == []


def test_of_many_rotated_files_the_last_written_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asterisk's user may make any number of such names, and unread lines are in the last written files."""
    monkeypatch.setattr("ringfence.sources.log_rotation.MOST_ROTATED", 2)
    for age in (2, 0, 3, 1):
        (tmp_path / f"messages.{age}").touch()
        os.utime(tmp_path / f"messages.{age}", ns=(0, 1_000 - age))

    found = [file.name for file in rotated_files(tmp_path / "messages")]
    assert found == ["messages.1", "messages.0"]
    assert [file.name for file in rotated_files(tmp_path / "messages", 1_000)] == ["messages.0"]


def test_other_paths_are_left_out(tmp_path: Path) -> None:
    """Of several paths the regular files are opened; a FIFO can be followed, but has no past."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    names = ("file", "folder", "fifo", "none")

    found = list(open_tails(tmp_path / name for name in names))
    for file in found:
        file.close()
    assert len(found) == 1


def test_a_stream_keeps_no_more_than_a_chunk(tmp_path: Path) -> None:
    """Without a line's end a FIFO's bytes are returned in pieces."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    stream = open_log(path)
    assert isinstance(stream, Fifo)
    assert stream.read() == b""
    writer = os.open(path, os.O_WRONLY)
    assert stream.read() == b""
    os.write(writer, b"one\ntw")
    assert [stream.read(), stream.read()] == [b"one\n", b""]
    os.write(writer, b"x" * 2 * CHUNK)
    pieces = [stream.read(), stream.read(), stream.rest()]
    assert b"".join(pieces) == b"tw" + b"x" * 2 * CHUNK
    os.close(writer)
    stream.close()
