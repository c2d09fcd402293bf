"""Kept networks: root writes and reads their file with the rights of its folder's owner."""

import errno
import os
import tempfile
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ringfence.lists import kept
from ringfence.lists.prefixes import Gatherer, Prefixes
from ringfence.values.network import Network

SERVICE = 65_534
OTHER = 4_711


def prefixes(network: Network) -> Prefixes:
    """Return one network."""
    gatherer = Gatherer()
    gatherer.add(network)
    return gatherer.prefixes()


ONE = prefixes(ip_network("192.0.2.0/24"))


@pytest.fixture(name="state")
def _state() -> Iterator[Path]:
    """Yield the state folder of the service's user, in a folder of root that everybody can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        state = Path(name) / "state"
        state.mkdir(0o750)
        if os.geteuid() == 0:
            os.chown(state, SERVICE, SERVICE)
        yield state


def test_what_is_written_is_read(state: Path) -> None:
    """The head and the networks come back; a file that was forgotten is empty, and may be forgotten again."""
    path = state / "feeds" / "one.list"
    kept.write(path, {"source": "x"}, [ONE])
    head, lists = kept.read(path)
    assert (head["source"], lists) == ("x", [ONE])

    kept.forget(path)
    kept.forget(path)
    assert kept.read(path) == ({}, [])


def test_a_full_disk_leaves_the_old_file_and_no_part(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the new file would keep the disk full, which the database needs."""
    kept.write(state / "regions", {"source": "old"}, [ONE])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.write(state / "regions", {"source": "new"}, [])

    assert [file.name for file in state.iterdir()] == ["regions"]
    assert kept.read(state / "regions")[0]["source"] == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the rights of others")
@pytest.mark.parametrize("name", ["regions", "feeds/one.list"])
def test_what_root_writes_belongs_to_the_service(state: Path, name: str) -> None:
    """A file and a folder that root makes can be used by the service's own user."""
    path = state / name
    kept.write(path, {}, [ONE])

    assert {(one.stat().st_uid, one.stat().st_gid) for one in state.rglob("*")} == {(SERVICE, SERVICE)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the rights of others")
@pytest.mark.parametrize("owner", [0, OTHER, SERVICE])
def test_root_follows_no_link_out_of_the_state_folder(state: Path, owner: int) -> None:
    """The service's user aims root at no folder that this user could not change without root."""
    elsewhere = state.parent / "elsewhere"
    elsewhere.mkdir(0o755)
    (elsewhere / "one.list").write_bytes(b"precious")
    for path in (elsewhere, elsewhere / "one.list"):
        os.chown(path, owner, owner)
    (state / "feeds").symlink_to(elsewhere)
    os.chown(state / "feeds", SERVICE, SERVICE, follow_symlinks=False)
    path = state / "feeds" / "one.list"

    if owner == SERVICE:  # the user only moved the folder
        kept.write(path, {}, [ONE])
        assert kept.read(path)[1] == [ONE]
        kept.forget(path)
        return
    with pytest.raises(PermissionError, match="owns"):
        kept.write(path, {}, [ONE])
    with pytest.raises(PermissionError, match="owns"):
        kept.forget(path)
    assert kept.read(path) == ({}, [])
    assert {one.name: one.read_bytes() for one in elsewhere.iterdir()} == {"one.list": b"precious"}
