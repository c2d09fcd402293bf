"""Root uses the database with the rights of its folder's owner, who can aim root at no other file."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.attempts import ban_of

from ringfence.errors import StoreError
from ringfence.store.database import Store
from ringfence.store.owner import FileOwner, owner_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the rights of others")

SERVICE = 65_534
"""The user that runs the daemon in these tests."""
OTHER = 4_711
BESIDE = ("-wal", "-shm", "-journal", ".lock")
"""The ends of the names of the files that SQLite and ringfence open next to the database."""


@pytest.fixture(name="place")
def _place() -> Iterator[Path]:
    """Yield a folder of root that everybody can reach."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture(name="path")
def _path(place: Path) -> Path:
    """Return the path of a database in a folder of the service's user."""
    folder = place / "state"
    folder.mkdir(0o750)
    os.chown(folder, SERVICE, SERVICE)
    return folder / "ringfence.db"


@pytest.fixture(name="private")
def _private(place: Path) -> Path:
    """Return a file that only root can read, in a folder that only root can write to."""
    file = place / "private"
    file.write_bytes(b"a secret of root, and no database\n" * 200)
    file.chmod(0o600)
    return file


def as_service(action: Callable[[], object]) -> None:
    """Run ``action`` as the service's user."""
    os.seteuid(SERVICE)
    try:
        action()
    finally:
        os.seteuid(0)


def user_of_thread() -> str:
    """Return the users and groups of this thread: real, effective, saved, for files; the kernel's words."""
    status = Path("/proc/thread-self/status").read_text("ascii")
    return "".join(
        line for line in status.splitlines(keepends=True) if line.startswith(("Uid", "Gid", "CapEff"))
    )


def everything(folder: Path) -> dict[str, bytes]:
    """Return the content of every file directly in ``folder``."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_files_that_root_creates_belong_to_the_service(path: Path) -> None:
    """Files that root makes by a command or a manual start can be opened by the service's own user."""
    with Store.open(path, owner=True) as store:
        store.bans.record([ban_of("192.0.2.1")])
        owners = {file.name: (file.stat().st_uid, file.stat().st_gid) for file in path.parent.iterdir()}

    names = ("ringfence.db", "ringfence.db-shm", "ringfence.db-wal", "ringfence.db.lock")
    assert owners == dict.fromkeys(names, (SERVICE, SERVICE))


def test_root_keeps_its_other_rights(path: Path) -> None:
    """Between two uses of the database, the thread has all rights of root."""
    before = user_of_thread()
    with Store.open_or_memory(path) as store:
        store.bans.record([ban_of("192.0.2.1")])
        assert user_of_thread() == before
    assert user_of_thread() == before


def test_a_link_in_place_of_the_database_is_not_renamed_or_read(path: Path, private: Path) -> None:
    """If the service's user replaces the database by a link, root leaves the target as it is, and unread."""
    before, state = everything(private.parent), private.stat()
    as_service(lambda: path.symlink_to(private))
    with pytest.raises(StoreError):
        Store.open(path, owner=False)
    with Store.open_or_memory(path) as store:
        store.bans.record([ban_of("192.0.2.1")])

        assert store.memory_reason
    assert everything(private.parent) == before
    assert private.stat() == state


@pytest.mark.parametrize("suffix", BESIDE)
@pytest.mark.parametrize("target", ["private", "created"])
def test_a_link_beside_the_database_creates_and_changes_nothing(
    path: Path, private: Path, suffix: str, target: str
) -> None:
    """Root creates no file and changes none where a link of the service's user leads."""
    with Store.open(path, owner=True) as store:
        store.bans.record([ban_of("192.0.2.1")])
    before = everything(private.parent)
    path.with_name(path.name + ".lock").unlink()
    as_service(lambda: path.with_name(path.name + suffix).symlink_to(private.with_name(target)))
    for kept in (False, True):
        try:
            with Store.open_or_memory(path) if kept else Store.open(path, owner=False) as store:
                store.bans.record([ban_of("192.0.2.2")])
        except StoreError:
            pass

    assert everything(private.parent) == before


def test_a_damaged_database_is_renamed_with_the_rights_of_its_owner(path: Path) -> None:
    """Root keeps a damaged database aside, and makes a new one, both for the service's user."""
    as_service(lambda: path.write_bytes(b"damaged" * 1_000))
    with Store.open_or_memory(path) as store:
        assert "damaged" in store.damage()

    assert {file.stat().st_uid for file in path.parent.iterdir()} == {SERVICE}
    assert path.with_name("ringfence.db.damaged-1").exists()


def test_a_folder_that_another_user_can_exchange_is_refused(place: Path) -> None:
    """A link of another user on the way to the folder can lead anywhere, so root follows none."""
    theirs, roots = place / "theirs", place / "roots"
    for folder in (theirs, roots):
        folder.mkdir(0o755)
    (theirs / "state").symlink_to(roots)
    os.chown(theirs, OTHER, OTHER)
    os.chown(theirs / "state", OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(StoreError, match=f"user {OTHER} owns .*theirs"):
        Store.open(theirs / "state/ringfence.db", owner=True)
    with Store.open_or_memory(theirs / "state/ringfence.db") as store:
        assert f"user {OTHER}" in store.memory_reason

    assert list(roots.iterdir()) == []


@pytest.mark.parametrize("suffix", ["", *BESIDE])
def test_a_foreign_file_in_a_folder_of_root_is_refused(place: Path, private: Path, suffix: str) -> None:
    """In its own folder, root uses only its own files, and follows only its own links."""
    file = place / f"ringfence.db{suffix}"
    file.symlink_to(private)
    os.chown(file, OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(StoreError, match=f"user {OTHER} owns {file}"):
        Store.open(place / "ringfence.db", owner=True)
    file.unlink()
    file.touch()
    os.chown(file, OTHER, OTHER)
    with pytest.raises(StoreError, match=f"user {OTHER} owns {file}"):
        Store.open(place / "ringfence.db", owner=True)


def test_links_of_root_are_followed(place: Path, path: Path) -> None:
    """An administrator may keep the folder elsewhere, and put a link in its place."""
    (place / "link").symlink_to(path.parent)
    with Store.open(place / "link/ringfence.db", owner=True) as store:
        store.bans.record([ban_of("192.0.2.1")])

    assert path.stat().st_uid == SERVICE


def test_an_endless_link_is_an_error(place: Path) -> None:
    """A link that leads to itself ends with an error."""
    (place / "loop").symlink_to(place / "loop")
    with pytest.raises(StoreError, match="too many links"):
        Store.open(place / "loop/ringfence.db", owner=True)


def test_a_folder_of_root_that_others_can_write_to_is_refused(place: Path) -> None:
    """Others could put a link there between the check and the use, so root uses no such folder."""
    place.chmod(0o777)
    with pytest.raises(StoreError, match="others may write there; fix: chmod go-w"):
        Store.open(place / "ringfence.db", owner=True)


def test_rights_of_a_group_of_root_are_not_used(path: Path, private: Path) -> None:
    """A file that only a group of root may change stays out of reach."""
    private.chmod(0o660)
    os.setgroups([0])
    with owner_of(path).acting(), pytest.raises(PermissionError):
        private.open("r+b")


def test_root_without_the_right_to_change_users_uses_no_foreign_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If root cannot take the owner's rights, it does not use the database with its own rights."""

    class Kernel:
        """A kernel that refuses to change users."""

        def setfsuid(self, _: int) -> int:
            return 0

        setfsgid = setfsuid

    monkeypatch.setattr("ctypes.CDLL", lambda _: Kernel())
    with pytest.raises(StoreError, match=f"may not take the rights of user {SERVICE}"):
        Store.open(path, owner=True)
    assert list(path.parent.iterdir()) == []


def test_other_users_act_as_themselves(path: Path) -> None:
    """A process that is not root keeps its own rights."""

    def use() -> None:
        with owner_of(path).acting():
            assert owner_of(path) == FileOwner(SERVICE, os.getegid())

    as_service(use)
