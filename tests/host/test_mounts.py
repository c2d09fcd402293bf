"""Paths on this host of folders of a process with another root folder."""

import os
from pathlib import Path

import pytest

from ringfence.host.asterisk_conf import FOLDER, AsteriskFiles
from ringfence.host.console import Server, SocketConsole
from ringfence.host.mounts import host_path, local_files


def test_a_folder_is_found_through_the_mounts_of_both_sides(tmp_path: Path) -> None:
    """A folder of a container is a volume of this host, or it is only in the container."""
    volume, root = tmp_path / "volume", tmp_path / "root"
    (volume / "conf").mkdir(parents=True)
    (root / "etc").mkdir(parents=True)
    (root / "etc/asterisk").symlink_to(volume / "conf")  # as if it were mounted there
    (root / "image").mkdir()
    proc = tmp_path / "proc"
    (proc / "9").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "9/root").symlink_to(root)
    rows = "1 0 8:1 /x/conf /etc/asterisk rw - ext4 /dev/a rw\n2 0 0:9 / / rw - overlay overlay rw\n"
    (proc / "9/mountinfo").write_text(rows, "ascii")
    (proc / "self/mountinfo").write_text(f"1 0 8:1 /x {volume} rw - ext4 /dev/a rw\n", "ascii")

    assert host_path(proc / "9", Path("/etc/asterisk")) == volume / "conf"
    assert host_path(proc / "9", Path("/image")) is None


def test_an_own_folder_has_the_same_path() -> None:
    """Without a container the path is the same on both sides."""
    assert host_path(Path(f"/proc/{os.getpid()}"), Path("/etc")) == Path("/etc")


@pytest.mark.parametrize(
    ("owner", "names", "own"),
    [
        pytest.param(65_534, [], True, id="its user's"),
        pytest.param(0, ["modules.conf", "asterisk.conf"], True, id="with a main file"),
        pytest.param(0, ["modules.conf", "logger.conf"], True, id="with another main file"),
        pytest.param(0, ["modules.conf"], False, id="modules-load.d"),
        pytest.param(0, ["asterisk.conf"], False, id="filter.d of fail2ban"),
    ],
)
def test_an_asterisk_in_a_container_may_only_name_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, owner: int, names: list[str], own: bool
) -> None:
    """A folder counts if its user owns it, or if it is root's and has two of Asterisk's main files."""
    os.chown(tmp_path, owner, 0)
    for name in names:
        (tmp_path / name).touch()
    shown = f"  Configuration directory:     {tmp_path}\n"
    monkeypatch.setattr(SocketConsole, "show", lambda *_: shown)
    server = Server(os.getpid(), 65_534, 65_534, (), (), "", same_root=False, same_network=True)
    found = local_files(SocketConsole(server), Path("/etc/asterisk"))
    assert found == (AsteriskFiles(tmp_path, tmp_path) if own else None)


def test_a_running_asterisk_names_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are those of the folder that it reports, unless another one is named, or it reports none."""
    own = tmp_path / "etc"
    own.mkdir()
    (own / "modules.conf").touch()
    (own / "asterisk.conf").touch()
    server = Server(os.getpid(), 65_534, 65_534, (), (), "", same_root=True, same_network=True)

    def found(shown: str | None, named: Path = FOLDER) -> AsteriskFiles | None:
        monkeypatch.setattr(SocketConsole, "show", lambda *_: shown)
        return local_files(SocketConsole(server), named)

    shown = "  Configuration directory:     {}\n"
    assert found(shown.format(own)) == AsteriskFiles(own)
    assert found(shown.format(own), Path("/srv/other")) == AsteriskFiles(Path("/srv/other"))
    assert found(shown.format(tmp_path)) == AsteriskFiles(FOLDER)
    assert found(shown.format(tmp_path / "absent")) == AsteriskFiles(FOLDER)
    assert found(None) == AsteriskFiles(FOLDER)
