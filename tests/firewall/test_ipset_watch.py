"""Witnesses among the bans, and what a set's head says."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.firewall.contract import Add, Remove
from ringfence.firewall.ipset_sets import Kind
from ringfence.firewall.ipset_watch import Filled, Witnesses, look_at
from ringfence.firewall.netlink import Conversation
from ringfence.model import Network

NAME = "ringfence4"


def host(number: int) -> Network:
    """Give one of many addresses."""
    return ip_network((0x0A000000 + number, 32))


@pytest.fixture
def kernel(netns: None) -> Iterator[Conversation]:
    """A conversation in a namespace with one set of bans."""
    run("ipset", "create", NAME, "hash:net", "timeout", "0", "counters")
    with Conversation() as kernel:
        yield kernel


def put(*elements: tuple[Network, int]) -> None:
    """Put bans into the set by the tool."""
    for network, timeout in elements:
        run("ipset", "-exist", "add", NAME, str(network), "timeout", str(timeout))


@pytest.mark.kernel
def test_the_ban_that_ends_last_is_the_witness(kernel: Conversation) -> None:
    """Shorter bans may go unseen; the longest that goes before its time is missed, until it is forgotten."""
    witnesses = Witnesses()
    put((host(1), 600), (host(2), 60))
    witnesses.note(NAME, [Add(host(1), 600.0)])
    witnesses.note(NAME, [Add(host(2), 60.0)])

    run("ipset", "del", NAME, str(host(2)))
    assert witnesses.missing(kernel) is None
    run("ipset", "flush", NAME)
    put((host(3), 600))
    assert witnesses.missing(kernel) == "set ringfence4 has lost a ban"
    witnesses.keep(kernel)
    assert witnesses.missing(kernel) is None


@pytest.mark.kernel
def test_a_ban_that_we_lift_or_shorten_is_not_missed(kernel: Conversation) -> None:
    """Our own removal, a shorter time for the same network, and the end of a ban are no loss."""
    witnesses = Witnesses()
    witnesses.note(NAME, [Add(host(1), 600.0)])
    witnesses.note(NAME, [Remove(host(1))])
    assert witnesses.missing(kernel) is None

    witnesses.note(NAME, [Add(host(1), 600.0)])
    witnesses.note(NAME, [Add(host(1), 1.0)])
    assert witnesses.missing(kernel) is None


@pytest.mark.kernel
def test_a_large_batch_leaves_its_last(kernel: Conversation) -> None:
    """Of a large batch the last is asked for; a large removal leaves nobody to ask for."""
    witnesses = Witnesses()
    witnesses.note(NAME, [Add(host(n), 600.0) for n in range(1000)])
    assert witnesses.missing(kernel) == "set ringfence4 has lost a ban"
    put((host(999), 600))
    assert witnesses.missing(kernel) is None

    witnesses.note(NAME, [Remove(host(n)) for n in range(1000)])
    run("ipset", "flush", NAME)
    assert witnesses.missing(kernel) is None


@pytest.mark.kernel
def test_a_head_tells_what_is_other(kernel: Conversation) -> None:
    """A set that is gone, one that fewer rules name, a roll of another length: each is named."""
    put((host(1), 600), (host(2), 600))
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", NAME, "src")
    bans, roll = Kind(NAME, 4, bans=True), Kind(NAME, 4, roll=True)

    assert look_at(kernel, bans, 1, None) == (None, 2)
    assert look_at(kernel, bans, 2, None) == ("rules that name set ringfence4 are gone", 2)
    assert look_at(kernel, roll, 1, Filled(2)) == (None, 0)
    assert look_at(kernel, roll, 1, Filled(3)) == ("set ringfence4 has 2 elements and was given 3", 0)
    assert look_at(kernel, Kind("absent", 4, bans=True), 1, None) == ("set absent is gone", 0)


@pytest.mark.kernel
def test_of_a_long_roll_its_witness_is_asked_for(kernel: Conversation) -> None:
    """A long roll is not counted: it is as it was while its witness is on it, if one is known."""
    roll = Kind(NAME, 4, roll=True)
    put((host(1), 600))

    assert look_at(kernel, roll, 9, Filled(100_000, host(1))) == (None, 0)
    assert look_at(kernel, roll, 9, Filled(100_000)) == (None, 0)
    run("ipset", "flush", NAME)
    assert look_at(kernel, roll, 9, Filled(100_000, host(1))) == ("set ringfence4 has lost a network", 0)
