"""Restoring files, also those that somebody else changed after setup."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve

from ringfence.errors import SetupError
from ringfence.features.setup.journal import (
    KEPT,
    JournalRecord,
    Produced,
    open_journal,
    read_journal,
    restore_files,
    without_change,
)
from ringfence.host.file_changes import (
    MAX_BYTES,
    FileChange,
    FileState,
    FolderChange,
    FolderState,
    file_state,
)

UID, GID = os.geteuid(), os.getegid()
BEFORE = FileState(b"[a]\nx = 1\n", 0o640, UID, GID)
AFTER = evolve(BEFORE, content=b"[a]\nx = 1\n\n[ringfence]\ny = 2\n")


def made(path: Path, before: FileState | None = BEFORE, after: FileState = AFTER) -> FileChange:
    """Make a change, and return it."""
    change = FileChange(path, before, after, "a test")
    change.apply()
    return change


def restore(*changes: FileChange | FolderChange) -> list[str]:
    """Restore changes, and return what was reported."""
    return [*restore_files(JournalRecord(changes))]


def test_a_changed_file_and_a_new_file_are_as_before(tmp_path: Path) -> None:
    """Content and mode come back, and a new file is removed; a second call changes nothing."""
    old, new = made(tmp_path / "old"), made(tmp_path / "new", None)

    for _ in range(2):
        assert restore(old, new) == []
        assert file_state(old.path) == BEFORE
        assert not new.path.exists()


def test_a_file_that_two_runs_changed_is_as_before_the_first(tmp_path: Path) -> None:
    """A second call finds the file as the first one left it: nobody else has changed it."""
    last = evolve(AFTER, content=AFTER.content + b"z = 3\n")
    first = made(tmp_path / "x")
    second = made(first.path, AFTER, last)

    for _ in range(2):
        assert restore(first, second) == []
        assert file_state(first.path) == BEFORE
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_that_setup_made_too_long_to_be_changed_is_as_before(tmp_path: Path) -> None:
    """Setup may have added to a file of the maximum length."""
    before = evolve(BEFORE, content=b"\n" * MAX_BYTES)
    change = FileChange(tmp_path / "x", before, evolve(BEFORE, content=before.content + b"y = 2\n"), "a test")
    with open_journal(tmp_path / "state") as journal:
        journal.add(change)
        change.apply()
    record = read_journal(tmp_path / "state")

    assert record.changes == (change,)
    assert restore(*record.changes) == []
    assert file_state(change.path) == before


def test_a_mode_that_somebody_else_changed_stays(tmp_path: Path) -> None:
    """Products set the modes of all of Asterisk's files again: only the content is restored."""
    change = made(tmp_path / "x")
    change.path.chmod(0o664)

    assert restore(change) == []
    assert file_state(change.path) == evolve(BEFORE, mode=0o664)


def test_lines_that_somebody_else_added_stay(tmp_path: Path) -> None:
    """Only the lines of setup are removed, and this is reported."""
    change = made(tmp_path / "x")
    change.path.write_bytes(b"; first\n" + AFTER.content + b"[b]\nz = 3\n")
    [line] = restore(change)

    assert change.path.read_bytes() == b"; first\n[a]\nx = 1\n[b]\nz = 3\n"
    assert line.endswith(
        "was changed after setup: only the lines of setup are removed from it, the rest stays"
    )


def test_a_change_within_the_lines_of_setup_is_kept_beside_the_original(tmp_path: Path) -> None:
    """If the lines cannot be separated, the file stays, and the original is written beside it."""
    change = made(tmp_path / "x")
    change.path.write_bytes(AFTER.content.replace(b"y = 2", b"y = 3"))
    [line] = restore(change)

    assert b"y = 3" in change.path.read_bytes()
    assert (tmp_path / f"x{KEPT}").read_bytes() == BEFORE.content
    assert f"what it was before is in {tmp_path}/x{KEPT}" in line


def test_files_that_cannot_be_restored_stop_no_other(tmp_path: Path) -> None:
    """All other files come back first. The error then names each path that the administrator must fix."""
    first, full, pipe = (made(tmp_path / name) for name in ("first", "full", "pipe"))
    (tmp_path / ".full.ringfence-new").mkdir()
    (tmp_path / ".full.ringfence-new" / "x").touch()
    pipe.path.unlink()
    os.mkfifo(pipe.path)

    with pytest.raises(SetupError) as caught:
        restore(first, full, pipe)
    assert file_state(first.path) == BEFORE
    assert str(pipe.path) in str(caught.value)
    assert f"cannot remove {tmp_path}/.full.ringfence-new: Directory not empty" in str(caught.value)


def test_a_new_file_that_somebody_else_changed_stays(tmp_path: Path) -> None:
    """The file is not destroyed, and the line names it."""
    change = made(tmp_path / "x", None)
    change.path.write_bytes(b"mine")

    assert restore(change) == [
        f"{tmp_path}/x was made by setup and changed since: it stays; fix: remove it if it is not needed"
    ]
    assert change.path.read_bytes() == b"mine"


def test_a_file_that_somebody_else_removed_comes_back(tmp_path: Path) -> None:
    """The state before setup includes the file."""
    change = made(tmp_path / "x")
    change.path.unlink()

    assert restore(change) == []
    assert file_state(change.path) == BEFORE


def test_folders_are_removed_if_they_are_empty(tmp_path: Path) -> None:
    """A new folder with a file of somebody else stays and is reported."""
    rights = FolderState(0o750, UID, GID)
    empty, full = (FolderChange(tmp_path / name, None, rights, "a test") for name in ("empty", "full"))
    for change in (empty, full):
        change.apply()
    (full.path / "other").write_bytes(b"")

    assert restore(empty, full) == [f"{full.path} stays, because it is not empty"]
    assert not empty.path.exists()


def test_files_that_programs_wrote_are_removed(tmp_path: Path) -> None:
    """New files of ringfence are removed from a folder, older ones and those of others stay."""
    for name in ("ringfence", "ringfence.1", "ringfence.old", "other"):
        (tmp_path / name).write_bytes(b"")
    produced = Produced(tmp_path, "ringfence", existed=True, names=("ringfence.old",))

    assert [*restore_files(JournalRecord(produced=(produced,)))] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "ringfence.old"]


@pytest.mark.parametrize(
    ("before", "after", "now", "result"),
    [
        (b"a\nb\n", b"a\nX\n", b"0\na\nX\n", b"0\na\nb\n"),
        (b"a\n", b"a\nX\n", b"a\nX\nX\n", None),
        (b"a\n", b"a\nX\n", b"a\n", None),
        (b"", b"X\n", b"X\nmine\n", b"mine\n"),
        (b"a\nb\n", b"b\n", b"b\nc\n", None),
        (b"a", b"a\n\nX\n", b"a\n\nX\nb\n", b"a\nb\n"),
    ],
)
def test_a_change_is_taken_out_only_if_that_is_certain(
    before: bytes, after: bytes, now: bytes, result: bytes | None
) -> None:
    """The changed lines must be there exactly once, and nothing may have been only removed."""
    assert without_change(before, after, now) == result


def test_only_the_lines_around_a_change_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matcher takes the square of its lines: half an hour for 80 000 that setup did not change."""
    compared: list[int] = []
    matcher = difflib.SequenceMatcher

    def counted(_: None, new: Sequence[bytes], old: Sequence[bytes], *, autojunk: bool) -> object:
        compared.append(len(new) + len(old))
        return matcher(None, new, old, autojunk)

    monkeypatch.setattr(difflib, "SequenceMatcher", counted)
    many = b"\n" * 100
    before, after = b"a\n" + many + b"b\n" + many, b"a\n" + many + b"b\nX\n" + many

    assert without_change(before, after, b"0\n" + after) == b"0\n" + before
    assert compared == [1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"a\n%b" % (b"\n" * 1000), b"X\n%bY\n" % (b"\n" * 1000), id="a long change"),
        pytest.param(b"", b"X\n" * 500 + b"Y\n" * 500, id="a long search"),
    ],
)
def test_a_change_that_takes_long_to_find_stays(before: bytes, after: bytes) -> None:
    """Asterisk's user can write files of millions of lines. An undo ends all the same."""
    now = after + b"z\n" * 10_000

    assert without_change(before, after, now) is None
