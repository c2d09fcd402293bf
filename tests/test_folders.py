"""A folder that is made before the unit is started."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from ringfence import folders


def test_a_folder_is_made_for_the_units_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nobody else's to look into; where there is no such user, it is of who made it."""
    monkeypatch.setattr(folders, "USER", "nobody-has-this-name")
    folders.make_folder(tmp_path / "new")

    made = (tmp_path / "new").stat()
    assert (made.st_mode & 0o777, made.st_uid) == (0o750, os.geteuid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root makes does not lock the daemon out."""
    monkeypatch.setattr(folders, "USER", "daemon")
    folders.make_folder(tmp_path / "new")

    assert (tmp_path / "new").stat().st_uid != 0


def test_what_is_there_or_cannot_be_stays_as_it_is(tmp_path: Path) -> None:
    """Nothing is raised, and the folder keeps its mode."""
    (tmp_path / "old").mkdir(mode=0o700)
    folders.make_folder(tmp_path / "old")
    folders.make_folder(tmp_path / "no" / "such")

    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "no").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_who_may_read_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """By owner, group and mode of the file and of each folder on the way; without such a user he may."""
    monkeypatch.setattr(folders, "USER", "daemon")
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
            seen.append(folders.may_read(file))
        monkeypatch.setattr(folders, "USER", "nobody-has-this-name")
        seen.append(folders.may_read(file))

    assert seen == [False, True, False, False, True]
