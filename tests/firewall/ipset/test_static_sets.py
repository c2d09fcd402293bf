"""Network lists are replaced in one step, and packets over the limit are added up."""

import errno
import itertools
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.features.limiter.stage import FLOODS, TCP_FLOODS
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Remembered
from ringfence.firewall.ipset import messages
from ringfence.firewall.ipset.backend import SenderCounts, by_version, replace_list_in_steps
from ringfence.firewall.ipset.sets import WrittenList, create_set, list_elements, set_specs
from ringfence.firewall.limits import Table
from ringfence.firewall.network_lists import NetworkList
from ringfence.netlink.connection import NetlinkConnection, NetlinkError, NetlinkLostError
from ringfence.values.network import Network

pytestmark = [pytest.mark.kernel]


@pytest.fixture
def kernel(netns: None) -> Iterator[NetlinkConnection]:
    """Yield a connection in a namespace that has all sets."""
    with NetlinkConnection() as made:
        for spec in [*set_specs(4), *set_specs(6)]:
            made.request(create_set(spec, 1024))
        yield made


def fill(kernel: NetlinkConnection, which: NetworkList, version: int, networks: list[Network]) -> WrittenList:
    """Replace a list in all steps, and return what was written."""
    steps = replace_list_in_steps(kernel, which, version, by_version(networks)[version])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            left: WrittenList = end.value
            return left


def networks(kernel: NetlinkConnection, name: str) -> set[Network]:
    """Return the elements of a set."""
    return {element.network for element in list_elements(kernel, name)}


def names() -> list[str]:
    """Return the names of the existing sets."""
    return run("ipset", "list", "-name").split()


def test_a_list_has_exactly_its_last_contents(kernel: NetlinkConnection) -> None:
    """Overlaps stay, duplicates are one, old elements are gone, and no other set is left."""
    before = names()
    first = [ip_network(text) for text in ("192.0.2.0/24", "192.0.2.7", "192.0.2.7", "10.0.0.0/8")]
    assert fill(kernel, network_lists.ALLOW, 4, first) == WrittenList(3, first[-1])
    assert networks(kernel, "ringfence-allow4") == set(first)

    assert fill(kernel, network_lists.ALLOW, 4, [ip_network("198.51.100.1")]).elements == 1
    assert networks(kernel, "ringfence-allow4") == {ip_network("198.51.100.1")}
    assert fill(kernel, network_lists.ALLOW, 4, []) == WrittenList(0)
    assert names() == before


@pytest.mark.parametrize(("version", "zero_prefix"), [(4, "0.0.0.0/0"), (6, "::/0")])
def test_a_zero_prefix_is_two_halves(kernel: NetlinkConnection, version: int, zero_prefix: str) -> None:
    """A /0, which the kernel does not accept, is on the list as two halves."""
    network = ip_network(zero_prefix)
    assert fill(kernel, network_lists.DENY, version, [network]) == WrittenList(2, [*network.subnets()][-1])
    assert networks(kernel, f"ringfence-deny{version}") == set(network.subnets())


def test_a_failure_leaves_the_list_unchanged(
    kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel refuses a network, the old list stays, no other set is left, and it is an error."""
    before = names()
    fill(kernel, network_lists.DENY, 4, [ip_network("192.0.2.0/24")])
    many = [ip_network((0x0A000000 + n, 32)) for n in range(3000)]
    with monkeypatch.context() as small:
        real = messages.swap
        small.setattr(messages, "swap", lambda name, _other: real(name, "absent"))
        with pytest.raises(FirewallError, match="ringfence-deny4 could not be filled and is unchanged"):
            fill(kernel, network_lists.DENY, 4, many)

    assert networks(kernel, "ringfence-deny4") == {ip_network("192.0.2.0/24")}
    assert names() == before


def test_a_list_that_loses_networks_while_it_is_filled_is_not_used(kernel: NetlinkConnection) -> None:
    """If another program empties the temporary set, it is an error, and the old list stays."""
    before, old = names(), ip_network("192.0.2.0/24")
    fill(kernel, network_lists.DENY, 4, [old])
    many: list[Network] = [ip_network((0x0A000000 + n, 32)) for n in range(3000)]
    steps = replace_list_in_steps(kernel, network_lists.DENY, 4, many)
    next(steps)
    run("ipset", "flush", "ringfence-deny4-new")
    with pytest.raises(FirewallError, match="ringfence-deny4-new is not as it was filled"):
        list(steps)

    assert networks(kernel, "ringfence-deny4") == {old}
    assert names() == before


def test_a_swap_whose_answer_is_lost_is_not_repeated(
    kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel's answer to the swap is lost, that is an error, and a second swap does not undo it."""
    before, after = ip_network("192.0.2.0/24"), ip_network("198.51.100.0/24")
    fill(kernel, network_lists.DENY, 4, [before])
    swap = messages.swap("ringfence-deny4", "ringfence-deny4-new")
    real = NetlinkConnection._exchange

    def exchange(self: NetlinkConnection, message: bytes) -> tuple[list[bytes], bool]:
        answered = real(self, message)
        if message == swap:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return answered

    monkeypatch.setattr(NetlinkConnection, "_exchange", exchange)
    with pytest.raises(NetlinkLostError):
        fill(kernel, network_lists.DENY, 4, [after])
    assert networks(kernel, "ringfence-deny4") == {after}
    assert "ringfence-deny4-new" not in names()


def test_a_temporary_set_of_a_killed_process_is_replaced(kernel: NetlinkConnection) -> None:
    """A half-filled set of an earlier process is replaced."""
    before = names()
    run("ipset", "create", "ringfence-friends6-new", "hash:net", "family", "inet6")
    assert fill(kernel, network_lists.FRIENDS, 6, [ip_network("2001:db8::/32")]).elements == 1
    assert names() == before


@pytest.mark.parametrize("number", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_long_list_is_never_empty_meanwhile(kernel: NetlinkConnection, number: int) -> None:
    """While very many networks replace as many others, each query finds an address on both lists.

    They are replaced until there were more than ten queries, however fast the machine is.
    """
    on_both = ip_network("192.0.2.1")
    old = [ip_network((0x0A000000 + n, 32)) for n in range(number)]
    new = [ip_network((0x14000000 + (n << 8), 24)) for n in range(number)]
    fill(kernel, network_lists.ALLOW, 4, [*old, on_both])
    done = threading.Event()
    looks: list[None] = []
    missed = []

    def watch() -> None:
        with NetlinkConnection() as other:
            while not done.is_set():
                try:
                    other.request(messages.contains("ringfence-allow4", on_both))
                except NetlinkError as error:
                    missed.append(error)
                looks.append(None)
                time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    # Each thread has its namespace: the new thread inherits it from this one.
    watcher.start()
    try:
        for networks in itertools.cycle([new, old]):
            assert fill(kernel, network_lists.ALLOW, 4, [*networks, on_both]).elements == number + 1
            if len(looks) > 10 or not watcher.is_alive():
                break
    finally:
        done.set()
        watcher.join()
    assert missed == []
    assert len(looks) > 10


def test_packets_of_senders_are_added_up() -> None:
    """Counts continue over a new element, for each table; an unlisted sender is kept but not reported."""
    counted = SenderCounts()
    four, six = ip_network("192.0.2.1"), ip_network("2001:db8:0:7::/64")

    def add(*found: tuple[Network, int], table: Table = FLOODS) -> list[tuple[Network, int]]:
        added = counted.add(table, [Remembered(*one) for one in found])
        return [(one.network, one.packets) for one in added]

    assert add() == []
    assert add((four, 100), (six, 5)) == [(four, 100), (six, 5)]
    assert add((four, 150)) == [(four, 150)]
    assert add((four, 3), table=TCP_FLOODS) == [(four, 3)]
    assert add((four, 20), (six, 3)) == [(four, 170), (six, 8)]


def test_old_senders_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender is forgotten a while after the kernel has forgotten it."""
    counted = SenderCounts()
    counted.add(FLOODS, [Remembered(ip_network("192.0.2.1"), 100)])
    monkeypatch.setattr("ringfence.firewall.ipset.backend._MEMORY", 0.0)
    counted.add(FLOODS, [])
    assert counted._seen == {}


def test_networks_are_sorted_by_version() -> None:
    """Each network goes to the sets of its IP version, in order."""
    mixed = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"), ip_network("10.0.0.0/8")]
    assert by_version(mixed) == {4: [mixed[0], mixed[2]], 6: [mixed[1]]}
    assert by_version([]) == {4: [], 6: []}
