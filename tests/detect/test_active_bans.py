"""ActiveBans: which subjects are banned or about to be, until when, and in which scope."""

from ipaddress import ip_address, ip_network

from ringfence.detect.friends import Friends
from ringfence.detect.subjects import ActiveBans, Subject, Subjects
from ringfence.model import Scope
from ringfence.networks import NetworkSet

ONE, TWO, THREE = (ip_network(f"192.0.2.{n}/32") for n in (1, 2, 3))


def subject(address: str) -> Subject:
    """Return the subject of an address."""
    return Subjects(Friends(), NetworkSet()).of(ip_address(address))


def held(kept: ActiveBans, now: float, scope: Scope = Scope.FULL) -> list[str]:
    """Return which of the three addresses are banned at ``now``."""
    addresses = [f"192.0.2.{n}" for n in (1, 2, 3)]
    return [address for address in addresses if kept.has(subject(address), scope, now)]


def test_a_ban_lasts_until_its_end() -> None:
    """A ban ends when its time is over, and then ``expire`` drops it."""
    kept = ActiveBans()
    kept.add(ONE, 10.0, Scope.FULL)
    kept.add(TWO, 20.0, Scope.FULL)
    assert (held(kept, 9.9), held(kept, 10.0)) == (["192.0.2.1", "192.0.2.2"], ["192.0.2.2"])
    kept.expire(10.0)
    assert len(kept) == 1


def test_the_last_word_counts() -> None:
    """The last ``add`` decides, whether its time is longer or shorter, and ``remove`` ends a ban early."""
    kept = ActiveBans()
    for subject, untils in ((ONE, (10.0, 100.0)), (TWO, (100.0, 10.0)), (THREE, (10.0, 20.0))):
        for until in untils:
            kept.add(subject, until, Scope.FULL)
    kept.remove(THREE)
    kept.expire(10.0)
    assert (held(kept, 10.0), len(kept)) == (["192.0.2.1"], 1)
    kept.add(THREE, 50.0, Scope.FULL)
    kept.expire(20.0)
    assert held(kept, 20.0) == ["192.0.2.1", "192.0.2.3"]
    kept.expire(100.0)
    assert len(kept) == 0


def test_scopes_are_held_apart() -> None:
    """Each scope is kept separately, and one ``remove`` ends both."""
    kept = ActiveBans()
    kept.add(ONE, 10.0, Scope.SIP_UDP)
    assert (held(kept, 0.0), held(kept, 0.0, Scope.SIP_UDP)) == ([], ["192.0.2.1"])
    kept.add(ONE, 10.0, Scope.FULL)
    kept.remove(ONE)
    assert (held(kept, 0.0), held(kept, 0.0, Scope.SIP_UDP)) == ([], [])


def test_a_prefix_holds_all_in_it() -> None:
    """The ban of a prefix covers every address in it until it is removed; in IPv6 a prefix is a /48."""
    kept = ActiveBans()
    for prefix in ("192.0.2.0/24", "2001:db8::/48"):
        kept.add(ip_network(prefix), 10.0, Scope.FULL)
    assert held(kept, 0.0) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert kept.has(subject("2001:db8:0:7::1"), Scope.FULL, 0.0)
    kept.remove(ip_network("192.0.2.0/24"))
    kept.remove(ip_network("2001:db8::/48"))
    assert held(kept, 0.0) == []


def test_repeated_bans_and_unbans_take_no_room() -> None:
    """A subject that is banned and unbanned thousands of times takes no more room than one ban."""
    kept = ActiveBans()
    for number in range(5_000):
        kept.add(ONE, 1e9 + number, Scope.FULL)
        kept.remove(ONE)
    assert len(kept._ends) < 2_000


def test_so_many_are_held() -> None:
    """Beyond the bound the bans that end first are dropped, in whatever order they were added."""
    kept = ActiveBans(most=3)
    for last, until in ((1, 40.0), (2, 10.0), (3, 30.0), (4, 20.0), (5, 50.0)):
        kept.add(ip_network(f"192.0.2.{last}"), until, Scope.FULL)

    assert kept.subjects == {ip_network(f"192.0.2.{last}") for last in (1, 3, 5)}
    assert len(kept) == 3


def test_beyond_the_bound_a_renewed_ban_has_its_new_end() -> None:
    """The old end of a renewed ban, and the end of a removed one, drop nothing."""
    kept = ActiveBans(most=2)
    kept.add(ONE, 10.0, Scope.FULL)
    kept.add(ONE, 100.0, Scope.FULL)
    kept.add(TWO, 20.0, Scope.FULL)
    kept.remove(TWO)
    for network, until in ((TWO, 50.0), (THREE, 60.0)):
        kept.add(network, until, Scope.FULL)

    assert kept.subjects == {ONE, THREE}
