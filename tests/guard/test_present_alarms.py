"""Alarms that last as long as a state of the firewall."""

from ipaddress import ip_network

from tests.support.kept import Kept

from ringfence.firewall.contract import Opened
from ringfence.guard.firewall_side import firewall_alarms


def test_a_firewall_that_refuses_or_lacks_something(kept: Kept) -> None:
    """A firewall that refuses bans, and missing limits, are alarms; a dry run needs no limits."""
    enforcer = kept.enforcer
    kept.side.start()
    enforcer.book.error = "the set is full"
    enforcer.opened = Opened({4: None, 6: "no IPv6"}, limits="no hashlimit")
    assert [(alarm.code, alarm.text) for alarm in firewall_alarms(enforcer)] == [
        ("firewall.dry_run", "the memory firewall drops nothing"),
        ("firewall.refused", "the firewall refuses bans (0 pending): the set is full"),
    ]
    kept.backend.enforces = True
    assert [alarm.text for alarm in firewall_alarms(enforcer)][1:] == [
        "the limits are not in place: no hashlimit"
    ]


def test_enforcement_that_is_off(kept: Kept) -> None:
    """While enforcement is off, the alarm names the fix."""
    kept.side.start()
    kept.enforcer.ban([ip_network("192.0.2.1")], 60.0, "")
    kept.enforcer.switch_off()
    assert [(alarm.code, alarm.text) for alarm in firewall_alarms(kept.enforcer)] == [
        ("firewall.off", "no address is banned; switch it on with: ringfence on")
    ]
