"""Changes of bans: refused, unacknowledged and many ones."""

from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.firewall.contract import (
    Add,
    FirewallPlan,
    Outcome,
    Remove,
)
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.netlink.connection import NetlinkConnection, NetlinkLostError

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def test_a_missing_set_is_an_error(backend: IpsetBackend) -> None:
    """Bans for a missing set are errors that name it, one by one, and open repairs it."""
    run("nft", "flush", "ruleset")
    run("ipset", "destroy", "ringfence4")
    changes = [Add(ip_network("192.0.2.1"), 60), Add(ip_network("192.0.2.2"), 60)]
    other = Add(ip_network("2001:db8::/64"), 60)

    outcomes = backend.apply([*changes, other])

    assert [str(outcome.error) for outcome in outcomes] == [
        "set ringfence4 is gone: another program destroyed it; opening the firewall again creates it"
    ] * 2 + ["None"]
    backend.open()
    assert backend.apply(changes) == [Outcome(change, 60.0) for change in changes]


def test_a_64_in_another_set_is_found_and_removed() -> None:
    """A /64 added by `ipset add ringfence6` is listed, found and removed like one in its proper set."""
    backend, network = IpsetBackend(), ip_network("2001:db8:7::/64")
    backend.open()
    run("ipset", "add", "ringfence6", str(network), "timeout", "60")

    assert [element.network for element in backend.list()] == [network]
    assert backend.find(network) is not None
    assert backend.apply([Remove(network)]) == [Outcome(Remove(network))]
    assert list(backend.list()) == []
    backend.close()


def test_a_64_whose_removal_is_not_acknowledged_in_each_set_is_an_error(
    backend: IpsetBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A /64 is removed from both of its sets; if one answer is missing, the removal is an error."""
    network = ip_network("2001:db8:7::/64")
    run("ipset", "add", "ringfence6", str(network), "timeout", "60")

    def silent(_connection: NetlinkConnection, _message: bytes) -> list[bytes]:
        monkeypatch.undo()  # the next request is answered
        raise NetlinkLostError("the kernel did not answer")

    monkeypatch.setattr(NetlinkConnection, "request", silent)
    [outcome] = backend.apply([Remove(network)])
    assert isinstance(outcome.error, NetlinkLostError)
    assert backend.find(network) is not None
    assert backend.apply([Remove(network)]) == [Outcome(Remove(network))]
    assert backend.find(network) is None


def test_an_unacknowledged_change_is_an_error(backend: IpsetBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel stops answering, all unacknowledged changes are errors, after one timeout."""
    real, requests = NetlinkConnection.request, 0

    def dying(self: NetlinkConnection, message: bytes) -> list[bytes]:
        nonlocal requests
        requests += 1
        if requests > 1:
            raise NetlinkLostError("the kernel did not answer")
        return real(self, message)

    monkeypatch.setattr(NetlinkConnection, "request", dying)
    changes = [Add(ip_network((0x0A000000 + n, 32)), 60) for n in range(3000)]
    other = Add(ip_network("2001:db8::/64"), 60)

    outcomes = backend.apply([*changes, other])

    assert [outcome.change for outcome in outcomes] == [*changes, other]
    assert [outcome.error is None for outcome in outcomes] == [True] * 1200 + [False] * 1801
    assert requests == 2
    monkeypatch.undo()
    assert len(list(backend.list())) == 1200


def test_a_full_set_costs_one_request_for_each_refusal(netns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of bans for a full set cost at most one request each, and the first are added."""
    real, requests = NetlinkConnection.request, 0

    def counted(self: NetlinkConnection, message: bytes) -> list[bytes]:
        nonlocal requests
        requests += 1
        return real(self, message)

    backend = IpsetBackend(FirewallPlan(maxelem=100))
    backend.open()
    monkeypatch.setattr(NetlinkConnection, "request", counted)
    outcomes = backend.apply([Add(ip_network((0x0A000000 + n, 32)), 60) for n in range(3_000)])

    assert requests <= 3_000
    assert sum(outcome.error is None for outcome in outcomes) == len(list(backend.list()))
    assert [outcome.error is None for outcome in outcomes[:100]] == [True] * 100
    backend.close()


@pytest.mark.parametrize("number", [10_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_very_many_bans(backend: IpsetBackend, number: int) -> None:
    """Very many bans of both families are added, listed and removed, all confirmed."""
    bans = [Add(ip_network((0x0A000000 + n, 32)), 600) for n in range(number)]
    bans += [Add(ip_network(((0xFD000000 << 96) + (n << 64), 64)), 600) for n in range(number)]

    assert {outcome.error for outcome in backend.apply(bans)} == {None}
    assert {element.network for element in backend.list()} == {ban.network for ban in bans}
    assert {outcome.error for outcome in backend.apply([Remove(ban.network) for ban in bans])} == {None}
    assert list(backend.list()) == []
