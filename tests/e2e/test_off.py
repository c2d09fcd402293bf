"""``ringfence off`` keeps its promise whatever state the daemon is in: everything goes, and it stays so."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded_door import BANS, House, house_of

pytestmark = pytest.mark.kernel


@pytest.fixture(name="house", scope="module", params=["ipset", "nftables"])
def _house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Give a host that is guarded by each backend, with bans; each test leaves it as it was."""
    folder = tmp_path_factory.mktemp(request.param)
    with house_of(folder, firewall={"backend": request.param}) as house, house.guard:
        house.guard.must("ban", *BANS)
        yield house


def test_it_is_off_until_it_is_on(house: House) -> None:
    """Off by the daemon outlasts a restart, a kill and the boot; on brings all back."""
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


def test_the_dead_can_be_switched_off(house: House) -> None:
    """With the daemon killed and a broken configuration, off takes all away, and it stays so till on."""
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


def test_a_daemon_that_cannot_be_asked_does_not_heal_what_is_taken_away(house: House) -> None:
    """Its socket is gone and it lives: off takes all away, and at the next look it gives in."""
    guard = house.guard
    off, healed = house.said("enforcement.off"), house.said("firewall.healed")
    Path(guard.settings["control"]["socket"]).unlink()
    done = guard.command("off")
    assert done.returncode == 0, done.stderr
    assert (house.is_open(), house.left()) == (True, [])
    until(lambda: house.said("enforcement.off") > off, "that it gives in")
    assert (house.is_open(), house.left()) == (True, [])
    assert house.said("firewall.healed") == healed
    guard.kill()
    guard.start()
    guard.must("on")
    assert house.is_shut()


def test_a_daemon_that_hangs_is_switched_off(tmp_path: Path) -> None:
    """It is stopped in its tracks: off waits for a while, and does it without; it stays off."""
    with house_of(tmp_path, firewall={"backend": "ipset"}) as house, house.guard as guard:
        guard.must("ban", *BANS)
        os.kill(guard.pid, signal.SIGSTOP)
        done = guard.command("off")
        assert done.returncode == 0, done.stderr
        assert (house.is_open(), house.left()) == (True, [])
        os.kill(guard.pid, signal.SIGCONT)
        until(lambda: house.said("enforcement.off") == 1, "that it gives in")
        assert (house.is_open(), house.left()) == (True, [])
