"""Bans that give way to a new ban: the shortest first, like for like."""

from ipaddress import ip_network

from attrs import evolve

from ringfence.bans.book import GivingWay
from ringfence.ledger import Ledger, Record, key_of
from ringfence.values.ban import Ban, Scope
from ringfence.values.network import Network


def ban(address: str, expires: float, scope: Scope = Scope.FULL) -> Ban:
    """Return a ban that ends at ``expires``."""
    return Ban(ip_network(address), since=0.0, expires=expires, rule="guess", scope=scope)


def ledger(*bans: Ban) -> Ledger:
    """Return a ledger of these bans."""
    made = Ledger()
    for one in bans:
        made.put(key_of(one.network, one.scope), Record.of(one))
    return made


def test_the_shortest_gives_way_first() -> None:
    """Each ban is returned once, the shortest first, and no ban that lasts longer than the new one."""
    kept = ledger(ban("192.0.2.1", 30.0), ban("192.0.2.2", 10.0), ban("192.0.2.3", 90.0))
    giving_way, new = GivingWay(), ban("192.0.2.9", 60.0)

    found = [giving_way.next(kept, new, 0.0) for _ in range(2)]
    assert found == [key_of(ip_network(address), Scope.FULL) for address in ("192.0.2.2", "192.0.2.1")]
    assert giving_way.next(kept, new, 0.0) is None


def test_a_ban_that_ended_after_the_search_is_skipped() -> None:
    """A ban that ended after the search is skipped."""
    kept = ledger(ban("192.0.2.1", 30.0), ban("192.0.2.2", 10.0), ban("192.0.2.3", 20.0))
    giving_way, new = GivingWay(), ban("192.0.2.9", 60.0)
    giving_way.next(kept, new, 0.0)
    kept.pop(key_of(ip_network("192.0.2.3"), Scope.FULL))

    assert giving_way.next(kept, new, 0.0) == key_of(ip_network("192.0.2.1"), Scope.FULL)


def test_bans_that_are_over_do_not_give_way() -> None:
    """A ban that the ledger still has after its end makes no room, whether a search has found it or not."""
    kept = ledger(*(ban(f"192.0.2.{number}", 10.0 * number) for number in range(1, 6)))
    giving_way, new = GivingWay(), ban("192.0.2.9", 60.0)

    assert giving_way.next(kept, new, 10.0) == key_of(ip_network("192.0.2.2"))
    assert giving_way.next(kept, new, 45.0) == key_of(ip_network("192.0.2.5"))
    assert giving_way.next(kept, new, 55.0) is None


def test_a_ban_that_was_replaced_after_the_search_keeps_no_other() -> None:
    """A ban that now lasts longer than the new one is skipped; those that end sooner still give way."""
    kept = ledger(ban("192.0.2.1", 30.0), ban("192.0.2.2", 10.0), ban("192.0.2.3", 20.0))
    giving_way, new = GivingWay(), ban("192.0.2.9", 60.0)
    giving_way.next(kept, new, 0.0)
    kept.put(
        key_of(ip_network("192.0.2.3"), Scope.FULL),
        Record.of(ban("192.0.2.3", 90.0)),
    )

    assert giving_way.next(kept, new, 0.0) == key_of(ip_network("192.0.2.1"), Scope.FULL)


def test_the_bans_of_each_set_are_searched_apart() -> None:
    """A search for the bans of one set finds none for another: an IP version, a length or a scope."""
    short = [
        ban("192.0.2.1", 10.0),
        ban("192.0.2.0/25", 11.0),
        ban("2001:db8::1", 12.0),
        ban("192.0.2.1", 13.0, Scope.SIP),
    ]
    kept = ledger(*short, *(evolve(one, network=_next(one.network), expires=20.0) for one in short))
    giving_way = GivingWay()

    for one in short:
        assert giving_way.next(kept, evolve(one, expires=60.0), 0.0) == key_of(one.network, one.scope)


def _next(network: Network) -> Network:
    """Return the network of the same size behind ``network``."""
    return ip_network((int(network.broadcast_address) + 1, network.prefixlen))
