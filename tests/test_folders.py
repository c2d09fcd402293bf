"""A folder that is made before the unit is started."""

import os
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
