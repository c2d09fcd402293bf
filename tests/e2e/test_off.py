"""``ringfence off`` works in every state of the daemon: it removes everything, and the removal lasts."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded_door import BANS, House, house_of

pytestmark = pytest.mark.kernel


@pytest.fixture(
    name="house", scope="module", params=[pytest.param("ipset", marks=pytest.mark.long), "nftables"]
)
def _house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Yield a host that is guarded by each backend, with bans; each test leaves it unchanged."""
    folder = tmp_path_factory.mktemp(request.param)
    with house_of(folder, firewall={"backend": request.param}) as house, house.guard:
        house.guard.must("ban", *BANS)
        yield house


def test_it_is_off_until_it_is_on(house: House) -> None:
    """Off by the daemon survives a restart, a kill and a boot; on restores everything."""
    guard = house.guard
    assert house.is_shut()
    guard.must("off")
    assert (house.is_open(), house.left()) == (True, [])
    guard.stop()
    guard.start()
    guard.kill()
    assert "switched off" in guard.must("restore")
    guard.start()
    assert (house.is_open(), house.left()) == (True, [])
    assert guard.ask("status")["firewall"]["enforcing"] is False

    guard.must("on")
    assert house.is_shut()
    assert guard.banned() == set(BANS)


def test_enforcement_of_a_dead_daemon_can_be_switched_off(house: House) -> None:
    """With a killed daemon and a broken configuration, off removes everything until on restores it."""
    guard = house.guard
    guard.kill()
    good = guard.config.read_text()
    guard.config.write_text(good + "\n[firewal]\nbackend = 7\n")
    done = guard.command("off")
    assert done.returncode == 0
    assert "firewal" in done.stderr
    assert (house.is_open(), house.left()) == (True, [])
    guard.config.write_text(good)
    guard.start()
    assert house.is_open()
    guard.must("on")
    assert house.is_shut()


def test_a_daemon_without_a_socket_does_not_repair_after_off(house: House) -> None:
    """Its socket is gone: off removes everything, and the daemon accepts that at its next check."""
    guard = house.guard
    off, repaired = house.logged("enforcement.off"), house.logged("firewall.repaired")
    Path(guard.settings["control"]["socket"]).unlink()
    done = guard.command("off")
    assert done.returncode == 0, done.stderr
    # A daemon that was just writing its rules may finish that. It then reads the record, and removes them.
    until(lambda: (house.is_open(), house.left()) == (True, []), "the rules to be gone")
    until(lambda: house.logged("enforcement.off") > off, "the daemon to accept it")
    assert (house.is_open(), house.left()) == (True, [])
    assert house.logged("firewall.repaired") == repaired
    guard.kill()
    guard.start()
    guard.must("on")
    assert house.is_shut()


def test_a_daemon_that_hangs_is_switched_off(tmp_path: Path) -> None:
    """The daemon hangs: off waits for a while, then works without it; enforcement stays off."""
    with house_of(tmp_path, firewall={"backend": "ipset"}) as house, house.guard as guard:
        guard.must("ban", *BANS)
        os.kill(guard.pid, signal.SIGSTOP)
        done = guard.command("off")
        assert done.returncode == 0, done.stderr
        assert (house.is_open(), house.left()) == (True, [])
        os.kill(guard.pid, signal.SIGCONT)
        # Its own check accepts it, and so does the request that still waits in the socket.
        until(lambda: house.logged("enforcement.off") >= 1, "the daemon to accept it")
        assert (house.is_open(), house.left()) == (True, [])
