"""Asterisk's user replaces files and folders of its own while setup, as root, reads and writes there."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.features.setup.world import GID, UID, Host, make_host

from ringfence.errors import SetupError
from ringfence.features.setup import session
from ringfence.features.setup.journal import open_journal
from ringfence.features.setup.plan import Plan, plan
from ringfence.features.setup.session import SetupSession, Systemd
from ringfence.file_rights import acting_as
from ringfence.host import owned_files
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.file_changes import (
    FileState,
    file_state,
    remove_file,
    remove_tree,
    set_folder,
    write_file,
)
from ringfence.host.file_changes import FolderState as Rights
from ringfence.host.owned_files import opened_parent, read_file, user_of

pytestmark = pytest.mark.kernel  # files of several users need root

NEW = FileState(b"evil", 0o644, UID, GID)

# Exchanges two names in a folder as fast as possible (renameat2 with RENAME_EXCHANGE).
_EXCHANGE = """\
import ctypes, os, sys
os.chdir(sys.argv[1])
os.setgid(int(sys.argv[4]))
os.setuid(int(sys.argv[3]))
names = [name.encode() for name in sys.argv[2].split(",")]
rename = ctypes.CDLL(None).renameat2
print("ready", flush=True)
while True:
    assert rename(-100, names[0], -100, names[1], 2) == 0
"""


@pytest.fixture(name="host")
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(session, "flush_everything", lambda: None)
    host = make_host(tmp_path)
    monkeypatch.setattr(session, "find_asterisk", host.asterisk)
    return host


@pytest.fixture(name="trusted")
def _trusted(tmp_path: Path) -> Path:
    """Return a folder of root, with a file, which Asterisk's user may only read."""
    folder = tmp_path / "apt.conf.d"
    folder.mkdir(mode=0o755)
    (folder / "manager.conf").write_bytes(b"[general]\nof = root\n")
    (folder / "manager.conf").chmod(0o600)
    return folder


@contextmanager
def exchanged(folder: Path, one: str, other: str) -> Iterator[None]:
    """Exchange two names, again and again, as Asterisk's user."""
    command = [sys.executable, "-c", _EXCHANGE, str(folder), f"{one},{other}", str(UID), str(GID)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


def link(path: Path, target: Path) -> None:
    """Make a link of Asterisk's user."""
    path.symlink_to(target)
    os.lchown(path, UID, GID)


def apply_all(current: SetupSession, planned: Plan) -> None:
    """Make all changes of a plan."""
    for change in planned.changes:
        current.apply(change)


def snapshot(folder: Path) -> list[tuple[str, bytes, int, int]]:
    """Return everything about the files of a folder."""
    files = sorted(folder.iterdir())
    return [(f.name, f.read_bytes(), f.stat().st_uid, f.stat().st_mode) for f in files]


@pytest.mark.parametrize(
    ("owner", "mode", "file"),
    [
        (0, 0o755, "ringfence.manager.conf"),
        (0, 0o757, "manager.d/ringfence.conf"),
        (UID, 0o755, "manager.d/ringfence.conf"),
        (UID, 0o555, "ringfence.manager.conf"),
    ],
)
def test_a_folder_is_used_with_the_rights_of_the_user_above(
    host: Host, owner: int, mode: int, file: str
) -> None:
    """If Asterisk's user may not write in manager.d, the manager user gets a file above it."""
    (host.etc / "manager.d").mkdir()
    os.chown(host.etc / "manager.d", owner, GID if owner else 0)
    (host.etc / "manager.d").chmod(mode)
    planned = plan(host.found(), host.paths)

    assert host.etc / file in {change.path for change in planned.changes}
    with open_journal(host.paths.state) as journal:
        current = SetupSession(host.paths, journal, Systemd(host.paths.systemd), lambda: False)
        current.begin(planned)
        apply_all(current, planned)
        current.complete()
    assert (host.etc / file).stat().st_uid == UID


def test_a_folder_that_nobody_gave_to_asterisk_is_named(host: Host) -> None:
    """A file that Asterisk's user may not write names the user, and the command that helps."""
    (host.etc / "closed").mkdir()
    with pytest.raises(SetupError, match=r"Permission denied for user 4242, .* chown -h 4242 .*/closed"):
        write_file(host.etc / "closed/new", NEW)


def test_a_folder_that_becomes_a_link_is_not_written_through(host: Host, trusted: Path) -> None:
    """The plan was for a real folder; after the question it is a link to a folder of root."""
    before = snapshot(trusted)
    (host.etc / "manager.d").mkdir()
    os.chown(host.etc / "manager.d", UID, GID)
    planned = plan(host.found(), host.paths)
    (host.etc / "manager.d").rmdir()
    link(host.etc / "manager.d", trusted)

    with open_journal(host.paths.state) as journal:
        current = SetupSession(host.paths, journal, Systemd(host.paths.systemd), lambda: False)
        current.begin(planned)
        with pytest.raises(SetupError, match=r"manager\.d/ringfence\.conf: Permission denied"):
            apply_all(current, planned)
        list(current.take_back())
    assert snapshot(trusted) == before


def test_no_undo_removes_or_writes_through_a_link(host: Host, trusted: Path) -> None:
    """After setup, Asterisk's user replaces the folder; the undo reports it, and root's files stay."""
    planned = plan(host.found(), host.paths)
    with open_journal(host.paths.state) as journal:
        current = SetupSession(host.paths, journal, Systemd(host.paths.systemd), lambda: False)
        current.begin(planned)
        apply_all(current, planned)
        current.complete()
    (host.etc / "manager.d").rename(host.etc / "moved")
    (trusted / "ringfence.conf").write_bytes((host.etc / "moved/ringfence.conf").read_bytes())
    link(host.etc / "manager.d", trusted)
    before = snapshot(trusted)

    with (
        open_journal(host.paths.state) as journal,
        pytest.raises(SetupError, match="Permission denied"),
    ):
        list(SetupSession(host.paths, journal, Systemd(host.paths.systemd), lambda: False).undo())
    assert snapshot(trusted) == before


def test_writing_while_a_folder_is_exchanged_with_a_link(tmp_path: Path, trusted: Path) -> None:
    """Whatever the moment, each write goes into the user's own folder or fails."""
    folder = tmp_path / "asterisk"
    (folder / "manager.d").mkdir(parents=True)
    os.chown(folder, UID, GID)
    os.chown(folder / "manager.d", UID, GID)
    link(folder / "evil", trusted)
    before, inode = snapshot(trusted), trusted.stat()
    acts: list[Callable[[], None]] = [
        lambda: write_file(folder / "manager.d/manager.conf", NEW),
        lambda: set_folder(folder / "manager.d", Rights(0o2750, UID, 4245)),
        lambda: remove_file(folder / "manager.d/manager.conf"),
        lambda: remove_tree(folder / "manager.d", lambda _name: True),
    ]
    outcomes = set()
    with exchanged(folder, "manager.d", "evil"):
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for act in acts:
                try:
                    act()
                except (SetupError, OSError):
                    outcomes.add("refused")
                else:
                    outcomes.add("done")
    assert outcomes == {"refused", "done"}
    assert snapshot(trusted) == before
    assert (trusted.stat().st_uid, trusted.stat().st_mode) == (inode.st_uid, inode.st_mode)


def test_reading_while_a_file_is_exchanged_with_a_link_and_a_fifo(tmp_path: Path, trusted: Path) -> None:
    """Root reads no file that Asterisk's user may not read, and waits for no FIFO."""
    folder = tmp_path / "asterisk"
    folder.mkdir()
    os.chown(folder, UID, GID)
    own = folder / "manager.conf"
    own.write_bytes(b"[general]\nof = asterisk\n")
    link(folder / "evil", trusted / "manager.conf")
    os.mkfifo(folder / "fifo")
    os.chown(folder / "fifo", UID, GID)
    seen = set()
    with exchanged(folder, "manager.conf", "evil"), exchanged(folder, "evil", "fifo"):
        end = time.monotonic() + 3
        while time.monotonic() < end:
            conf = AsteriskFiles(folder).read("manager.conf", lambda _section, _name: True)
            assert conf is not None
            seen.add(conf.section("general").last("of"))
            AsteriskFiles(folder).fault_of("manager.conf")
    assert seen == {"asterisk", ""}


@pytest.mark.parametrize("name", ["manager.conf", "logger.conf"])
def test_a_fifo_is_refused_at_once(host: Host, name: str) -> None:
    """A FIFO without a writer would stop setup for ever, also a dry run."""
    (host.etc / name).unlink()
    os.mkfifo(host.etc / name)
    os.chown(host.etc / name, UID, GID)

    with pytest.raises(SetupError, match=f"cannot read .*/{name}: it is not a regular file"):
        host.found()


def test_an_included_fifo_or_link_is_a_file_that_cannot_be_read(tmp_path: Path, trusted: Path) -> None:
    """The same holds for files that Asterisk's files include, by a pattern too."""
    folder = tmp_path / "asterisk"
    folder.mkdir()
    (folder / "manager.conf").write_text('#include "*.more"\n#include "/dev/zero"\n', "utf-8")
    os.mkfifo(folder / "a.more")
    link(folder / "b.more", trusted / "manager.conf")
    os.chown(folder, UID, GID)

    conf = AsteriskFiles(folder).read("manager.conf", lambda _section, _name: True)
    assert conf is not None
    assert conf.sections == ()
    device = f"{folder}/manager.conf:2: /dev/zero is included, and cannot be read"
    assert [one.where for one in conf.unread] == [f"{folder}/b.more", f"{folder}/manager.conf:2"]
    assert conf.unread[1].text == f"{device}, so Asterisk refuses the file"
    assert "is included, and cannot be read" in AsteriskFiles(folder).fault_of("manager.conf")


def test_an_included_file_is_read_with_the_rights_of_the_folder_that_includes_it() -> None:
    """``#include`` names any path: a file, a pattern, or a folder of a third user that root may enter."""
    with TemporaryDirectory() as name:  # pytest closes its own folders to all other users
        top = Path(name)
        top.chmod(0o755)
        folder, third = top / "asterisk", top / "third"
        folder.mkdir()
        third.mkdir(0o700)
        for path, mode in ((top / "secret", 0o600), (top / "open", 0o644), (third / "x", 0o600)):
            path.write_text(f"[{path.name}]\n", "utf-8")
            path.chmod(mode)
        for path in (third, third / "x"):
            os.chown(path, UID + 1, GID + 1)
        paths = f"{top}/secret", f"{top}/sec*", f"{top}/thi*/x", f"{third}/x", "../secret", f"{top}/open"
        lines = "".join(f'#tryinclude "{path}"\n' for path in paths)
        (folder / "manager.conf").write_text(lines, "utf-8")

        def sections() -> set[str]:
            conf = AsteriskFiles(folder).read("manager.conf", lambda _section, _name: True)
            assert conf is not None
            return {section.name for section in conf.sections}

        assert sections() == {"secret", "x", "open"}
        os.chown(folder, UID, GID)
        assert sections() == {"open"}


def test_no_included_fifo_or_device_is_opened(tmp_path: Path) -> None:
    """A writer who waits at a FIFO goes on waiting: root opens nothing that may act when it is opened."""
    folder = tmp_path / "asterisk"
    folder.mkdir()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (folder / "manager.conf").write_text(f'#tryinclude "{fifo}"\n', "utf-8")
    os.chown(folder, UID, GID)
    writer = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_WRONLY)))
    writer.start()
    try:
        with pytest.raises(OSError, match="it is not a regular file"):
            read_file(fifo, 1)
        AsteriskFiles(folder).read("manager.conf", lambda _section, _name: True)
        writer.join(0.2)
        assert writer.is_alive()
    finally:
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        writer.join()


def test_a_file_that_would_make_its_reader_wait_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some regular files of /proc, such as kmsg, have no bytes yet: an open pipe stands for one."""
    (tmp_path / "kmsg").touch()
    reads, writes = os.pipe2(os.O_NONBLOCK)
    monkeypatch.setattr(owned_files, "open_regular", lambda *_, **_more: os.dup(reads))
    with pytest.raises(BlockingIOError, match="Resource temporarily unavailable"):
        read_file(tmp_path / "kmsg", 1)
    os.close(reads)
    os.close(writes)


def test_a_folder_of_root_that_others_may_write_to_has_no_links(tmp_path: Path, trusted: Path) -> None:
    """There, somebody else could have made the link; a file of root itself is read."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    (shared / "plain").write_bytes(b"x")
    link(shared / "link", trusted / "manager.conf")

    assert read_file(shared / "plain", 9)[0] == b"x"
    with pytest.raises(OSError, match="a link that others can replace"):
        read_file(shared / "link", 9)


def test_links_that_the_user_could_follow_are_followed() -> None:
    """FreePBX keeps some of Asterisk's files elsewhere; the target is written, and the link stays."""
    with TemporaryDirectory() as name:  # pytest closes its own folders to all other users
        top = Path(name)
        top.chmod(0o755)
        folder, elsewhere = top / "asterisk", top / "elsewhere"
        for path in (folder, elsewhere):
            path.mkdir()
            os.chown(path, UID, GID)
        (elsewhere / "x.conf").write_bytes(b"old")
        link(folder / "x.conf", elsewhere / "x.conf")
        write_file(folder / "x.conf", NEW)

        assert (folder / "x.conf").is_symlink()
        assert (elsewhere / "x.conf").read_bytes() == b"evil"
        assert file_state(folder / "x.conf") == NEW


def test_links_with_long_targets_are_no_way() -> None:
    """A few links with many names each, which would take seconds to follow, are an error."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "a").mkdir()
        (folder / "file").write_bytes(b"x")
        around = "a/../" * 600
        (folder / "once").symlink_to(f"{around}file")
        (folder / "twice").symlink_to(f"{around}once")
        os.chown(folder, UID, GID)

        assert read_file(folder / "file", 9)[0] == b"x"
        for long in ("once", "twice"):
            with pytest.raises(OSError, match="too many names and links"):
                read_file(folder / long, 9)


def test_folders_one_in_the_other_are_an_error(tmp_path: Path) -> None:
    """A tree that is too deep to be removed is an error of the system, and no crash."""
    deep = os.open(tmp_path, os.O_PATH)
    for _ in range(1_500):
        os.mkdir("a", dir_fd=deep)
        inner = os.open("a", os.O_PATH, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)

    with pytest.raises(OSError, match="too many folders, one in the other"):
        remove_tree(tmp_path, lambda name: name == "a")
    subprocess.run(("rm", "-r", tmp_path / "a"), check=True)


def test_a_file_that_the_user_may_not_read_is_refused_with_a_fix(tmp_path: Path) -> None:
    """The fix does not follow links, because the user may have put a link there meanwhile."""
    folder = tmp_path / "asterisk"
    folder.mkdir()
    os.chown(folder, UID, GID)
    path = folder / "x.conf"
    path.write_bytes(b"x")
    path.chmod(0o640)

    reason = f"Permission denied for user {UID}, whose folder .*: chown -h {UID} {path}$"
    with pytest.raises(SetupError, match=reason):
        file_state(path)


def test_a_file_of_root_in_the_folder_keeps_its_owner_and_loses_special_bits(tmp_path: Path) -> None:
    """Root gives the new file its owner by the descriptor, and never a set-user-ID bit."""
    folder = tmp_path / "asterisk"
    folder.mkdir()
    os.chown(folder, UID, GID)
    write_file(folder / "x.conf", FileState(b"x", 0o6755, 0, GID))

    state = (folder / "x.conf").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (0, GID, 0o755)


def test_the_rights_of_a_user_come_back_and_nest(tmp_path: Path) -> None:
    """Within the block root's file is closed; after it, it is open."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0o600)
    os.chown(tmp_path, UID, GID)
    user = user_of(tmp_path.stat())
    descriptor = os.open(tmp_path, os.O_PATH)
    with acting_as(user):
        with acting_as(user):
            pass
        with pytest.raises(PermissionError):
            os.open("secret", os.O_RDONLY, dir_fd=descriptor)
    os.close(descriptor)
    assert secret.read_bytes() == b"x"


def test_dots_never_lead_out_of_a_given_root(tmp_path: Path) -> None:
    """Absolute links and ``..`` stay within the root folder of a container."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/x").write_bytes(b"x")
    (tmp_path / "var").symlink_to("/../../run")
    root = os.open(tmp_path, os.O_PATH)
    try:
        with opened_parent(Path("/../var/x"), root) as (folder, name):
            assert folder.state(name).st_ino == (tmp_path / "run/x").stat().st_ino
    finally:
        os.close(root)
