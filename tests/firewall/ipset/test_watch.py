"""Checks of the sets: sample bans, and the numbers in a set's header."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.firewall.contract import Add, Remove
from ringfence.firewall.ipset.sets import SampleBans, SetSpec, WrittenList, check_set
from ringfence.netlink.connection import NetlinkConnection
from ringfence.values.network import Network

NAME = "ringfence4"


def host(number: int) -> Network:
    """Return one of many addresses."""
    return ip_network((0x0A000000 + number, 32))


@pytest.fixture
def kernel(netns: None) -> Iterator[NetlinkConnection]:
    """Yield a connection in a namespace with one set of bans."""
    run("ipset", "create", NAME, "hash:net", "timeout", "0", "counters")
    with NetlinkConnection() as kernel:
        yield kernel


def put(*elements: tuple[Network, int]) -> None:
    """Add bans to the set by the ipset tool."""
    for network, timeout in elements:
        run("ipset", "-exist", "add", NAME, str(network), "timeout", str(timeout))


@pytest.mark.kernel
def test_the_ban_with_the_latest_end_is_the_sample(kernel: NetlinkConnection) -> None:
    """The ban with the latest end is the sample: only its early loss is found, until it is discarded."""
    witnesses = SampleBans()
    put((host(1), 600), (host(2), 60))
    witnesses.record(NAME, [Add(host(1), 600)])
    witnesses.record(NAME, [Add(host(2), 60)])

    run("ipset", "del", NAME, str(host(2)))
    assert witnesses.first_missing(kernel) is None
    run("ipset", "flush", NAME)
    put((host(3), 600))
    assert witnesses.first_missing(kernel) == "set ringfence4 has lost a ban"
    witnesses.discard_missing(kernel)
    assert witnesses.first_missing(kernel) is None


@pytest.mark.kernel
def test_our_own_changes_are_not_a_loss(kernel: NetlinkConnection) -> None:
    """Our own removal, a shorter timeout for the same network, and the end of a ban are not a loss."""
    witnesses = SampleBans()
    witnesses.record(NAME, [Add(host(1), 600)])
    witnesses.record(NAME, [Remove(host(1))])
    assert witnesses.first_missing(kernel) is None

    witnesses.record(NAME, [Add(host(1), 600)])
    witnesses.record(NAME, [Add(host(1), 1)])
    assert witnesses.first_missing(kernel) is None


@pytest.mark.kernel
def test_the_sample_of_a_large_batch_is_its_last_ban(kernel: NetlinkConnection) -> None:
    """The sample of a large batch is its last ban; a large removal leaves no sample."""
    witnesses = SampleBans()
    witnesses.record(NAME, [Add(host(n), 600) for n in range(1000)])
    assert witnesses.first_missing(kernel) == "set ringfence4 has lost a ban"
    put((host(999), 600))
    assert witnesses.first_missing(kernel) is None

    witnesses.record(NAME, [Remove(host(n)) for n in range(1000)])
    run("ipset", "flush", NAME)
    assert witnesses.first_missing(kernel) is None


@pytest.mark.kernel
def test_a_header_reveals_damage(kernel: NetlinkConnection) -> None:
    """A missing set, too few references and another number of elements are each named."""
    put((host(1), 600), (host(2), 600))
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", NAME, "src")
    bans, listed = SetSpec(NAME, 4, bans=True), SetSpec(NAME, 4, network_list=True)

    assert check_set(kernel, bans, 1, None) == (None, 2)
    assert check_set(kernel, bans, 2, None) == ("rules that name set ringfence4 are gone", 2)
    assert check_set(kernel, listed, 1, WrittenList(2)) == (None, 0)
    assert check_set(kernel, listed, 1, WrittenList(3)) == ("set ringfence4 has 2 elements instead of 3", 0)
    assert check_set(kernel, SetSpec("absent", 4, bans=True), 1, None) == ("set absent is gone", 0)


@pytest.mark.kernel
def test_only_the_sample_of_a_long_list_is_looked_up(kernel: NetlinkConnection) -> None:
    """A long list is not counted: only its sample is looked up, if there is one."""
    listed = SetSpec(NAME, 4, network_list=True)
    put((host(1), 600))

    assert check_set(kernel, listed, 9, WrittenList(100_000, host(1))) == (None, 0)
    assert check_set(kernel, listed, 9, WrittenList(100_000)) == (None, 0)
    run("ipset", "flush", NAME)
    assert check_set(kernel, listed, 9, WrittenList(100_000, host(1))) == (
        "set ringfence4 has lost a network",
        0,
    )
