"""The networks that this host needs: read at the start, and followed."""

import pytest
from tests.support.attempts import ban_of
from tests.support.kept import OTHER, Kept
from tests.support.world import START

from ringfence.errors import HostError
from ringfence.model import Network


def test_a_failure_to_read_own_addresses_does_not_end_the_start(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If rtnetlink fails, the error is an alarm, and the guard is mounted; the daemon reads again later."""

    def fail() -> frozenset[Network]:
        raise HostError("this host's own addresses cannot be read by rtnetlink: no buffer space")

    monkeypatch.setattr("ringfence.daemon.protected_networks.read_addresses", fail)
    kept.store.bans.record([ban_of(OTHER, START)])
    kept.side.start()

    assert kept.banned() == {f"{OTHER}/32"}
    [alarm] = kept.side.protected.alarms
    assert (alarm.code, alarm.subject) == ("host.unreadable", "addresses")
    assert alarm.text == "this host's own addresses cannot be read by rtnetlink: no buffer space"
