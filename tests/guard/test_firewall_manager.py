"""The firewall as a whole: leftovers of another backend, enforcement tried again, changes by others."""

import asyncio
import socket
import time
from collections.abc import Callable
from ipaddress import ip_network
from itertools import pairwise

import pytest
from tests.support.full_disk import FullDisk
from tests.support.kept import OTHER, Kept

from ringfence.alarm_codes import AlarmCode
from ringfence.errors import FirewallError
from ringfence.firewall.probe import Verification
from ringfence.guard import firewall_manager
from ringfence.guard.firewall_side import firewall_alarms
from ringfence.ledger import network_of
from ringfence.store.bans import BanTable


@pytest.mark.parametrize("again", [True, False], ids=["after half a minute", "by off and on"])
def test_what_another_firewall_left_is_tried_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """If another backend's rules cannot be removed, an alarm names the fix and clears when it worked."""

    def refuse(_kept: str) -> list[str]:
        raise FirewallError("no right")

    kept.backend.enforces = True
    # This backend drops no packet.
    monkeypatch.setattr("ringfence.bans.enforcer.verify", lambda *_: Verification(()))
    monkeypatch.setattr("ringfence.guard.firewall_manager.flush_other_backends", refuse)
    kept.side.start()
    kept.now += 86_400.0
    kept.alarms.expire()
    [alarm] = kept.alarms.active
    assert alarm.text.endswith("no right; fix, as root: ringfence off, ringfence on")

    monkeypatch.setattr("ringfence.guard.firewall_manager.flush_other_backends", lambda _kept: [])
    if again:
        kept.side.kernel.manager.retry_switch()
    else:
        kept.enforcer.switch_off()
        kept.side.kernel.manager.switch_on()
    assert kept.alarms.active == []


@pytest.mark.parametrize("code", [AlarmCode.FIREWALL_NOT_ENFORCED, AlarmCode.FIREWALL_NOT_CHANGED])
def test_a_start_clears_restored_alarms(kept: Kept, code: AlarmCode) -> None:
    """An alarm of the last run clears when the rules are in place."""
    kept.alarms.activate(code, "", "nothing is enforced")
    kept.side.common.kept_alarms.save()
    kept.alarms.clear(code, "")
    kept.alarms.take_changes()
    kept.side.start()
    assert kept.alarms.active == []


def test_enforcement_that_failed_is_tried_again(kept: Kept) -> None:
    """Enforcement that should be on is tried again, with an alarm until it is; `off` is respected."""
    kept.side.start()
    kept.ban(OTHER)
    kept.enforcer.switch_off()
    kept.side.kernel.manager.retry_switch()
    assert kept.banned() == set()

    kept.store.state.set_switched_off(False)
    kept.backend.gone = FirewallError("no answer")
    kept.side.kernel.manager.retry_switch()
    assert [alarm.code for alarm in kept.alarms.active] == ["firewall.not_enforced"]

    kept.backend.gone = None
    kept.side.kernel.manager.retry_switch()
    assert kept.banned() == {f"{OTHER}/32"}
    assert kept.alarms.active == []


def test_bans_that_cannot_be_read_are_an_alarm_until_they_are(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay recorded, also if writes were dropped; read later, those of exempt addresses end."""
    own = "192.0.2.2"
    kept.side.start()
    kept.ban(OTHER, own)
    disk = FullDisk(monkeypatch, BanTable, "running")
    kept.enforcer.switch_off()
    kept.side.kernel.manager.switch_on()
    kept.own_addresses_are(own)
    kept.store.best_effort.diverged = True
    kept.side.common.store_watch.retry(kept.enforcer)
    kept.side.kernel.manager.retry_switch()
    alarms = {alarm.code: alarm.text for alarm in firewall_alarms(kept.enforcer)}
    assert alarms[AlarmCode.STORE_UNREAD].endswith(": disk full")
    assert kept.banned() == set()

    disk.is_full = False
    kept.side.kernel.manager.retry_switch()
    assert AlarmCode.STORE_UNREAD not in {alarm.code for alarm in firewall_alarms(kept.enforcer)}
    assert kept.banned() == {f"{OTHER}/32"}


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_bans_that_are_read_right_after_the_clock_was_set_keep_their_time(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """They and the bans made meanwhile have the same time left in the kernel, the ledger and the store."""
    new = "192.0.2.3"
    kept.side.start()
    kept.ban(OTHER)
    disk = FullDisk(monkeypatch, BanTable, "running")
    kept.enforcer.switch_off()
    kept.side.kernel.manager.switch_on()
    kept.ban(new)
    kept.now += 1_800.0
    kept.ahead = ahead
    disk.is_full = False
    kept.side.kernel.manager.retry_switch()
    kept.enforcer.tick()

    now = kept.clock.wall()
    in_kernel = {element.network: element.timeout for element in kept.backend.list()}
    in_ledger = {network_of(key)[0]: one.expires - now for key, one in kept.enforcer.ledger.items()}
    in_store = {ban.network: ban.expires - now for ban in kept.store.records.running(now)}
    assert in_kernel == in_ledger == in_store == {ip_network(one): 1_800.0 for one in (OTHER, new)}


@pytest.mark.parametrize("restarted", [False, True])
def test_rules_that_the_kernel_refuses_to_remove_are_tried_again(kept: Kept, *, restarted: bool) -> None:
    """`off` is in force, but the alarm does not say that nobody is banned until the rules are gone."""
    kept.side.start()
    kept.ban(OTHER)
    kept.backend.gone = FirewallError("a set is in use")
    with pytest.raises(FirewallError, match="a set is in use"):
        kept.enforcer.switch_off()
    if restarted:
        kept.enforcer.not_removed = ""
        kept.side.start()
    kept.side.kernel.manager.retry_switch()
    [alarm] = kept.side.present_alarms
    assert alarm.text.startswith("bans may still be in force: the kernel refuses to remove the rules: a set")
    assert kept.banned() == {f"{OTHER}/32"}

    kept.backend.gone = None
    kept.side.kernel.manager.retry_switch()
    [alarm] = kept.side.present_alarms
    assert alarm.text.startswith("no address is banned")
    assert kept.banned() == set()


def watch(kept: Kept, done: Callable[[], bool]) -> None:
    """Watch for changes until ``done``."""

    async def watching() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            task = group.create_task(kept.side.kernel.changes.run())
            while not done():  # noqa: ASYNC110 - the checks signal nothing
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(watching())


def is_repaired(kept: Kept) -> bool:
    """Whether the rules were repaired once."""
    return kept.side.kernel.reconciler.counts.repaired == 1


def test_rules_without_notifications_are_repaired_before_the_next_full_check(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel reports no changes, the rules alone are checked more often than everything."""
    monkeypatch.setattr(firewall_manager, "LOOK_EVERY", 3_600.0)
    kept.side.start()
    kept.backend.trouble = "a rule is gone"
    watch(kept, lambda: is_repaired(kept))


def test_a_reported_change_is_checked_before_the_next_full_check(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel reports a change, everything is checked then; without a report once in a while."""
    ours, kernel = socket.socketpair()
    with ours, kernel:
        monkeypatch.setattr(kept.backend, "watch_fd", ours.fileno)
        monkeypatch.setattr(kept.backend, "rules_differ", lambda: False)
        monkeypatch.setattr(firewall_manager, "LOOK_EVERY", 0.1)
        kept.side.start()
        kept.backend.trouble = "a rule is gone"
        watch(kept, lambda: is_repaired(kept))

        monkeypatch.setattr(firewall_manager, "LOOK_EVERY", 3_600.0)
        kept.backend.trouble = "a rule is gone"
        kernel.send(b"1")
        watch(kept, lambda: kept.side.kernel.reconciler.counts.repaired == 2)


def test_frequent_changes_by_others_wait_for_the_next_look(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first change by another program is checked at once, further ones once a look."""
    checks: list[float] = []
    ours, kernel = socket.socketpair()
    with ours, kernel:
        kernel.send(b"always readable")
        monkeypatch.setattr(kept.backend, "watch_fd", ours.fileno)
        monkeypatch.setattr(kept.side.kernel.reconciler, "check", lambda: checks.append(time.monotonic()))
        monkeypatch.setattr(firewall_manager, "LOOK_EVERY", 0.5)
        monkeypatch.setattr(firewall_manager, "SETTLED", 3_600.0)
        kept.side.start()
        watch(kept, lambda: len(checks) > 3)

    assert all(after - before >= 0.25 for before, after in pairwise(checks[1:]))


def test_checks_take_at_most_a_third_of_the_time(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a check that takes long, the next one waits twice that time."""
    checks: list[tuple[float, float]] = []

    def check() -> None:
        began = time.monotonic()
        time.sleep(0.05)
        checks.append((began, time.monotonic()))

    monkeypatch.setattr(firewall_manager, "RULES_EVERY", 0.0)
    monkeypatch.setattr(kept.side.kernel.reconciler, "check", check)
    monkeypatch.setattr(kept.side.kernel.reconciler, "check_rules", check)
    watch(kept, lambda: len(checks) > 3)

    for (began, ended), (after, _) in pairwise(checks):
        assert after - ended >= 2 * (ended - began) * 0.99
