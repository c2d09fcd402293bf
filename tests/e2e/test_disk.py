"""A full or read-only disk: the daemon continues to ban and to unban, and reports the problem."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded_door import BANS, STRANGERS, House, house_of
from tests.support.netns import run

pytestmark = pytest.mark.kernel

MORE = "198.18.1.10"


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a separate small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(disk))
    try:
        yield disk
    finally:
        run("umount", "--lazy", str(disk))


@pytest.fixture(name="house")
def _house(tmp_path: Path, disk: Path) -> Iterator[House]:
    """Yield a host whose daemon has its database on that disk."""
    store = {"path": str(disk / "ringfence.db")}
    with house_of(tmp_path, firewall={"backend": "ipset"}, store=store) as house:
        yield house


def fill(disk: Path) -> Path:
    """Fill the disk to the last byte, and return the file to remove."""
    filler = disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1k"], capture_output=True, check=False)
    return filler


def problems(house: House) -> str:
    """Return the texts of the alarms about the database."""
    alarms = house.guard.ask("status")["alarms"]
    return "\n".join(alarm["text"] for alarm in alarms if alarm["code"].startswith("store."))


def unrecorded(house: House, *command: str) -> None:
    """Run a command whose change is in force, but cannot be recorded; the command reports that."""
    done = house.guard.command(*command)
    assert (done.returncode, "in force, but not recorded" in done.stderr) == (4, True), done.stderr


def test_a_disk_that_fills_up_and_is_cleared(house: House, disk: Path) -> None:
    """Changes hold, and commands report that they are not recorded; later all of them are recorded."""
    many = [f"203.0.{n // 250}.{n % 250}" for n in range(2_000)]
    with house.guard as guard:
        guard.must("ban", *STRANGERS)
        filler = fill(disk)
        unrecorded(house, "ban", *BANS)
        assert guard.ask("ban", networks=many, seconds=3_600.0, reason="")["problems"] == []
        unrecorded(house, "unban", *STRANGERS)
        assert house.is_shut()
        until(lambda: "are not recorded" in problems(house), "what is wrong")
        refused = guard.command("deny", "add", MORE)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "full" in refused.stderr

        filler.unlink()
        until(lambda: problems(house) == "", "the end of the problem")
        guard.kill()
        house.shell("iptables -t raw -F; ipset flush")
        guard.start()
        assert guard.banned() == {*BANS, *many}
        assert house.is_shut()


def test_off_on_a_full_disk(house: House, disk: Path) -> None:
    """`off` holds unrecorded, over a restart too, and after the disk has room again; so does `on`."""
    with house.guard as guard:
        guard.must("ban", *BANS)
        filler = fill(disk)
        unrecorded(house, "off")
        assert (house.is_open(), house.left()) == (True, [])
        guard.kill()
        guard.start()
        assert (house.is_open(), house.left()) == (True, [])
        assert "a reboot" in str(guard.ask("status")["alarms"])

        filler.unlink()
        until(
            lambda: problems(house) == "" and "a reboot" not in str(guard.ask("status")["alarms"]), "a record"
        )
        assert (house.is_open(), guard.log.count("bans.restored")) == (True, 1)
        filler = fill(disk)
        unrecorded(house, "on")
        guard.kill()
        guard.start()
        assert house.is_shut()


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_it_starts_on_a_disk_that_cannot_be_written(house: House, disk: Path, how: str) -> None:
    """The daemon is READY, its bans hold, it bans and denies more, and reports that it cannot record them."""
    with house.guard as guard:
        guard.must("ban", BANS[0])
    house.shell("iptables -t raw -F; ipset flush")
    if how == "read-only":
        run("mount", "-o", "remount,ro", str(disk))
    else:
        fill(disk)
    with house.guard as guard:
        assert guard.banned() == {BANS[0]}
        unrecorded(house, "ban", *BANS, MORE)
        unrecorded(house, "deny", "add", "198.18.1.11")
        unrecorded(house, "unban", MORE)
        assert (house.is_shut(), house.door.passing(MORE, "198.18.1.11")) == (True, {MORE})
        assert "nothing is remembered" in problems(house)

        guard.stop()
        guard.start()
        assert (house.is_shut(), guard.banned()) == (True, set(BANS))
        unrecorded(house, "off")
        guard.stop()
        guard.start()
        assert (house.is_open(), house.left()) == (True, [])
