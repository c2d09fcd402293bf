"""``ringfence off`` and ``on``, daemon up and down."""

from contextlib import closing
from pathlib import Path

import pytest
from tests.support.daemon import Guard
from tests.support.netns import run

from ringfence.firewall import make_backend
from ringfence.store import Store

OFF = "ringfence is off: nobody is banned. Bans that have time left come back with: ringfence on\n"


def names() -> str:
    """Give the kernel's sets."""
    return run("ipset", "list", "-name")


def test_off_and_on_with_the_daemon(tmp_path: Path) -> None:
    """Off empties the list and is shown; on brings back what has time left; both may be repeated."""
    with Guard(tmp_path) as guard:
        guard.command("ban", "203.0.113.1")
        for _ in range(2):
            done = guard.command("off")
            assert (done.returncode, done.stdout, done.stderr) == (0, OFF, "")
            assert guard.banned() == set()
            assert guard.status()["problems"] == [
                "enforcement is switched off: nobody is banned; switch it on with: ringfence on"
            ]
        for _ in range(2):
            done = guard.command("on")
            assert (done.returncode, done.stdout, done.stderr) == (0, "ringfence is on.\n", "")
            assert guard.banned() == {"203.0.113.1"}


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_off_without_the_daemon(tmp_path: Path) -> None:
    """Daemon down: everything of ours leaves the kernel, nothing else does, and it stays so."""
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
def test_off_takes_what_another_firewall_left(tmp_path: Path) -> None:
    """Daemon up: also what its own firewall has not put there, and may not be able to take away, is gone."""
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
    """Whoever is locked out needs not mend a file first: with the daemon down, off works all the same."""
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        guard.command("ban", "203.0.113.1")
        guard.kill()
        guard.configure(colour=1)
        done = guard.command("off")

        assert names() == ""
        assert "colour: unknown key" in done.stderr


def test_on_without_the_daemon(tmp_path: Path) -> None:
    """Daemon down: it is remembered, and that the daemon is missing is told with exit code 3."""
    with Guard(tmp_path) as guard:
        guard.command("off")
        guard.stop()
        done = guard.command("on")

        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("ringfence is switched on, but no daemon listens at")
        with closing(Store.open(tmp_path / "ringfence.db", owner=False)) as store:
            assert store.switched_off is False


def test_off_that_cannot_be_remembered_is_a_problem(tmp_path: Path) -> None:
    """Without a database to write to, everything is removed, and exit code 1 says that it will not stay."""
    guard = Guard(tmp_path, store={"path": str(tmp_path / "absent" / "ringfence.db")})
    done = guard.command("off")

    assert done.returncode == 1
    assert done.stderr.startswith("everything is removed, but that it is to stay so cannot be remembered: ")
