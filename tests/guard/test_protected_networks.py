"""The networks that this host needs: read at the start, and followed."""

from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.support.attempts import ban_of
from tests.support.kept import OTHER, Kept, settings
from tests.support.world import START

from ringfence.config.schema import AsteriskSettings
from ringfence.errors import HostError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import PROBE_NETWORKS
from ringfence.values.network import Network


def test_a_proxy_is_never_banned(kept: Kept) -> None:
    """The proxies of the configuration are exempt, also after a reload adds one."""
    kept.side.start()
    pbx = evolve(AsteriskSettings(), proxies=(ip_network("198.18.7.0/30"),))
    kept.side.configure(evolve(settings(), asterisk=(pbx,)))

    assert kept.side.detector.exempt.covers(ip_address("198.18.7.2"))
    reason = kept.side.kernel.enforcer.book.exempt.refusal(ip_network("198.18.7.2"))
    assert (
        reason == "is never banned: 198.18.7.0/30, a SIP proxy ([asterisk] proxies); --force bans it anyway"
    )


def test_a_proxy_anywhere_on_this_host_lets_no_packet_of_the_probe_pass(kept: Kept) -> None:
    """The probe bans addresses of 127.0.0.0/8: if the allow list had them, the next start would fail."""
    pbx = evolve(AsteriskSettings(), proxies=(ip_network("127.0.0.0/8"),))
    kept.side.configure(evolve(settings(), asterisk=(pbx,)))
    kept.side.start()

    allowed = kept.backend.lists[network_lists.ALLOW]
    assert any(ip_address("127.0.0.1") in one for one in allowed)
    assert not any(one.overlaps(ip_network(PROBE_NETWORKS[4])) for one in allowed if one.version == 4)


def test_a_failure_to_read_own_addresses_does_not_end_the_start(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If rtnetlink fails, the error is an alarm, and the guard is mounted; the daemon reads again later."""

    def fail() -> frozenset[Network]:
        raise HostError("this host's own addresses cannot be read by rtnetlink: no buffer space")

    monkeypatch.setattr("ringfence.host.protected.read_addresses", fail)
    kept.store.bans.record([ban_of(OTHER, START)])
    kept.side.start()

    assert kept.banned() == {f"{OTHER}/32"}
    [alarm] = kept.side.exempt.protected.alarms
    assert (alarm.code, alarm.subject) == ("host.unreadable", "addresses")
    assert alarm.text == "this host's own addresses cannot be read by rtnetlink: no buffer space"
