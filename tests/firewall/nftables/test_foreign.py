"""Changes by other programs: of our table and of others, with and without a listener."""

import errno
import re
import socket
from ipaddress import ip_network

import pytest
from tests.firewall.nftables.test_backend import BANS, FOREIGN
from tests.support.lists import write_list
from tests.support.netns import run

from ringfence.firewall import network_lists
from ringfence.firewall.contract import Health
from ringfence.firewall.nftables import watch as nft_foreign
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.nftables.watch import ForeignChanges
from ringfence.netlink.connection import NetlinkConnection

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def test_changes_of_foreign_tables_are_ignored(backend: NftablesBackend) -> None:
    """Neither foreign tables nor our own changes are reported as damage or change."""
    backend.apply(BANS)
    write_list(backend, network_lists.ALLOW, [ip_network("10.0.0.0/8")])
    write_list(backend, network_lists.DENY, [ip_network((0x0A000000 + n * 2, 32)) for n in range(5000)])
    assert backend.health() == Health(elements=4)
    run("nft", "-f", "-", text=FOREIGN)
    assert backend.health() == Health(elements=4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("delete table inet ringfence", "table inet ringfence is gone"),
        ("flush table inet ringfence; delete set inet ringfence sip6_64", "set sip6_64 .* is gone"),
    ],
)
def test_a_missing_set_is_damage_without_a_notification(
    backend: NftablesBackend, damage: str, message: str
) -> None:
    """If the notification of a removal is missed, each health check finds that sets are gone."""
    run("nft", damage)
    backend._foreign.read()
    backend._foreign.confirm_rules()
    assert re.search(message, backend.health().damage or "")


def test_a_ban_that_finds_no_set_causes_a_comparison(backend: NftablesBackend) -> None:
    """If a ban is refused because its set is gone, the next health check compares the rules."""
    run("nft", "flush table inet ringfence; delete set inet ringfence ban4_32")
    backend._foreign.read()
    backend._foreign.confirm_rules()
    assert "is gone" in str(backend.apply(BANS[:1])[0].error)
    assert backend._foreign.suspect


def test_changed_elements_are_reported(backend: NftablesBackend) -> None:
    """Elements that another program adds or exchanges are a change of our table, not damage of the rules."""
    backend.apply(BANS)
    backend.health()
    run("nft", "add element inet ringfence ban4_32 { 203.0.113.77 timeout 1h }")
    assert backend.health() == Health(elements=5, changed=True)
    run(
        "nft",
        "delete element inet ringfence ban4_32 { 203.0.113.77 }; "
        "add element inet ringfence ban4_32 { 203.0.113.78 timeout 1h }",
    )
    assert backend.health() == Health(elements=5, changed=True)
    assert backend.health() == Health(elements=5)


def test_a_change_makes_the_descriptor_readable(backend: NftablesBackend) -> None:
    """A foreign change makes the descriptor readable at once."""
    backend.health()
    run("nft", "add", "table", "inet", "theirs")
    descriptor = backend.watch_fd()
    assert descriptor is not None
    with socket.fromfd(descriptor, socket.AF_NETLINK, socket.SOCK_RAW) as monitor:
        assert monitor.recv(1 << 14, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def test_an_emptied_set_is_a_change_with_fewer_elements(backend: NftablesBackend) -> None:
    """A set that another program empties is reported as a change, with the new number of bans."""
    backend.apply(BANS)
    run("nft", "flush", "set", "inet", "ringfence", "ban4_32")
    assert backend.health() in (Health(elements=3, changed=True), Health(elements=None, changed=True))


def test_a_change_while_a_long_list_is_filled_is_noticed(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the monitor is paused for a long list, the generation's number reveals a foreign change."""
    real = NetlinkConnection.transact

    def transact(self: NetlinkConnection, *messages: bytes) -> object:
        run("nft", "flush", "chain", "inet", "ringfence", "output")
        return real(self, *messages)

    backend.health()
    monkeypatch.setattr(NetlinkConnection, "transact", transact)
    write_list(backend, network_lists.DENY, [ip_network((0x0A000000 + n * 2, 32)) for n in range(5000)])
    monkeypatch.undo()
    health = backend.health()
    assert "chain output" in (health.damage or "")


def test_own_changes_of_two_overlapping_uses_are_not_foreign() -> None:
    """Two long changes may overlap, in any order; only a transaction that was not counted is foreign."""
    with NetlinkConnection(extended=True) as kernel:
        foreign = ForeignChanges([kernel])
        foreign.listen()
        for counted in (True, False):
            before, one, other = foreign.epoch, foreign.unmonitored(), foreign.unmonitored()
            one.__enter__()
            other.__enter__()
            for _ in range(2):
                run("nft", "add table inet other; delete table inet other; add table inet other")
            foreign.commits += 1
            one.__exit__(None, None, None)
            assert foreign.epoch == before
            foreign.commits += counted
            other.__exit__(None, None, None)
            assert foreign.epoch == before + (not counted)
        foreign.close()


def test_without_notifications_every_health_check_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the notification group cannot be joined, health checks find damage too."""

    class Unavailable:
        def __init__(self) -> None:
            raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(nft_foreign, "ChangeMonitor", Unavailable)
    backend = NftablesBackend()
    backend.open()
    assert backend.watch_fd() is None
    assert backend.health() == Health(elements=0)
    run("nft", "flush", "chain", "inet", "ringfence", "output")
    assert "chain output" in (backend.health().damage or "")
    backend.close()
