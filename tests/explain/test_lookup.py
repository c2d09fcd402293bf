"""Bans in the kernel and in the database."""

from ipaddress import ip_network
from pathlib import Path
from typing import NoReturn

import pytest
from tests.explain.world import ban
from tests.support.clock import SetClock
from tests.support.netns import netns
from tests.support.world import START, Faulty

from ringfence.explain.facts import read_bans, running_of
from ringfence.firewall import KERNEL_BACKENDS, make_backend
from ringfence.firewall.contract import Add
from ringfence.netlink.connection import NetlinkConnection, NetlinkLostError
from ringfence.store.database import Store
from ringfence.values.ban import Scope

HERE = ip_network("192.0.2.1")


def test_the_bans_that_cover_an_address(tmp_path: Path) -> None:
    """Kernel bans and recorded bans that cover the address are returned; others are not."""
    backend = Faulty(SetClock(mono=lambda: START))
    networks = [ip_network(text) for text in ("192.0.2.1", "192.0.2.0/24", "192.0.2.2", "2001:db8::/64")]
    backend.apply([Add(network, 60) for network in networks])
    with Store.open(tmp_path / "db", owner=True) as store:
        store.bans.record([ban("192.0.2.1"), ban("192.0.2.2")])
        found = read_bans(backend, store.bans, HERE, START)
        wide = read_bans(backend, store.bans, ip_network("192.0.2.0/24"), START)

    assert {str(one.network) for one in found.elements} == {"192.0.2.1/32", "192.0.2.0/24"}
    assert [str(one.ban.network) for one in found.past] == ["192.0.2.1/32"]
    assert [str(one.network) for one in wide.elements] == ["192.0.2.0/24"]
    assert found.problems == ()


def test_without_a_database(tmp_path: Path) -> None:
    """Without a database the kernel's bans are returned."""
    backend = Faulty(SetClock(mono=lambda: START))
    backend.apply([Add(HERE, 60)])
    found = read_bans(backend, None, HERE, START)

    assert ([one.network for one in found.elements], found.past) == ([HERE], ())


@pytest.mark.kernel
@pytest.mark.parametrize("name", KERNEL_BACKENDS)
def test_the_bans_of_a_silent_kernel_are_unknown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel does not answer, its bans are named as unknown."""

    def silent(*_: object) -> NoReturn:
        raise NetlinkLostError("the kernel did not answer")

    backend = make_backend(name)
    with netns():
        backend.open()
        backend.apply([Add(HERE, 60)])
        answered = read_bans(backend, None, HERE, START)
        with monkeypatch.context() as patch:
            patch.setattr(NetlinkConnection, "request", silent)
            unknown = read_bans(backend, None, HERE, START)
        backend.close()

    assert ([one.network for one in answered.elements], answered.problems) == ([HERE], ())
    assert unknown.elements == ()
    assert unknown.problems == ("the kernel's bans are unknown: the kernel did not answer",)


def test_each_ban_is_returned_once(tmp_path: Path) -> None:
    """Bans are merged by network and scope, widest first; a recorded one precedes a merely known one."""
    backend = Faulty(SetClock(mono=lambda: START))
    backend.apply([Add(HERE, 60), Add(HERE, 60, Scope.SIP_UDP)])
    recorded, wide = ban("192.0.2.1", reason="on record"), ban("192.0.2.0/24")
    known = {(HERE, Scope.FULL): ban("192.0.2.1", reason="known"), (wide.network, wide.scope): wide}
    with Store.open(tmp_path / "db", owner=True) as store:
        store.bans.record([recorded])
        found = running_of(read_bans(backend, store.bans, HERE, START), known, START, friend=False)

    assert [(str(one.network), str(one.scope)) for one in found] == [
        ("192.0.2.0/24", "full"),
        ("192.0.2.1/32", "full"),
        ("192.0.2.1/32", "sip-udp"),
    ]
    assert [one.element is not None for one in found] == [False, True, True]
    assert [one.ban.reason if one.ban else None for one in found] == ["somebody tries", "on record", None]
