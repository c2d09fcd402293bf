"""Files that a command writes for its user alone."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.web import ENVIRON

from ringfence.cli.private_file import write_private


def test_a_file_is_private_and_replaced(tmp_path: Path) -> None:
    """A new file, and one that others could read, can be read by its owner only."""
    file = tmp_path / "report.html"
    write_private(file, "first")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    write_private(file, "second")

    assert (file.read_text("utf-8"), stat.S_IMODE(file.stat().st_mode)) == ("second", 0o600)
    assert [*tmp_path.iterdir()] == [file]


def test_the_target_of_a_link_is_left_alone(tmp_path: Path) -> None:
    """A symbolic link is replaced; the file to which it leads keeps its content."""
    secret, link = tmp_path / "secret", tmp_path / "report.html"
    secret.write_text("secret", "utf-8")
    link.symlink_to(secret)
    write_private(link, "report")

    assert not link.is_symlink()
    assert (secret.read_text("utf-8"), link.read_text("utf-8")) == ("secret", "report")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_takes_the_place_of_a_pipe_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The owner of the folder may put a link or a file in the place of a pipe: neither is written."""
    file, secret = tmp_path / "report.html", tmp_path / "secret"
    secret.write_text("secret", "utf-8")

    def swap(_: Path) -> bool:
        if kind == "link":
            file.symlink_to(secret)
        else:
            file.hardlink_to(secret)
        return True

    monkeypatch.setattr("ringfence.cli.private_file._is_special", swap)
    with pytest.raises(OSError, match=r"symbolic links|not a pipe"):
        write_private(file, "report")

    assert secret.read_text("utf-8") == "secret"


def test_a_pipe_is_written(tmp_path: Path) -> None:
    """The text goes to the reader of a named pipe, and the pipe stays."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text, "utf-8")
        write_private(pipe, "report")

        assert read.result(20) == "report"
    assert pipe.is_fifo()


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the old file stays, and no other one is left."""
    file = tmp_path / "report.html"
    write_private(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(file, "new")

    assert file.read_text("utf-8") == "old"
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_is_written(tmp_path: Path, name: str, kind: str) -> None:
    """The text is written into a pipe or a file, and the name of the device stays what it was."""
    before = Path("/dev/stdout").readlink()
    code = (
        "import sys\nfrom pathlib import Path\nfrom ringfence.cli.private_file import write_private\n"
        "write_private(Path(sys.argv[1]), 'x')"
    )
    with (tmp_path / "out").open("wb") as out:
        to = subprocess.PIPE if kind == "pipe" else out
        done = subprocess.run([sys.executable, "-c", code, name], env=ENVIRON, stdout=to, check=True)

    assert Path("/dev/stdout").readlink() == before
    assert (done.stdout if kind == "pipe" else (tmp_path / "out").read_bytes()) == b"x"


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    """No file can be written below a link to itself."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_private(loop / "x", "x")


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    """A folder is not replaced."""
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path, "x")
