"""Folders that a command creates before the unit is started."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from ringfence.guard import process


def test_a_folder_is_made_for_the_units_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new folder is closed to other users; if the unit's user does not exist, it belongs to its creator."""
    monkeypatch.setattr(process, "USER", "nobody-has-this-name")
    process.make_folder(tmp_path / "new")

    made = (tmp_path / "new").stat()
    assert (made.st_mode & 0o777, made.st_uid) == (0o750, os.geteuid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that root creates belongs to the unit's user, so that the daemon can use it."""
    monkeypatch.setattr(process, "USER", "daemon")
    process.make_folder(tmp_path / "new")

    assert (tmp_path / "new").stat().st_uid != 0


def test_what_is_there_or_cannot_be_stays_as_it_is(tmp_path: Path) -> None:
    """An existing folder keeps its mode, and a folder that cannot be created raises no error."""
    (tmp_path / "old").mkdir(mode=0o700)
    process.make_folder(tmp_path / "old")
    process.make_folder(tmp_path / "no" / "such")

    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "no").exists()


def test_a_loop_of_links_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that opens the file reports the loop."""
    monkeypatch.setattr(process, "USER", "daemon")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        loop = Path(name, "loop")
        loop.symlink_to(loop)
        assert process.closed_to_user(loop) is None
        assert process.closed_to_user(loop / "secret") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_permission_to_read_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owner, group and modes of folders and file decide; if the unit's user is missing, nothing is closed."""
    monkeypatch.setattr(process, "USER", "daemon")
    group = pwd.getpwnam("daemon").pw_gid
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder, file = Path(name), Path(name, "secret")
        file.write_text("hunter2", "utf-8")
        seen = []
        for owner, mode, way in (
            (0, 0o640, 0o755),
            (group, 0o640, 0o755),
            (group, 0o600, 0o755),
            (0, 0o644, 0o700),
        ):
            os.chown(file, 0, owner)
            file.chmod(mode)
            folder.chmod(way)
            seen.append(process.closed_to_user(file))
        monkeypatch.setattr(process, "USER", "nobody-has-this-name")
        seen.append(process.closed_to_user(file))

    assert seen == [file, None, file, folder, None]
