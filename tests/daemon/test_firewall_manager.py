"""The firewall as a whole: leftovers of another backend, enforcement tried again, changes by others."""

import asyncio
import os

import pytest
from tests.support.kept import OTHER, Kept

from ringfence.errors import FirewallError
from ringfence.firewall.probe import Verification


def test_what_another_firewall_left_is_tried_again_when_it_is_switched_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another backend's rules cannot be removed, an alarm names the fix and clears when it worked."""

    def refuse(_kept: str) -> list[str]:
        raise FirewallError("no right")

    kept.backend.enforces = True
    # This backend drops no packet.
    monkeypatch.setattr("ringfence.bans.enforcer.verify", lambda *_: Verification(()))
    monkeypatch.setattr("ringfence.daemon.firewall_manager.flush_other_backends", refuse)
    kept.side.start()
    [alarm] = kept.alarms.active
    assert alarm.text.endswith("no right; fix, as root: ringfence off, ringfence on")

    monkeypatch.setattr("ringfence.daemon.firewall_manager.flush_other_backends", lambda _kept: [])
    kept.enforcer.switch_off()
    kept.side.manager.switch_on()
    assert kept.alarms.active == []


def test_enforcement_that_failed_is_tried_again(kept: Kept) -> None:
    """Enforcement that should be on is tried again, with an alarm until it is; `off` is respected."""
    kept.side.start()
    kept.ban(OTHER)
    kept.enforcer.switch_off()
    kept.side.manager.retry_switch_on()
    assert kept.banned() == set()

    kept.store.state.set_switched_off(False)
    kept.backend.gone = FirewallError("no answer")
    kept.side.manager.retry_switch_on()
    assert [alarm.code for alarm in kept.alarms.active] == ["firewall.not_enforced"]

    kept.backend.gone = None
    kept.side.manager.retry_switch_on()
    assert kept.banned() == {f"{OTHER}/32"}
    assert kept.alarms.active == []


def test_frequent_changes_by_others_wait_for_the_next_look(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first change by another program is checked at once, and frequent further ones once a look."""
    kept.side.start()
    monkeypatch.setattr("ringfence.daemon.firewall_manager.LOOK_EVERY", 0.05)
    monkeypatch.setattr("ringfence.daemon.firewall_manager.SETTLED", 0.4)
    notified, notify = os.pipe()
    calls = {"look": 0, "check": 0}

    def watch_fd() -> int:
        calls["look"] += 1
        return notified

    def check() -> None:
        calls["check"] += 1

    monkeypatch.setattr(kept.backend, "watch_fd", watch_fd)
    monkeypatch.setattr(kept.side.reconciler, "check", check)

    async def scenario() -> list[int]:
        at_once = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(kept.side.changes.run())
            for seconds in (0.6, 0.02):
                os.write(notify, b"n")
                await asyncio.sleep(seconds)
                at_once.append(calls["check"] - calls["look"])
                os.read(notified, 1)
                await asyncio.sleep(0.6)
            task.cancel()
        return at_once

    try:
        assert asyncio.run(scenario()) == [1, 2]
    finally:
        os.close(notified)
        os.close(notify)
