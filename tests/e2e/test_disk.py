"""A disk that is full or read-only keeps nobody in, and nobody out: bans go on, and what is wrong is said."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded_door import BANS, House, house_of
from tests.support.netns import run

pytestmark = pytest.mark.kernel

MORE = "198.18.1.10"


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a small disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk))
    try:
        yield disk
    finally:
        run("umount", "--lazy", str(disk))


@pytest.fixture(name="house")
def _house(tmp_path: Path, disk: Path) -> Iterator[House]:
    """Give a host whose daemon keeps its database on that disk."""
    store = {"path": str(disk / "ringfence.db")}
    with house_of(tmp_path, firewall={"backend": "ipset"}, store=store) as house:
        yield house


def fill(disk: Path) -> Path:
    """Leave no byte free; give the file to remove."""
    filler = disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1k"], capture_output=True, check=False)
    return filler


def problems(house: House) -> str:
    """Give what status says is wrong."""
    return "\n".join(house.guard.ask("status")["problems"])


def test_a_disk_that_fills_up_and_is_cleared(house: House, disk: Path) -> None:
    """Bans go on and status says that they are not recorded; with room again they are, and none is lost."""
    many = [f"203.0.{n // 250}.{n % 250}" for n in range(2_000)]
    with house.guard as guard:
        filler = fill(disk)
        guard.must("ban", *BANS)
        assert guard.ask("ban", networks=many, seconds=3_600.0, reason="") == []
        assert house.is_shut()
        until(lambda: "are not recorded" in problems(house), "what is wrong")
        refused = guard.command("deny", "add", MORE)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "full" in refused.stderr

        filler.unlink()
        guard.must("ban", MORE)
        until(lambda: problems(house) == "", "that it is over")
        guard.kill()
        guard.start()
        assert guard.banned() == {*BANS, *many, MORE}
        assert house.is_shut()


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_it_starts_on_a_disk_that_cannot_be_written(house: House, disk: Path, how: str) -> None:
    """It is READY, keeps out who was banned, bans and denies more, and says that it will not remember."""
    with house.guard as guard:
        guard.must("ban", BANS[0])
    house.shell("iptables -t raw -F; ipset flush")
    if how == "read-only":
        run("mount", "-o", "remount,ro", str(disk))
    else:
        fill(disk)
    with house.guard as guard:
        assert guard.banned() == {BANS[0]}
        guard.must("ban", *BANS, MORE)
        guard.must("deny", "add", "198.18.1.11")
        guard.must("unban", MORE)
        assert (house.is_shut(), house.door.let_in(MORE, "198.18.1.11")) == (True, {MORE})
        assert "nothing is remembered" in problems(house)

        guard.stop()
        guard.start()
        assert (house.is_shut(), guard.banned()) == (True, set(BANS))
        done = guard.command("off")
        assert (done.returncode, house.is_open(), house.left()) == (1, True, [])
        assert "is not remembered" in done.stderr
