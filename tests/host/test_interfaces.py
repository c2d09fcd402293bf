"""The network interfaces of this host."""

from ringfence.host.routes import missing_interfaces


def test_missing_interfaces_are_named() -> None:
    """A missing interface is reported, because a typing error would leave the PBX unguarded."""
    assert missing_interfaces(["lo"]) == []
    found = missing_interfaces(["lo", "nosuch0", "nosuch1"])
    assert [(alarm.code, alarm.subject) for alarm in found] == [
        ("firewall.interfaces", "nosuch0"),
        ("firewall.interfaces", "nosuch1"),
    ]
