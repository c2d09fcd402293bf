"""The network interfaces of this host."""

import socket

import pytest

from ringfence.host.routes import missing_interfaces


def test_missing_interfaces_are_named() -> None:
    """A missing interface is reported, because a typing error would leave the PBX unguarded."""
    assert missing_interfaces(["lo"]) == []
    found = missing_interfaces(["lo", "nosuch0", "nosuch1"])
    assert [(alarm.code, alarm.subject) for alarm in found] == [
        ("firewall.interfaces", "nosuch0"),
        ("firewall.interfaces", "nosuch1"),
    ]


def test_unreadable_interfaces_are_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel does not list them, that is an alarm, and other alarms are found as before."""

    def refuse() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "if_nameindex", refuse)
    [alarm] = missing_interfaces(["lo"])
    assert (alarm.code, alarm.subject) == ("host.unreadable", "interfaces")
    assert alarm.text == "cannot be read: Too many open files"
