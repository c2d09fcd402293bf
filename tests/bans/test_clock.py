"""The wall clock is set while bans are in force, and after they ended: an ended ban never begins again."""

import asyncio
from ipaddress import ip_network
from typing import NoReturn

import pytest
from tests.support.world import OTHER, START, SUBJECT, World

from ringfence.ban_facts import ClockSet
from ringfence.bans.restore import set_since_last_run
from ringfence.bans.unban import unban
from ringfence.detect.rules import DAY, HOUR
from ringfence.errors import FirewallError, StoreError
from ringfence.values.ban import BanEnd, Scope

AHEAD = 3_600.0


def test_an_ended_ban_stays_ended_when_the_clock_is_set_back(world: World) -> None:
    """A ban of 6 s ends while the clock is an hour ahead; the correction and a restart do not restore it."""
    world.ahead = AHEAD
    world.wait(1.0)
    world.enforcer.ban([SUBJECT], 6.0, "")
    world.enforcer.ban([OTHER], HOUR, "")
    world.wait(7.0)
    world.ahead = 0.0
    world.wait(1.0)
    world.restart(reboot=True)

    assert world.in_kernel() == {"192.0.2.2/32": HOUR - 8}


@pytest.mark.parametrize("reboot", [False, True])
def test_a_ban_that_ended_before_a_kill_stays_ended(world: World, reboot: bool) -> None:  # noqa: FBT001 - a column
    """The daemon saw the end of the ban, and ended before the clock was set back."""
    world.ahead = AHEAD
    world.wait(1.0)
    world.enforcer.ban([SUBJECT], 6.0, "")
    world.wait(7.0)
    world.ahead = 0.0
    world.restart(reboot=reboot)

    assert world.in_kernel() == {}


def test_a_ban_that_ended_without_the_daemon_stays_ended(world: World) -> None:
    """The kernel ended the ban after the daemon; within one boot, the step of the clock is certain."""
    world.ahead = AHEAD
    world.wait(1.0)
    world.enforcer.ban([SUBJECT], 6.0, "")
    world.now += 7.0
    world.ahead = 0.0
    world.restart()

    assert world.in_kernel() == {}


def test_a_ban_in_force_keeps_its_rest_over_both_steps(world: World) -> None:
    """A clock that is set ahead and back again neither shortens nor lengthens a ban."""
    world.enforcer.ban([SUBJECT], HOUR, "")
    for ahead in (AHEAD, 0.0, -AHEAD, 0.0):
        world.ahead = ahead
        world.wait(10.0)
        world.restart(reboot=True)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR - 40}


@pytest.mark.parametrize("ahead", [AHEAD, -AHEAD])
def test_a_ban_right_after_the_clock_was_set_has_its_length(world: World, ahead: float) -> None:
    """A ban before the next periodic work, and those before it, end at the same time everywhere."""
    world.decide()
    world.ahead = ahead
    world.enforcer.ban([OTHER], HOUR, "")
    world.wait(10.0)
    asyncio.run(world.reconciler.compare())

    left = {"192.0.2.1/32": HOUR - 10, "192.0.2.2/32": HOUR - 10}
    recorded = {
        str(ban.network): ban.expires - world.clock.wall()
        for ban in world.records.running(world.clock.wall())
    }
    assert world.in_kernel() == left == recorded


def recorded(world: World) -> dict[str, float]:
    """Return the recorded bans, each with the seconds that it has left."""
    now = world.clock.wall()
    return {str(ban.network): round(ban.expires - now) for ban in world.records.running(now)}


def test_bans_that_are_recorded_late_have_their_times(world: World) -> None:
    """If the clock is set while a slow disk waits to record all bans, their times move once."""
    world.enforcer.ban([SUBJECT], HOUR, "")
    world.store.bans.end([(SUBJECT, Scope.FULL)], world.now, BanEnd.REMOVED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store.best_effort, "_later", lambda _: None)
        world.enforcer.record_all()
        world.ahead = AHEAD
        world.wait(10.0)
    world.store.best_effort.retry()

    assert recorded(world) == {"192.0.2.1/32": HOUR - 10}


@pytest.mark.parametrize("ahead", [AHEAD, -AHEAD])
def test_a_refused_unban_is_undone_after_the_clock_was_set(
    world: World, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """If the clock is set while an unban waits for the disk, and the kernel refuses it, the ban stays."""
    world.enforcer.ban([SUBJECT], 2 * HOUR, "")
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    recorded_first = world.store.best_effort.recorded

    async def set_meanwhile() -> str:
        world.ahead = ahead
        world.wait(1.0)
        return await recorded_first()

    monkeypatch.setattr(world.store.best_effort, "recorded", set_meanwhile)
    asyncio.run(unban(world.enforcer, [SUBJECT]))

    assert recorded(world) == world.in_kernel() == {"192.0.2.1/32": 2 * HOUR - 1}


def test_a_clock_that_was_set_while_writes_were_dropped_is_recorded(world: World) -> None:
    """If the disk missed that the clock was set, the next start moves no ban that was recorded since."""
    world.enforcer.ban([SUBJECT], HOUR, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store.bans, "record_clock", lambda *_: None)
        world.ahead = AHEAD
        world.wait(10.0)
    world.enforcer.record_all()
    world.restart()

    assert recorded(world) == world.in_kernel() == {"192.0.2.1/32": HOUR - 10}


@pytest.mark.parametrize("behind", [2 / 3 * HOUR, 1_000 * DAY])
def test_a_boot_with_a_slow_clock_moves_no_ban_of_before(world: World, behind: float) -> None:
    """When the clock is corrected, the bans since the boot move; those of before end at their times."""
    new = ip_network("192.0.2.3")
    world.enforcer.ban([OTHER], 60.0, "")
    world.wait(61.0)
    world.decide()
    world.now += 60.0
    world.now -= behind
    world.restart(reboot=True)
    world.enforcer.ban([new], 2 * HOUR, "")
    world.ahead = behind
    world.wait(10.0)
    begun = {network: world.store.bans.past(network, 0.0, 9)[0].ban.since for network in (OTHER, SUBJECT)}
    assert begun == {OTHER: START, SUBJECT: START + 61}

    world.wait(HOUR)
    world.restart(reboot=True)
    assert world.in_kernel() == recorded(world) == {"192.0.2.3/32": HOUR - 10}


def test_a_set_clock_is_reported_once(world: World) -> None:
    """The listeners get each change of the clock once, also one right before ringfence is switched on."""
    world.ahead = AHEAD
    world.wait(1.0)
    world.wait(1.0)
    world.enforcer.switch_off()
    world.ahead = 0.0
    world.enforcer.switch_on()
    world.wait(1.0)

    changes = [fact.seconds for fact in world.facts if isinstance(fact, ClockSet)]
    assert changes == [AHEAD, -AHEAD]


def test_how_far_the_clock_was_set_between_two_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known within one boot, if the database can be read."""
    assert set_since_last_run(world.records, world.clock) == 0.0
    world.ahead = AHEAD
    assert set_since_last_run(world.records, world.clock) == AHEAD
    world.boots += 1
    assert set_since_last_run(world.records, world.clock) == 0.0
    world.boots -= 1

    def unreadable() -> NoReturn:
        raise StoreError("disk full")

    monkeypatch.setattr(world.store.bans, "clock", unreadable)
    assert set_since_last_run(world.records, world.clock) == 0.0
