"""Files to replay: formats, groups of rotated files, and errors of unreadable ones."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest
from tests.features.replay.logs import FAILED, START, file, inspected, security
from tests.support.captures import capture

from ringfence.errors import SourceError
from ringfence.features.replay.files import in_order, inspect, open_file, original

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def content(path: Path) -> tuple[bytes, bool]:
    """Read a whole file; return it, and whether it was truncated."""
    with open_file(path) as opened:
        data = b""
        while more := opened.read():
            data += more
        assert opened.position == path.stat().st_size or opened.cut
        return data, opened.cut


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("named", [True, False])
def test_compressed_files(tmp_path: Path, suffix: str, *, named: bool) -> None:
    """Compression is recognized by name or first bytes, and the whole file is decompressed."""
    data = security(FAILED) * 3000
    path = file(tmp_path, f"log{suffix if named else ''}", PACKERS[suffix](data))
    assert content(path) == (data, False)
    found = inspect(path, UTC)
    assert (found.known, found.is_ami, found.first) == (True, False, START)
    assert found.size == path.stat().st_size


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_a_truncated_compressed_file(tmp_path: Path, suffix: str) -> None:
    """A truncated file returns its existing part, and is marked."""
    data = b"".join(security(FAILED, START + n) for n in range(5000))
    packed = PACKERS[suffix](data)
    found, cut = content(file(tmp_path, f"log{suffix}", packed[: len(packed) * 3 // 4]))
    assert cut
    assert data.startswith(found)
    assert len(found) > len(data) // 3  # bzip2 packs blocks of 900 kB


def test_several_packed_into_one(tmp_path: Path) -> None:
    """``cat a.gz b.gz`` is one file."""
    path = file(tmp_path, "log.gz", gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert content(path) == (b"a\nb\n", False)


def test_a_recording_of_ami(tmp_path: Path) -> None:
    """A recording is recognized by the greeting, or by an event if it begins later."""
    recorded = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
    for data in (recorded, b"Asterisk Call Manager/11.0.0\r\n" + recorded):
        found = inspected(tmp_path, "tap", data)
        assert found.is_ami
        assert found.first == pytest.approx(1795154701.461)


def test_a_log_that_begins_with_nuls(tmp_path: Path) -> None:
    """NULs at the beginning, left by copytruncate, are ignored."""
    assert inspected(tmp_path, "log", b"\0" * 5000 + security(FAILED)).first == START


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (b"", True),
        (b"[2026-11-20 06:05:22] VERBOSE[1] pbx.c: nothing\n", True),
        (b'{"log": "[2026-11-20 06:05:22] VERBOSE[1] pbx.c: x\\n"}\n', True),
        (b"somebody's poem\nin two lines\n", False),
    ],
)
def test_an_unrecognized_log(tmp_path: Path, data: bytes, *, known: bool) -> None:
    """Text without a line of Asterisk near its beginning may be a log, and is marked as unknown."""
    assert inspected(tmp_path, "log", data).known is known


def test_the_zone_and_the_year(tmp_path: Path) -> None:
    """A time without zone has the given one; a date without year is not later than the file's time."""
    path = file(tmp_path, "log", b"[Nov 20 06:05:22] VERBOSE[1] pbx.c: nothing\n")
    os.utime(path, (START + 60, START + 60))
    assert inspect(path, UTC).first == START
    os.utime(path, (START - 360 * 86_400, START - 360 * 86_400))
    assert inspect(path, UTC).first == START - 365 * 86_400


def test_unreadable_files(tmp_path: Path) -> None:
    """Each error has the file's name and the reason."""
    noise = random.Random(1).randbytes(100_000)  # noqa: S311 - no secret
    wrong = {
        tmp_path / "absent": "No such file or directory",
        tmp_path: "it is not a regular file",
        file(tmp_path, "a.gz", b"not packed at all"): "is damaged, or not compressed as its name suggests",
        file(tmp_path, "a.xz", b"not packed at all"): "is damaged, or not compressed as its name suggests",
        file(tmp_path, "junk", noise): "is neither a log nor a recording of AMI",
        file(tmp_path, "packed.gz", gzip.compress(noise)): "is neither a log nor a recording of AMI",
        Path("/dev/null"): "it is not a regular file",
    }
    for path, reason in wrong.items():
        with pytest.raises(SourceError) as raised:
            inspect(path, UTC)
        assert str(raised.value).startswith(f"{path}: ")
        assert reason in str(raised.value)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_damage_in_the_middle(tmp_path: Path, suffix: str) -> None:
    """The part before the damage is read; then the error names the file."""
    noise = random.Random(1)  # noqa: S311 - no secret
    data = b"".join(security(FAILED, session=noise.randbytes(16).hex()) for _ in range(5000))
    packed = bytearray(PACKERS[suffix](data))
    packed[len(packed) // 2 : len(packed) // 2 + 100] = noise.randbytes(100)
    path = file(tmp_path, f"log{suffix}", bytes(packed))
    with pytest.raises(SourceError, match="is damaged") as raised:
        content(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "was", "number"),
    [
        ("messages", "messages", 0),
        ("messages.1", "messages", 1),
        ("messages.12.gz", "messages", 12),
        ("messages.log.2.xz", "messages.log", 2),
        ("messages-20261120", "messages", 0),
        ("messages-20261120.gz", "messages", 0),
        ("messages-20261120-1795154722.log", "messages.log", 0),
        ("messages.1.log", "messages.log", 1),
        ("messages.1795154722", "messages", 1795154722),
        ("asterisk-22", "asterisk-22", 0),
        ("pbx.example.org.log", "pbx.example.org.log", 0),
    ],
)
def test_original_names(name: str, was: str, number: int) -> None:
    """Numbers and dates of logrotate and Asterisk, and suffixes of compression, are removed."""
    expected = was, 0 if number == 0 else number
    path, found = original(Path("/var/log") / name)
    assert (path.name, found) == expected
    assert path.parent == Path("/var/log")


def test_rotated_files_are_one_in_order_of_time(tmp_path: Path) -> None:
    """Rotated files are ordered by their times, whatever their names; other files are separate."""
    files = [
        inspected(tmp_path, name, data)
        for name, data in {
            "security": security(FAILED, START),
            "security.1": security(FAILED, START - 300),
            "security.2.gz": gzip.compress(security(FAILED, START - 100)),
            "security-20261119": security(FAILED, START - 200),
            "security.9": b"",
            "messages": security(FAILED, START),
        }.items()
    ]
    groups = [[one.path.name for one in group if one.size] for group in in_order(files)]
    assert groups == [["security.1", "security-20261119", "security.2.gz", "security"], ["messages"]]


def test_a_file_that_became_a_loop_of_links_is_a_file_like_others(tmp_path: Path) -> None:
    """Opening the file again reports the loop."""
    file = inspected(tmp_path, "log", b"")
    file.path.unlink()
    file.path.symlink_to(file.path)
    assert in_order([file, file]) == [(file,)]


def test_files_without_times_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    """Without times the highest number is the oldest, as in logrotate."""
    line = b"NOTICE[1] chan_sip.c: Registration from '' failed for '192.0.2.7' - Wrong password\n"
    files = [inspected(tmp_path, name, line * 3) for name in ("log", "log.1", "log.10", "log.2")]
    # Each line gets the file's modification time, which does not show the time of the first line.
    assert [one.path.name for one in in_order(files)[0]] == ["log.10", "log.2", "log.1", "log"]


def test_one_file_is_read_once(tmp_path: Path) -> None:
    """A file given under several names is read once; the same name in another folder is another file."""
    other = tmp_path / "other"
    other.mkdir()
    one = inspected(tmp_path, "log", security(FAILED))
    (tmp_path / "link").symlink_to(tmp_path / "log")
    files = [one, inspect(tmp_path / "link", UTC), one, inspected(other, "log", security(FAILED))]
    assert [len(group) for group in in_order(files)] == [1, 1]


@pytest.mark.parametrize(
    ("head", "fix"),
    [
        (b"\x28\xb5\x2f\xfd", "zstd -d"),
        (b"\x04\x22\x4d\x18", "lz4 -d"),
        (b"PK\x03\x04", "unzip"),
        (b"7z\xbc\xaf\x27\x1c", "7z x"),
    ],
)
def test_a_packed_file_that_is_not_read(tmp_path: Path, head: bytes, fix: str) -> None:
    """The error names the program that unpacks the file."""
    with pytest.raises(SourceError, match=fix):
        inspect(file(tmp_path, "log.1", head + b"x" * 100), UTC)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_of_logs(tmp_path: Path, mode: str) -> None:
    """An archive is not read as if it were a log."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("messages"), io.BytesIO(b""))
    with pytest.raises(SourceError, match="is an archive; fix: unpack it with tar"):
        inspect(file(tmp_path, "logs.tgz", made.getvalue()), UTC)
