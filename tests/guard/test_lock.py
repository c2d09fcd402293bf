"""The lock that allows one ringfence for each network namespace."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.netns import netns

from ringfence.errors import FirewallBusyError, FirewallError
from ringfence.guard import process as daemon_process
from ringfence.guard.process import claim_sets

NOBODY = 65_534
CLAIM_AND_DIE = """
import os, sys
from pathlib import Path
from ringfence.guard.process import claim_sets
claim = claim_sets(Path(sys.argv[1]))
claim.__enter__()
print("claimed", flush=True)
input()
os.kill(os.getpid(), 9)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture(name="runtime", autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a runtime folder of the test that replaces /run/ringfence."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(daemon_process, "RUNTIME_FOLDER", folder)
    return folder


@pytest.fixture(name="other")
def _other(tmp_path: Path) -> Path:
    """Return the folder of a control socket elsewhere."""
    folder = tmp_path / "other"
    folder.mkdir(mode=0o700)
    return folder


def lock_of(folder: Path) -> Path:
    """Return the path of the lock for this network namespace."""
    return folder / f"sets-{Path('/proc/thread-self/ns/net').stat().st_ino}.lock"


def test_the_second_is_refused_until_the_first_lets_go(runtime: Path) -> None:
    """While one claim holds, a second raises FirewallBusyError; afterwards it succeeds."""
    with claim_sets(runtime), pytest.raises(FirewallBusyError, match="systemctl stop ringfence"):
        claim_sets(runtime).__enter__()
    with claim_sets(runtime):
        pass


@pytest.mark.parametrize("shared", ["runtime", "other"])
def test_one_folder_in_common_is_enough(
    runtime: Path, other: Path, tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two configurations share the runtime folder or, without access to it, the control socket's folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    with claim_sets(other):
        if shared == "other":
            monkeypatch.setattr(daemon_process, "RUNTIME_FOLDER", tmp_path / "absent" / "folder")
        with pytest.raises(FirewallBusyError):
            claim_sets(elsewhere if shared == "runtime" else other).__enter__()
    assert [*runtime.iterdir(), *other.iterdir(), *elsewhere.iterdir()] == []


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_another_namespace_is_another_claim(runtime: Path) -> None:
    """Two network namespaces have two locks in one folder, because each has its own sets."""
    with claim_sets(runtime), netns(), claim_sets(runtime):
        assert len(list(runtime.iterdir())) == 2


def test_a_local_user_cannot_take_the_claim(runtime: Path) -> None:
    """Only the owner can open and lock the file; an abstract socket could be bound by any user."""
    with claim_sets(runtime):
        assert stat.S_IMODE(lock_of(runtime).stat().st_mode) == 0o600


def test_the_claim_is_not_inherited(runtime: Path) -> None:
    """A child process does not keep the lock after its parent has released it."""
    with claim_sets(runtime):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with claim_sets(runtime):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_folder_that_others_may_write_to_is_not_used(runtime: Path, other: Path) -> None:
    """A folder that other users can write to is not used, because they could lock the file first."""
    runtime.chmod(0o777)
    lock_of(runtime).touch()
    with lock_of(runtime).open() as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        with claim_sets(other):
            assert lock_of(other).exists()
        with pytest.raises(FirewallError, match=r"other users may write there; fix: give .* mode 0750"):
            claim_sets(runtime).__enter__()


def test_a_link_is_not_followed(runtime: Path, tmp_path: Path) -> None:
    """A symbolic link in place of the lock creates no file elsewhere."""
    lock_of(runtime).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FirewallError, match="symbolic links"):
        claim_sets(runtime).__enter__()
    assert not (tmp_path / "elsewhere").exists()


def test_a_stale_file_is_no_problem(runtime: Path) -> None:
    """A file that a killed process left is reused, and removed at the end."""
    lock_of(runtime).write_text("stale")
    with claim_sets(runtime):
        assert lock_of(runtime).exists()
    assert not lock_of(runtime).exists()


@as_root
def test_what_root_creates_belongs_to_the_service_user(runtime: Path) -> None:
    """A lock that root's command creates belongs to the service user, so it does not stop the daemon."""
    os.chown(runtime, NOBODY, NOBODY)
    with claim_sets(runtime):
        assert lock_of(runtime).stat().st_uid == NOBODY


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_killed_process_holds_nothing(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process leaves no claim behind."""
    monkeypatch.setattr(daemon_process, "RUNTIME_FOLDER", other)
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM_AND_DIE, str(other)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        with pytest.raises(FirewallBusyError):
            claim_sets(other).__enter__()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(10) == -9
    with claim_sets(other):
        pass
