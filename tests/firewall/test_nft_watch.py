"""The kernel's word of changes: one for each transaction, whose it was, and nothing else."""

import os
import select
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.firewall import nft_elements, nft_messages
from ringfence.firewall.netlink import Conversation
from ringfence.firewall.nft_watch import Told, Watch

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.fixture
def watch(netns: None) -> Iterator[Watch]:
    """A watch of this test's namespace."""
    made = Watch()
    yield made
    made.close()


def is_readable(watch: Watch) -> bool:
    """Say whether there is something to read."""
    return bool(select.select([watch], [], [], 0)[0])


def test_changes_are_told_and_reading_is_none(watch: Watch) -> None:
    """A change is told with somebody's port and wakes who waits; to list, or to do nothing, is no change."""
    assert (is_readable(watch), watch.drain()) == (False, Told(frozenset()))
    run("nft", "add", "table", "inet", "t")
    assert is_readable(watch)
    told = watch.drain()
    assert len(told.ports) == 1
    assert os.getpid() not in told.ports
    run("nft", "list", "ruleset")
    run("iptables-nft-save")
    assert (is_readable(watch), watch.drain()) == (False, Told(frozenset()))


def test_ones_own_changes_are_known_by_their_port(watch: Watch) -> None:
    """A thousand elements in one transaction are one notification, with the port of the conversation."""
    run("nft", "add table inet t; add set inet t ban4_32 { type ipv4_addr; flags timeout; }")
    watch.drain()
    bans = [(ip_network((0x0A000000 + n, 32)), 60) for n in range(1000)]
    with Conversation(extended=True) as kernel:
        assert kernel.transact(nft_messages.batch(nft_elements.add("t", "ban4_32", bans))) == []
        assert watch.drain() == Told(frozenset({kernel.port or 0}))


def test_a_pause_is_silent(watch: Watch) -> None:
    """While it pauses nothing is told, also not later; what came before and what comes after is."""
    run("nft", "add", "table", "inet", "before")
    watch.pause()
    run("nft", "add", "table", "inet", "meanwhile")
    assert len(watch.drain().ports) == 1
    watch.resume()
    assert watch.drain() == Told(frozenset())
    run("nft", "add", "table", "inet", "after")
    assert len(watch.drain().ports) == 1


def test_what_is_lost_is_told(watch: Watch) -> None:
    """Where there were more changes than the socket holds, that is said once, and the socket goes on."""
    with Conversation(extended=True) as kernel:
        run("nft", "add table inet t; add set inet t ban4_32 { type ipv4_addr; flags timeout; }")
        network = ip_network("192.0.2.1")
        there, gone = (
            nft_messages.batch(nft_elements.add("t", "ban4_32", [(network, 60)])),
            nft_messages.batch(nft_elements.delete("t", "ban4_32", [network])),
        )
        for _ in range(2000):
            assert kernel.transact(there) == kernel.transact(gone) == []
        assert watch.drain().lost
        kernel.transact(there)
        assert watch.drain() == Told(frozenset({kernel.port or 0}))
