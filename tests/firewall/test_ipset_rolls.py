"""The rolls are replaced in one step, and who is over the limit is added up."""

import itertools
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import ipset_messages as messages
from ringfence.firewall.contract import Flooder, Roll
from ringfence.firewall.ipset_kernel import listed
from ringfence.firewall.ipset_rolls import Flood, by_version, fill
from ringfence.firewall.ipset_sets import creation, kinds
from ringfence.firewall.ipset_watch import Filled
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.model import Network

pytestmark = [pytest.mark.kernel]
MANY = 100_000


@pytest.fixture
def kernel(netns: None) -> Iterator[Conversation]:
    """A conversation in a namespace that has all sets."""
    with Conversation() as conversation:
        for kind in [*kinds(4), *kinds(6)]:
            conversation.request(creation(kind, 1024))
        yield conversation


def networks(kernel: Conversation, name: str) -> set[Network]:
    """Give what a set holds."""
    return {element.network for element in listed(kernel, name)}


def names() -> list[str]:
    """Name the sets that there are."""
    return run("ipset", "list", "-name").split()


def test_a_roll_has_exactly_what_it_was_given(kernel: Conversation) -> None:
    """Overlaps stay side by side, doubles are one, what was there is gone, and no other set is left."""
    before = names()
    first = [ip_network(text) for text in ("192.0.2.0/24", "192.0.2.7", "192.0.2.7", "10.0.0.0/8")]
    assert fill(kernel, Roll.ALLOW, 4, first) == Filled(3, first[-1])
    assert networks(kernel, "ringfence-allow4") == set(first)

    assert fill(kernel, Roll.ALLOW, 4, [ip_network("198.51.100.1")]).elements == 1
    assert networks(kernel, "ringfence-allow4") == {ip_network("198.51.100.1")}
    assert fill(kernel, Roll.ALLOW, 4, []) == Filled(0)
    assert names() == before


@pytest.mark.parametrize(("version", "everybody"), [(4, "0.0.0.0/0"), (6, "::/0")])
def test_everybody_is_two_halves(kernel: Conversation, version: int, everybody: str) -> None:
    """A /0, which the kernel does not take, is on the roll as what it means."""
    network = ip_network(everybody)
    assert fill(kernel, Roll.DENY, version, [network]) == Filled(2, [*network.subnets()][-1])
    assert networks(kernel, f"ringfence-deny{version}") == set(network.subnets())


def test_a_failure_leaves_the_roll_as_it_was(kernel: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses in the middle the old roll stands, no other set is left, and it is told."""
    before = names()
    fill(kernel, Roll.DENY, 4, [ip_network("192.0.2.0/24")])
    many = [ip_network((0x0A000000 + n, 32)) for n in range(3000)]
    with monkeypatch.context() as small:
        real = messages.swap
        small.setattr(messages, "swap", lambda name, _other: real(name, "absent"))
        with pytest.raises(FirewallError, match="ringfence-deny4 could not be filled and is as it was"):
            fill(kernel, Roll.DENY, 4, many)

    assert networks(kernel, "ringfence-deny4") == {ip_network("192.0.2.0/24")}
    assert names() == before


def test_what_a_killed_filling_left_is_in_nobodys_way(kernel: Conversation) -> None:
    """A half-filled set of an earlier process is replaced."""
    before = names()
    run("ipset", "create", "ringfence-friends6-new", "hash:net", "family", "inet6")
    assert fill(kernel, Roll.FRIENDS, 6, [ip_network("2001:db8::/32")]).elements == 1
    assert names() == before


def test_a_long_roll_is_never_empty_meanwhile(kernel: Conversation) -> None:
    """While 100 000 networks take the place of 100 000 others, one that is on both is found at every look."""
    on_both = ip_network("192.0.2.1")
    old = [ip_network((0x0A000000 + n, 32)) for n in range(MANY)]
    new = [ip_network((0x14000000 + (n << 8), 24)) for n in range(MANY)]
    fill(kernel, Roll.ALLOW, 4, [*old, on_both])
    done = threading.Event()
    looks = itertools.count()
    missed = []

    def watch() -> None:
        with Conversation() as other:
            while not done.is_set():
                try:
                    other.request(messages.contains("ringfence-allow4", on_both))
                except NetlinkError as error:
                    missed.append(error)
                next(looks)
                time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    # The namespace is a thread's own: the new one has it from this one.
    watcher.start()
    try:
        assert fill(kernel, Roll.ALLOW, 4, [*new, on_both]).elements == MANY + 1
    finally:
        done.set()
        watcher.join()
    assert missed == []
    assert next(looks) > 10


def flood(*elements: tuple[str, int]) -> None:
    """Have the kernel list these sources with these counts."""
    for version in (4, 6):
        run("ipset", "flush", f"ringfence-flood{version}")
    for address, packets in elements:
        name = f"ringfence-flood{6 if ':' in address else 4}"
        run("ipset", "add", name, address, "timeout", "60", "packets", str(packets), "bytes", "0")


def test_sources_over_the_limit_are_added_up(kernel: Conversation) -> None:
    """An element made anew counts on, IPv6 by /64; who is not listed is not told, nor forgotten yet."""
    counted = Flood()
    four, six = ip_network("192.0.2.1"), ip_network("2001:db8:0:7::/64")

    assert counted.look(kernel, (4, 6)) == []
    flood(("192.0.2.1", 100), ("2001:db8:0:7::99", 5))
    assert counted.look(kernel, (4, 6)) == [Flooder(four, 100), Flooder(six, 5)]
    flood(("192.0.2.1", 150))
    assert counted.look(kernel, (4, 6)) == [Flooder(four, 150)]
    flood(("192.0.2.1", 20), ("2001:db8:0:7::1", 3))
    assert counted.look(kernel, (4, 6)) == [Flooder(four, 170), Flooder(six, 8)]
    assert counted.look(kernel, (4,)) == [Flooder(four, 170)]


def test_who_is_long_gone_is_forgotten(kernel: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of sources ends a while after the kernel has forgotten them."""
    counted = Flood()
    flood(("192.0.2.1", 100))
    counted.look(kernel, (4,))
    flood()
    monkeypatch.setattr("ringfence.firewall.ipset_rolls._MEMORY", 0.0)
    counted.look(kernel, (4,))
    assert counted._seen == {}


def test_networks_are_sorted_by_version() -> None:
    """Each network goes to the sets of its own IP version, in order."""
    mixed = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"), ip_network("10.0.0.0/8")]
    assert by_version(mixed) == {4: [mixed[0], mixed[2]], 6: [mixed[1]]}
    assert by_version([]) == {4: [], 6: []}
