"""Bans read from the kernel: one, part of a set, and all."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.firewall.nftables import state
from ringfence.netlink.connection import NetlinkConnection, NetlinkInterruptedError
from ringfence.values.ban import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

TABLE = """\
table inet ringfence {
  set ban4_32 { type ipv4_addr; flags timeout; counter; elements = { 192.0.2.1 timeout 1h } }
  set sip6_64 { type ipv6_addr; flags timeout; counter; elements = { 2001:db8:: timeout 1h } }
  set flood4 { type ipv4_addr; flags timeout; elements = { 192.0.2.2 timeout 1h } }
}
"""
FOUR, SIX = (ip_network("192.0.2.1"), Scope.FULL), (ip_network("2001:db8::/64"), Scope.SIP_UDP)


@pytest.fixture
def kernel(netns: None) -> Iterator[NetlinkConnection]:
    """Yield a connection to a kernel that has two bans."""
    run("nft", "-f", "-", text=TABLE)
    with NetlinkConnection(extended=True) as made:
        yield made


def test_every_ban_is_listed_and_found(kernel: NetlinkConnection) -> None:
    """Bans are listed with their scopes, other sets are not, and an absent ban is not found."""
    assert {(one.network, one.scope) for one in state.bans(kernel, [])} == {FOUR, SIX}
    found = state.find(kernel, *SIX)
    assert found is not None
    assert 3_500 < found.timeout <= 3_600
    assert state.find(kernel, FOUR[0], Scope.SIP_UDP) is None


def test_a_part_is_sufficient(kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a set changes meanwhile, the answers that arrived are returned."""
    answer = state.read_part(kernel, "flood4")[0]

    def disturbed(_kernel: NetlinkConnection, _message: bytes) -> Iterator[bytes]:
        yield answer
        raise NetlinkInterruptedError([answer])

    monkeypatch.setattr(NetlinkConnection, "stream", disturbed)
    assert state.read_part(kernel, "flood4") == [answer]
