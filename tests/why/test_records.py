"""What the kernel and the database have, brought together."""

from ipaddress import ip_network
from pathlib import Path

from tests.support.world import START, Faulty
from tests.why.world import ban

from ringfence.firewall.contract import Add
from ringfence.model import Scope
from ringfence.store import Store
from ringfence.why.records import look, running_of

HERE = ip_network("192.0.2.1")


def test_the_bans_that_cover_an_address(tmp_path: Path) -> None:
    """Of the kernel and of the record, and none that lies beside it or in it."""
    backend = Faulty(lambda: START)
    networks = [ip_network(text) for text in ("192.0.2.1", "192.0.2.0/24", "192.0.2.2", "2001:db8::/64")]
    backend.apply([Add(network, 60.0) for network in networks])
    with Store.open(tmp_path / "db", owner=True) as store:
        store.record([ban("192.0.2.1"), ban("192.0.2.2")])
        found = look(backend, store, HERE, START)
        wide = look(backend, store, ip_network("192.0.2.0/24"), START)

    assert {str(one.network) for one in found.elements} == {"192.0.2.1/32", "192.0.2.0/24"}
    assert [str(one.ban.network) for one in found.past] == ["192.0.2.1/32"]
    assert [str(one.network) for one in wide.elements] == ["192.0.2.0/24"]
    assert found.problems == ()


def test_without_a_database_the_kernel_is_asked(tmp_path: Path) -> None:
    """Whoever has no record has the kernel's word."""
    backend = Faulty(lambda: START)
    backend.apply([Add(HERE, 60.0)])
    found = look(backend, None, HERE, START)

    assert ([one.network for one in found.elements], found.past) == ([HERE], ())


def test_each_ban_is_told_once(tmp_path: Path) -> None:
    """By its network and its scope; what is on record goes before what is merely known, the widest first."""
    backend = Faulty(lambda: START)
    backend.apply([Add(HERE, 60.0), Add(HERE, 60.0, Scope.SIP_UDP)])
    recorded, wide = ban("192.0.2.1", reason="on record"), ban("192.0.2.0/24")
    known = {(HERE, Scope.FULL): ban("192.0.2.1", reason="known"), (wide.network, wide.scope): wide}
    with Store.open(tmp_path / "db", owner=True) as store:
        store.record([recorded])
        found = running_of(look(backend, store, HERE, START), known, START)

    assert [(str(one.network), str(one.scope)) for one in found] == [
        ("192.0.2.0/24", "full"),
        ("192.0.2.1/32", "full"),
        ("192.0.2.1/32", "sip-udp"),
    ]
    assert [one.element is not None for one in found] == [False, True, True]
    assert [one.ban.reason if one.ban else None for one in found] == ["somebody tries", "on record", None]
