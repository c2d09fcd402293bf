"""``ringfence off`` and ``on``, with the daemon up and down."""

from contextlib import closing
from pathlib import Path

import pytest
from tests.support.daemon import Guard
from tests.support.netns import run

from ringfence.firewall import make_backend
from ringfence.store.database import Store

OFF = "ringfence is off: no address is banned. To restore bans that have time left: ringfence on\n"


def names() -> str:
    """Return the kernel's sets."""
    return run("ipset", "list", "-name")


def test_off_and_on_with_the_daemon(tmp_path: Path) -> None:
    """Off empties the list and is shown; on restores bans with time left; both can be repeated."""
    with Guard(tmp_path) as guard:
        guard.command("ban", "203.0.113.1")
        for _ in range(2):
            done = guard.command("off")
            assert (done.returncode, done.stdout, done.stderr) == (0, OFF, "")
            assert guard.banned() == set()
            assert "firewall.off" in {alarm["code"] for alarm in guard.status()["alarms"]}
        for _ in range(2):
            done = guard.command("on")
            assert (done.returncode, done.stdout, done.stderr) == (0, "ringfence is on.\n", "")
            assert guard.banned() == {"203.0.113.1"}


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_off_without_the_daemon(tmp_path: Path) -> None:
    """Without the daemon, ringfence's own rules and sets alone leave the kernel, and stay removed."""
    run("iptables", "-t", "raw", "-A", "PREROUTING", "-s", "203.0.113.200", "-j", "DROP")
    run("ipset", "create", "mine", "hash:ip")
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        guard.command("ban", "203.0.113.1")
        guard.kill()
        for _ in range(2):
            done = guard.command("off")
            assert (done.returncode, done.stdout) == (0, OFF)
            assert done.stderr == "the daemon does not answer: removed from the kernel directly\n"
            assert names() == "mine\n"
        rules = [line for line in run("iptables-save", "-t", "raw").splitlines() if line.startswith("-A")]
        assert rules == ["-A PREROUTING -s 203.0.113.200/32 -j DROP"]
        guard.start()
        assert names() == "mine\n"

        assert guard.command("on").returncode == 0
        assert guard.banned() == {"203.0.113.1"}


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_off_removes_what_the_other_backend_left(tmp_path: Path) -> None:
    """With the daemon, rules of the other backend are removed too, which the daemon has no right to do."""
    with Guard(tmp_path, firewall={"backend": "nftables"}) as guard:
        with closing(make_backend("ipset")) as other:
            other.open()
        assert names() != ""
        done = guard.command("off")

        assert (done.returncode, done.stdout, done.stderr) == (0, OFF, "")
        assert names() == ""
        assert "ringfence" not in run("nft", "list", "ruleset")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_off_needs_no_good_configuration(tmp_path: Path) -> None:
    """Without the daemon, off works with an invalid configuration."""
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        guard.command("ban", "203.0.113.1")
        guard.kill()
        guard.configure(colour=1)
        done = guard.command("off")

        assert names() == ""
        assert "colour: unknown key" in done.stderr


def test_on_needs_no_good_configuration(tmp_path: Path) -> None:
    """With a mistake in its file, a running daemon enforces again, and the mistake is printed."""
    with Guard(tmp_path) as guard:
        guard.must("ban", "203.0.113.1")
        guard.must("off")
        guard.configure(colour=1)
        done = guard.command("on")

        assert (done.returncode, done.stdout) == (0, "ringfence is on.\n")
        assert "colour: unknown key" in done.stderr
        assert guard.banned() == {"203.0.113.1"}


def test_on_without_the_daemon(tmp_path: Path) -> None:
    """Without the daemon the state is recorded, and its absence is reported with exit code 3."""
    with Guard(tmp_path) as guard:
        guard.command("off")
        guard.stop()
        done = guard.command("on")

        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("ringfence is switched on, but no daemon listens at")
        with closing(Store.open(tmp_path / "ringfence.db", owner=False)) as store:
            assert store.state.switched_off() is False


def test_off_without_a_database(tmp_path: Path) -> None:
    """Without a writable database `off` holds until `on`, and exit code 4 warns that a reboot may undo it."""
    guard = Guard(tmp_path, store={"path": str(tmp_path / "absent" / "ringfence.db")})
    done = guard.command("off")

    assert done.returncode == 4
    assert done.stderr.startswith("in force, but not recorded, so a restart may undo it: ")
    with guard:
        assert guard.command("ban", "198.18.0.1").returncode == 1
        guard.command("on")
        guard.must("ban", "198.18.0.1")
        guard.kill()
        guard.start()
        guard.must("ban", "198.18.0.1")


def test_off_that_nothing_can_record(tmp_path: Path) -> None:
    """If even the folder of the socket takes no file, the rules are removed, and may come back."""
    (tmp_path / "file").touch()
    absent = str(tmp_path / "file" / "ringfence.db"), str(tmp_path / "file" / "control.sock")
    guard = Guard(tmp_path, store={"path": absent[0]}, control={"socket": absent[1]})
    done = guard.command("off")

    assert done.returncode == 4
    assert done.stderr.startswith(
        "all rules are removed, but this cannot be recorded, so they may come back: "
    )
