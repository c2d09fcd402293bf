"""Held: who is banned or about to be, until when, and by what scope."""

from ipaddress import ip_address, ip_network

from ringfence.detect.friends import Friends
from ringfence.detect.held import Held
from ringfence.detect.networks import NetworkSet
from ringfence.detect.places import Place, Places
from ringfence.model import Scope

ONE, TWO, THREE = (ip_network(f"192.0.2.{n}/32") for n in (1, 2, 3))


def place(address: str) -> Place:
    """Give where an address belongs."""
    return Places(Friends(), NetworkSet()).of(ip_address(address))


def held(kept: Held, now: float, scope: Scope = Scope.FULL) -> list[str]:
    """Give those of three that are held."""
    addresses = [f"192.0.2.{n}" for n in (1, 2, 3)]
    return [address for address in addresses if kept.has(place(address), scope, now)]


def test_who_is_held_is_so_until_his_time_is_over() -> None:
    """And then he is dropped, by whoever tends."""
    kept = Held()
    kept.hold(ONE, 10.0, Scope.FULL)
    kept.hold(TWO, 20.0, Scope.FULL)
    assert (held(kept, 9.9), held(kept, 10.0)) == (["192.0.2.1", "192.0.2.2"], ["192.0.2.2"])
    kept.expire(10.0)
    assert len(kept) == 1


def test_the_last_word_counts() -> None:
    """A longer time, a shorter one, and a release before either is over."""
    kept = Held()
    for subject, untils in ((ONE, (10.0, 100.0)), (TWO, (100.0, 10.0)), (THREE, (10.0, 20.0))):
        for until in untils:
            kept.hold(subject, until, Scope.FULL)
    kept.release(THREE)
    kept.expire(10.0)
    assert (held(kept, 10.0), len(kept)) == (["192.0.2.1"], 1)
    kept.hold(THREE, 50.0, Scope.FULL)
    kept.expire(20.0)
    assert held(kept, 20.0) == ["192.0.2.1", "192.0.2.3"]
    kept.expire(100.0)
    assert len(kept) == 0


def test_scopes_are_held_apart() -> None:
    """A release lets both go."""
    kept = Held()
    kept.hold(ONE, 10.0, Scope.SIP_UDP)
    assert (held(kept, 0.0), held(kept, 0.0, Scope.SIP_UDP)) == ([], ["192.0.2.1"])
    kept.hold(ONE, 10.0, Scope.FULL)
    kept.release(ONE)
    assert (held(kept, 0.0), held(kept, 0.0, Scope.SIP_UDP)) == ([], [])


def test_a_prefix_holds_all_in_it() -> None:
    """Until it is let go; of IPv6 a /48."""
    kept = Held()
    for prefix in ("192.0.2.0/24", "2001:db8::/48"):
        kept.hold(ip_network(prefix), 10.0, Scope.FULL)
    assert held(kept, 0.0) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert kept.has(place("2001:db8:0:7::1"), Scope.FULL, 0.0)
    kept.release(ip_network("192.0.2.0/24"))
    kept.release(ip_network("2001:db8::/48"))
    assert held(kept, 0.0) == []


def test_who_comes_and_goes_leaves_nothing_behind() -> None:
    """To be held and released a thousand times takes no more room than once."""
    kept = Held()
    for number in range(5_000):
        kept.hold(ONE, 1e9 + number, Scope.FULL)
        kept.release(ONE)
    assert len(kept._releases) < 2_000
