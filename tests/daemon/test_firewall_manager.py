"""The firewall as a whole: what another backend left, and enforcement that is tried again."""

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
