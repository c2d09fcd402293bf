"""The journal: complete after each write, and closed to other users and processes."""

import errno
import json
import os
from pathlib import Path

import pytest
from attrs import evolve

from ringfence.errors import SetupError
from ringfence.features.setup import journal as setup_journal
from ringfence.features.setup.journal import (
    JournalRecord,
    Produced,
    Unit,
    open_journal,
    read_journal,
)
from ringfence.host.file_changes import FileChange, FileState, FolderChange, FolderState

UID, GID = os.geteuid(), os.getegid()
OLD = FileState(b"old\xff", 0o640, UID, GID)
NEW = FileState(b"new", 0o600, UID, GID)
CHANGES = (
    FolderChange(Path("/a"), None, FolderState(0o750, 1, 2), "a folder"),
    FileChange(Path("/a/b"), OLD, NEW, "a file"),
    FileChange(Path("/a/c"), None, NEW, "another file"),
)
PRODUCED = Produced(Path("/var/log/x"), "x", existed=False, names=())
UNIT = Unit("ringfence.service", enabled=False, active=True)
REGISTRATIONS = ("machine", "pbx-a", "CrowdSec"), ("bouncer", "pbx-a", "CrowdSec")


def test_everything_that_was_recorded_is_read_again(tmp_path: Path) -> None:
    """Another process reads the same record, with the content of each file."""
    folder = tmp_path / "state"
    with open_journal(folder) as journal:
        journal.begin([PRODUCED], [UNIT])
        for change in CHANGES:
            journal.add(change)
        for one in REGISTRATIONS:
            journal.add_registration(one)
        journal.complete()
        written = journal.record

    whole = JournalRecord(
        CHANGES, (PRODUCED,), (UNIT,), complete=True, registrations=REGISTRATIONS, kept=(3, 2)
    )
    assert read_journal(folder) == written == whole


def test_a_second_run_keeps_what_was_before_the_first(tmp_path: Path) -> None:
    """The states of units and folders are those before the first run."""
    with open_journal(tmp_path / "state") as journal:
        journal.begin([PRODUCED], [UNIT])
        journal.begin(
            [Produced(Path("/var/log/x"), "x", existed=True, names=("x",))], [evolve(UNIT, enabled=True)]
        )

        assert (journal.record.produced, journal.record.units) == ((PRODUCED,), (UNIT,))


def test_the_journal_and_its_copies_belong_to_this_user_alone(tmp_path: Path) -> None:
    """The copies contain passwords."""
    folder = tmp_path / "state"
    with open_journal(folder) as journal:
        journal.add(CHANGES[1])
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}

    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes == {"journal.json": 0o600, "0.before": 0o600, "0.after": 0o600, "lock": 0o600}


def test_a_folder_that_others_can_use_is_refused(tmp_path: Path) -> None:
    """Somebody else could have written the journal."""
    (tmp_path / "state").mkdir(mode=0o755)

    with pytest.raises(SetupError, match="must belong to root alone"), open_journal(tmp_path / "state"):
        pass


def test_a_disk_that_fails_at_the_begin_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the names of the folder cannot reach the disk, setup is refused, and nothing of it stays."""

    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(setup_journal, "sync_folder", refuse)

    with pytest.raises(SetupError, match="Input/output error"), open_journal(tmp_path / "state"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    """The second process gets an error, and the first continues."""
    with open_journal(tmp_path / "state") as journal:
        with (
            pytest.raises(SetupError, match="another `ringfence setup` is running"),
            open_journal(tmp_path / "state"),
        ):
            pass
        journal.add(CHANGES[0])


def test_without_an_entry_no_folder_stays(tmp_path: Path) -> None:
    """A run that records nothing, or undoes everything, leaves no folder."""
    with open_journal(tmp_path / "state"):
        pass
    assert not (tmp_path / "state").exists()

    with open_journal(tmp_path / "state") as journal:
        journal.add(CHANGES[1])
        journal.remove()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}'])
def test_a_damaged_journal_is_an_error(tmp_path: Path, text: str) -> None:
    """The message names the file and where the copies are."""
    (tmp_path / "journal.json").write_text(text, "utf-8")

    with pytest.raises(SetupError, match="is damaged"):
        read_journal(tmp_path)


def test_a_journal_of_another_version_is_an_error(tmp_path: Path) -> None:
    """An undo by a wrong program could destroy files."""
    (tmp_path / "journal.json").write_text(json.dumps({"version": 2}), "utf-8")

    with pytest.raises(SetupError, match="another version"):
        read_journal(tmp_path)


def test_a_missing_copy_is_an_error(tmp_path: Path) -> None:
    """Without the original nothing can be restored."""
    folder = tmp_path / "state"
    with open_journal(folder) as journal:
        journal.add(CHANGES[1])
        (folder / "0.before").unlink()

        with pytest.raises(SetupError, match=r"0\.before is missing"):
            read_journal(folder)


def test_only_the_changes_of_a_failed_run_are_dropped(tmp_path: Path) -> None:
    """The first changes, of an earlier run, stay."""
    with open_journal(tmp_path / "state") as journal:
        journal.add(CHANGES[0])
        journal.add_registration(REGISTRATIONS[0])
        journal.complete()
        for change in CHANGES[1:]:
            journal.add(change)
        journal.add_registration(REGISTRATIONS[1])
        journal.keep()

        assert journal.record == JournalRecord(
            CHANGES[:1], (), (), complete=True, registrations=REGISTRATIONS[:1], kept=(1, 1)
        )
