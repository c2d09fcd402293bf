"""Notifications about changes: one for each transaction, with its author, and nothing else."""

import errno
import os
import select
from collections.abc import Iterator
from ipaddress import ip_network
from unittest.mock import Mock

import pytest
from tests.support.netns import run

from ringfence.firewall.nftables import elements as nft_elements
from ringfence.firewall.nftables import messages as nft_messages
from ringfence.firewall.nftables.watch import ChangeMonitor, Notifications
from ringfence.netlink.connection import NetlinkConnection

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.fixture
def monitor(netns: None) -> Iterator[ChangeMonitor]:
    """Yield a monitor of this test's namespace."""
    made = ChangeMonitor()
    yield made
    made.close()


def is_readable(monitor: ChangeMonitor) -> bool:
    """Whether there is anything to read."""
    return bool(select.select([monitor], [], [], 0)[0])


def test_changes_are_notified_and_reading_is_not(monitor: ChangeMonitor) -> None:
    """A foreign change is notified with its port; reading causes no notification."""
    assert (is_readable(monitor), monitor.drain()) == (False, Notifications(frozenset()))
    run("nft", "add", "table", "inet", "t")
    assert is_readable(monitor)
    notified = monitor.drain()
    assert len(notified.ports) == 1
    assert os.getpid() not in notified.ports
    run("nft", "list", "ruleset")
    run("iptables-nft-save")
    assert (is_readable(monitor), monitor.drain()) == (False, Notifications(frozenset()))


def test_our_own_changes_have_our_port(monitor: ChangeMonitor) -> None:
    """A thousand elements in one transaction are one notification, with the port of the connection."""
    run("nft", "add table inet t; add set inet t ban4_32 { type ipv4_addr; flags timeout; }")
    monitor.drain()
    bans = [(ip_network((0x0A000000 + n, 32)), 60) for n in range(1000)]
    with NetlinkConnection(extended=True) as kernel:
        assert kernel.transact(nft_elements.add_elements("t", "ban4_32", bans)) == []
        assert monitor.drain() == Notifications(frozenset({kernel.port or 0}))


def test_changes_of_our_table_are_marked(monitor: ChangeMonitor) -> None:
    """A transaction of table inet ringfence is marked as such; other tables of similar names are not."""
    run("nft", "add table inet t; add table ip ringfence; add table inet ringfence2")
    run("nft", "add set ip ringfence s { type ipv4_addr; }; add element ip ringfence s { 192.0.2.1 }")
    notified = monitor.drain()
    assert (len(notified.ports), notified.touched) == (2, frozenset())

    run("nft", "add table inet ringfence { set s { type ipv4_addr; }; }")
    run("nft", "add element inet ringfence s { 192.0.2.1, 192.0.2.2 }")
    notified = monitor.drain()
    assert len(notified.ports) == 2
    assert notified.touched == notified.ports
    run("nft", "delete table inet ringfence")
    notified = monitor.drain()
    assert notified.touched == notified.ports != frozenset()


def test_an_ignored_port_causes_no_notification(monitor: ChangeMonitor) -> None:
    """Changes from an ignored port are not notified, until other ports are ignored."""
    run("nft", "add table inet ringfence; add set inet ringfence s { type ipv4_addr; flags timeout; }")
    monitor.drain()
    with NetlinkConnection(extended=True) as kernel:
        for ignored in (True, False):
            one = ip_network((0xC0000200 + ignored, 32))
            add = nft_elements.add_elements("ringfence", "s", [(one, 60)])
            kernel.request(nft_messages.get_generation())
            monitor.ignore([2, kernel.port or 0] if ignored else [1, 2])
            assert kernel.transact(add) == []
            assert is_readable(monitor) is not ignored
            monitor.drain()


def test_a_pause_is_silent(monitor: ChangeMonitor) -> None:
    """Changes during a pause are not notified, neither then nor later; earlier and later changes are."""
    run("nft", "add", "table", "inet", "before")
    monitor.pause()
    run("nft", "add", "table", "inet", "meanwhile")
    assert len(monitor.drain().ports) == 1
    monitor.resume()
    assert monitor.drain() == Notifications(frozenset())
    run("nft", "add", "table", "inet", "after")
    assert len(monitor.drain().ports) == 1


def test_lost_notifications_are_reported(monitor: ChangeMonitor) -> None:
    """If the socket has no room for all notifications, that is reported once, and the socket goes on."""
    with NetlinkConnection(extended=True) as kernel:
        run("nft", "add table inet t; add set inet t ban4_32 { type ipv4_addr; flags timeout; }")
        network = ip_network("192.0.2.1")
        added, removed = (
            nft_elements.add_elements("t", "ban4_32", [(network, 60)]),
            nft_elements.delete_elements("t", "ban4_32", [network]),
        )
        for _ in range(2000):
            assert kernel.transact(added) == kernel.transact(removed) == []
        assert monitor.drain().lost
        kernel.transact(added)
        assert monitor.drain() == Notifications(frozenset({kernel.port or 0}))


def test_a_refused_reading_counts_as_a_loss(monitor: ChangeMonitor) -> None:
    """If the kernel refuses to deliver a notification, some may be lost: nothing fails, all is compared."""
    real = monitor._socket

    def refuse(_: int) -> bytes:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monitor._socket = Mock(recv=refuse)
    try:
        assert monitor.drain() == Notifications(frozenset(), lost=True)
    finally:
        monitor._socket = real
    assert not monitor.drain().lost
