"""Witnesses among the bans, and what a set's head says."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.firewall.contract import Add, Remove
from ringfence.firewall.ipset_messages import SetHead
from ringfence.firewall.ipset_sets import Kind
from ringfence.firewall.ipset_watch import Witnesses, set_trouble
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


def test_a_head_tells_what_is_other() -> None:
    """A set that is gone, one that fewer rules name, a roll of another length: each is named."""

    def head(elements: int, references: int) -> SetHead:
        return SetHead(
            "s",
            "hash:net",
            4,
            timeout=False,
            counters=False,
            maxelem=9,
            elements=elements,
            references=references,
        )

    bans, roll = Kind("s", 4, bans=True), Kind("s", 4, roll=True)
    assert set_trouble(bans, None, 3, None) == "set s is gone"
    assert set_trouble(bans, head(5, 2), 3, None) == "rules that name set s are gone"
    assert set_trouble(roll, head(5, 3), 3, 6) == "set s has 5 elements and was given 6"
    assert [set_trouble(bans, head(5, 4), 3, 6), set_trouble(roll, head(6, 3), 3, 6)] == [None, None]
