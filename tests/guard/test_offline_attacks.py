"""Commands of root without a daemon, while the daemon's user has prepared its folders against root."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.attempts import ban_of
from tests.support.daemon import Guard
from typer.testing import CliRunner

from ringfence.cli.app import app
from ringfence.guard import process
from ringfence.store.database import Store

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands against another user"),
    pytest.mark.usefixtures("netns"),
]

SERVICE = 65_534
SECONDS = 30
"""Seconds after which a command counts as hanging."""

COMMANDS = (
    *("unban 192.0.2.1", "unban --all", "bans", "bans --past", "history", "report", "why 192.0.2.1"),
    *("why 204", "deny list", "allow add 192.0.2.9", "feeds add one --file {list}", "friends", "alarms"),
    *("restore", "off", "on", "confirm", "status", "check", "events"),
)
"""Every command that uses the database, the lock or the socket without the daemon."""


class Scene:
    """A folder of the service's user with a database, and a folder of root with a private file."""

    def __init__(self, place: Path) -> None:
        self.state = place / "state"
        self.roots = place / "roots"
        self.private = self.roots / "private"
        for folder in (self.state, self.roots):
            folder.mkdir(0o755)
        os.chown(self.state, SERVICE, SERVICE)
        self.private.write_bytes(b"a secret of root, and no database\n" * 200)
        self.private.chmod(0o600)
        self.database = self.state / "ringfence.db"
        self.guard = Guard(
            place,
            store={"path": str(self.database)},
            control={"socket": str(self.state / "control.sock")},
        )
        with Store.open(self.database, owner=False) as store:
            store.bans.record([ban_of("192.0.2.1")])

    def as_service(self, action: Callable[[], object]) -> None:
        """Run ``action`` as the service's user."""
        os.setegid(SERVICE)
        os.seteuid(SERVICE)
        try:
            action()
        finally:
            os.seteuid(0)
            os.setegid(0)

    def of_root(self) -> dict[str, tuple[bytes, int, int, int]]:
        """Return content, mode, owner and change time of everything in the folder of root."""
        return {
            file.name: (file.read_bytes(), file.stat().st_mode, file.stat().st_uid, file.stat().st_mtime_ns)
            for file in self.roots.iterdir()
        }


def link_database(scene: Scene) -> None:
    """Put a link to the private file in place of the database."""
    scene.database.unlink()
    scene.database.symlink_to(scene.private)


def link_everything_beside(scene: Scene) -> None:
    """Put links to the private file in place of SQLite's files and of the lock files."""
    namespace = Path("/proc/thread-self/ns/net").stat().st_ino
    names = [f"ringfence.db{end}" for end in ("-wal", "-shm", "-journal", ".lock")]
    for name in (*names, f"sets-{namespace}.lock"):
        (scene.state / name).unlink(missing_ok=True)
        (scene.state / name).symlink_to(scene.private)


def link_missing(scene: Scene) -> None:
    """Put a link to a new file in the folder of root in place of each file."""
    scene.database.unlink()
    for end in ("", "-wal", "-shm", "-journal", ".lock"):
        scene.database.with_name(f"ringfence.db{end}").symlink_to(scene.roots / f"new{end}")


def damage(scene: Scene) -> None:
    """Damage the database, and lead the names for damaged files to the folder of root."""
    scene.database.write_bytes(b"damaged" * 2_000)
    for number in range(1, 6):
        scene.database.with_name(f"ringfence.db.damaged-{number}-wal").symlink_to(scene.roots / "aside")


def put_pipes(scene: Scene) -> None:
    """Put pipes without a writer in place of the database and the socket."""
    scene.database.unlink()
    for name in ("ringfence.db", "ringfence.db-wal", "ringfence.db.lock", "control.sock"):
        (scene.state / name).unlink(missing_ok=True)
        os.mkfifo(scene.state / name)


@pytest.fixture(name="scene")
def _scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        scene = Scene(place)
        monkeypatch.setattr(process, "RUNTIME_FOLDER", scene.state)
        yield scene


@pytest.mark.parametrize("trap", [link_database, link_everything_beside, link_missing, damage, put_pipes])
def test_no_command_of_root_serves_the_daemons_user(scene: Scene, trap: Callable[[Scene], None]) -> None:
    """No command reads, changes, renames or creates a file of root, hangs, or ends with a defect."""
    scene.as_service(lambda: trap(scene))
    before = scene.of_root()
    listed = scene.guard.folder / "list.txt"
    listed.write_text("203.0.113.9\n", "utf-8")
    for command in COMMANDS:
        arguments = command.format(list=listed).split()
        signal.alarm(SECONDS)  # ends the test run if a command hangs
        done = CliRunner().invoke(app, [*arguments, "--config", str(scene.guard.config)])
        signal.alarm(0)

        assert "Usage:" not in done.output, command
        assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
        assert "a secret of root" not in done.output, command
        assert scene.of_root() == before, command
    owners = {file.lstat().st_uid for file in scene.state.iterdir()}
    assert owners == {SERVICE}
