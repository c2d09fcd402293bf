"""Changes of files and folders: written whole, and shown without passwords."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve
from tests.features.setup.world import SECRET

from ringfence.errors import SetupError
from ringfence.host.file_changes import (
    FileChange,
    FileState,
    FolderChange,
    FolderState,
    file_state,
    folder_state,
    masked,
    remove_file,
    temporary,
    write_file,
)

UID, GID = os.geteuid(), os.getegid()


def state(content: bytes, mode: int = 0o640) -> FileState:
    """Return the state of a file of this user."""
    return FileState(content, mode, UID, GID)


def test_a_file_is_written_with_its_mode(tmp_path: Path) -> None:
    """The new file has exactly the wanted state, and no temporary file stays."""
    path = tmp_path / "x.conf"
    change = FileChange(path, None, state(b"a\xff\n", 0o604), "a test")
    change.apply()

    assert file_state(path) == change.after
    assert [*tmp_path.iterdir()] == [path]


def test_a_rest_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    """A temporary file of a killed run does not stop the next one."""
    path = tmp_path / "x.conf"
    rest = tmp_path / temporary(path.name)
    rest.write_bytes(b"half")
    write_file(path, state(b"whole"))

    assert (path.read_bytes(), rest.exists()) == (b"whole", False)


def test_a_file_that_cannot_be_written_is_as_before(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    path = tmp_path / "gone" / "x.conf"

    with pytest.raises(SetupError, match=r"^cannot write .*/gone/x.conf: No such file or directory$"):
        write_file(path, state(b""))


def test_a_folder_gets_its_rights_before_its_name(tmp_path: Path) -> None:
    """The folder appears with its final mode; an existing one is changed."""
    path = tmp_path / "manager.d"
    after = FolderState(0o2751, UID, GID)
    FolderChange(path, None, after, "a test").apply()
    assert folder_state(path) == after

    FolderChange(path, after, FolderState(0o700, UID, GID), "a test").apply()
    assert folder_state(path) == FolderState(0o700, UID, GID)


def test_only_files_and_folders_are_changed(tmp_path: Path) -> None:
    """A file in place of a folder, or a folder in place of a file, is an error."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(SetupError, match="is no folder"):
        folder_state(tmp_path / "file")
    with pytest.raises(SetupError, match="Is a directory"):
        file_state(tmp_path)


def test_the_diff_hides_passwords() -> None:
    """Passwords of ringfence's user and of others, also in unchanged lines, are masked."""
    before = state(b"[admin]\nsecret = other-secret\n")
    after = state(b"[admin]\nsecret = other-secret\n[ringfence]\nsecret = " + SECRET.encode() + b"\n")
    shown = "\n".join(FileChange(Path("/etc/x"), before, after, "a test").shown())

    assert "+[ringfence]" in shown
    assert SECRET not in shown
    assert "other-secret" not in shown


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("+secret=abc", "+secret=********"),
        (" md5secret => x y", " md5secret => ********"),
        ("-Password = p", "-Password = ********"),
        ("+; the secret of this user", "+; the secret of this user"),
        ('secret_file = "/etc/x"', 'secret_file = "/etc/x"'),
        ('+token = "abc"', "+token = ********"),
        ('token_file = "/etc/x"', 'token_file = "/etc/x"'),
    ],
)
def test_lines_with_passwords_are_recognised(line: str, result: str) -> None:
    """Only the value of a password is replaced."""
    assert masked(line) == result


def test_removing_twice_is_no_error(tmp_path: Path) -> None:
    """A file that is gone already is no error; a folder that is gone is one."""
    remove_file(tmp_path / "gone")
    with pytest.raises(SetupError, match="cannot remove"):
        remove_file(tmp_path / "gone" / "x")


def test_a_long_line_is_masked_at_once() -> None:
    """Asterisk's user writes the line; an expression that backtracks would take minutes for it."""
    line = "pass" * 500_000
    assert masked(line) == line
    assert masked(f"{line}=hidden") == f"{line}=********"


def test_a_long_file_is_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matcher compares each pair of equal lines, and Asterisk's user can write millions."""
    compared: list[int] = []
    matcher = difflib.SequenceMatcher

    def counted(junk: None, old: Sequence[str], new: Sequence[str], autojunk: bool = True) -> object:  # noqa: FBT001, FBT002
        compared.append(len(old) + len(new))
        return matcher(junk, old, new, autojunk)

    monkeypatch.setattr(difflib, "SequenceMatcher", counted)
    before = state(b"[general]\n" + b"".join(b"; %d\n" % (number % 120) for number in range(12_000)))
    after = evolve(before, content=before.content + b"x = 1\n")
    shown = [*FileChange(Path("/etc/x"), before, after, "a test").shown()]

    assert "+x = 1" in shown
    assert sum(compared) < 100
