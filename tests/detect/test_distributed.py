"""A distributed attack on one account: guesses that Asterisk checks in an hour, and spared addresses.

The bans are in force at once, so the figures are those of the detector alone.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.detect.events import attempt

from ringfence.detect.detector import Detector
from ringfence.detect.distributed import (
    LEAST_24S,
    LEAST_48S,
    MOST_KNOWN,
    MOST_PARTS,
    networks_to_ban,
    scope_of_ban,
)
from ringfence.detect.friends import Friends
from ringfence.detect.history import Subjects, pack_network
from ringfence.detect.judge import FIRST_FAILURE
from ringfence.detect.judgement import Decision, Judgement
from ringfence.detect.rules import RULES, Claimed
from ringfence.ledger import key_of
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Proof
from ringfence.values.ban import Scope
from ringfence.values.event import Transport
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import NetworkSet, contains, exempts_friends, sender_of

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
MOST = 60
"""The figure that must hold: so many guesses are checked at one account in an hour."""

Guess = tuple[float, str]
"""A time (seconds), and the address that guesses then."""


class Attacked:
    """A detector whose bans are in force at once; it records the guesses that Asterisk checks."""

    def __init__(self, *friends: str, exempt: Iterable[str] = (), per_minute: int = 600) -> None:
        known = Friends()
        for address in friends:
            tie = FriendReason.AUTHENTICATED
            known.add(Friend("pbx", ip_address(address), "alice", tie, 0.0, 0.0, 400 * DAY))
        exempted = NetworkSet(ip_network(one) for one in exempt)
        claimed = Claimed(per_minute=per_minute)
        self.detector = Detector(RULES, friends=known, exempt=exempted, claimed=claimed)
        self.checked: list[float] = []
        self.decisions: list[Decision] = []
        self.alarms: list[AlarmChange] = []

    def guess(
        self,
        time: float,
        address: str,
        account: str = "alice",
        *,
        transport: Transport = Transport.UDP,
        proof: Proof = Proof.NONCE,
    ) -> Decision | None:
        """Make a guess; return the ban that follows. A banned address makes none."""
        scopes = self.detector.bans.scopes(key_of(sender_of(ip_address(address))), time, friend=False)
        if {Scope.FULL, Scope.SIP, scope_of_ban(transport)} & {*scopes}:
            return None
        self.checked.append(time)
        one = evolve(attempt(address, time, proof=proof, account=account), transport=transport)
        first, *_ = effects = self.detector.judge(one, time)
        self.alarms += [effect for effect in effects if isinstance(effect, AlarmChange)]
        decisions = [effect.decision for effect in effects if isinstance(effect, Judgement)]
        for decision in filter(None, decisions):
            self.decisions.append(decision)
            seconds = decision.seconds or decision.rule.ban_for(0)
            self.detector.bans.assume(decision.subject, decision.scope, time + seconds)
        return first.decision

    def tick(self, time: float) -> None:
        """Advance the detector's clock, and collect its alarms."""
        self.alarms += [one for one in self.detector.tick(time) if isinstance(one, AlarmChange)]

    def play(self, guesses: Iterable[Guess]) -> int:
        """Make these guesses; return the greatest number that is checked within an hour."""
        tick = 0.0
        for time, address in sorted(guesses):
            while tick <= time:
                self.tick(tick)
                tick += MINUTE
            self.guess(time, address)
        return max(sum(first <= one < first + HOUR for one in self.checked) for first in self.checked)


def in_turn(addresses: list[str], each: int, every: float = 1.0) -> Iterator[Guess]:
    """Yield guesses that rotate over the addresses."""
    for number in range(each * len(addresses)):
        yield number * every, addresses[number % len(addresses)]


def one_by_one(addresses: list[str], each: int, every: float = 1.0) -> Iterator[Guess]:
    """Yield all guesses of each address before those of the next one."""
    for number in range(each * len(addresses)):
        yield number * every, addresses[number // each]


def over_an_hour(addresses: list[str], each: int) -> Iterator[Guess]:
    """Yield guesses that rotate over the addresses for an hour."""
    return in_turn(addresses, each, HOUR / (each * len(addresses)))


OF_A_24 = [f"203.0.113.{n}" for n in range(1, 61)]
OF_A_48 = [f"2001:db8:1:{n:x}::1" for n in range(40)]
SPREAD_OVER_A_48 = [f"2001:db8:1:{n * 0x647 & 0xFFFF:x}::1" for n in range(40)]
OF_NO_32 = [f"2a{n:02x}:db8:1:2::1" for n in range(40)]
OF_NAT64 = [f"64:ff9b::203.0.113.{n}" for n in range(1, 61)]
OF_A_32 = [f"2001:db8:{n >> 8:x}:{n & 0xFF:x}::1" for n in range(0, 60_000, 7)]
A_48_EACH = [f"2001:db8:{n * 0x9E37 & 0xFFFF:x}::1" for n in range(9_000)]
OF_65_24S = [f"198.{n}.{n}.{host}" for host in range(1, 21) for n in range(20, 85)]
OF_FIVE_16S = [f"198.{n}.{part}.7" for part in range(256) for n in range(20, 25)]
OF_256_24S = [f"198.18.{n}.{host}" for host in range(1, 20) for n in range(256)]

PATTERNS: dict[str, tuple[Iterable[Guess], int]] = {
    "a /24, in turn": (in_turn(OF_A_24, 4), 8),
    "a /24, one by one": (one_by_one(OF_A_24, 4), 20),
    "a /24, over an hour": (over_an_hour(OF_A_24, 4), 10),
    "a /24 by NAT64": (one_by_one(OF_NAT64, 4), 20),
    "forty /64s of a /48, in turn": (in_turn(OF_A_48, 4), 10),
    "forty /64s of a /48, one by one": (one_by_one(OF_A_48, 4), 24),
    "forty /64s far apart in a /48": (one_by_one(SPREAD_OVER_A_48, 4), 24),
    "forty /64s of no /32, in turn": (in_turn(OF_NO_32, 4), 48),
    "forty /64s of no /32, one by one": (one_by_one(OF_NO_32, 4), 55),
    "a /32, its /48s one by one": (in_turn(OF_A_32, 1, 0.2), 32),
    "a /32, over an hour": (over_an_hour(OF_A_32, 1), 32),
    "a /32, a /48 for each guess": (in_turn(A_48_EACH, 2, 0.2), 12),
    "256 /24s, in turn over a day": (in_turn(OF_256_24S, 1, DAY / len(OF_256_24S)), 20),
    "256 /24s, in turn, at once": (in_turn(OF_256_24S, 1, 0.1), 20),
    "256 /24s, one by one over a day": (
        one_by_one(sorted(OF_256_24S, key=lambda one: int(one.split(".")[2])), 1, DAY / len(OF_256_24S)),
        28,
    ),
}
"""The guesses of each attacker, and the greatest number of them that is checked in an hour."""


@pytest.mark.parametrize("pattern", PATTERNS)
def test_so_many_guesses_are_checked_in_an_hour(pattern: str) -> None:
    """At one account, whatever network the attacker has."""
    guesses, most = PATTERNS[pattern]
    assert Attacked().play(guesses) <= most <= MOST


@pytest.mark.parametrize(("addresses", "most"), [(OF_65_24S, 195), (OF_FIVE_16S, 85)])
def test_the_networks_of_an_attack_are_remembered(addresses: list[str], most: int) -> None:
    """Also of 65 networks in turn, each has three guesses an hour at most."""
    assert Attacked().play(in_turn(addresses, 1)) <= most


@pytest.mark.parametrize(
    ("friends", "exempt", "guesses"),
    [
        (["203.0.113.200"], [], in_turn([f"203.0.113.{n}" for n in range(200)], 4)),
        (["203.0.113.100"], [], one_by_one(OF_A_24, 4)),
        (["198.18.0.1"], [], in_turn(OF_256_24S, 1, DAY / len(OF_256_24S))),
        (["198.18.77.200"], ["198.18.0.0/30"], in_turn(OF_256_24S, 1, 0.1)),
        (["2001:db8:0:ffff::1", "2001:db8:77::1"], [], in_turn(OF_A_32, 1, 0.2)),
    ],
)
def test_a_known_address_in_the_network_costs_few_guesses(
    friends: list[str], exempt: list[str], guesses: Iterable[Guess]
) -> None:
    """The widest part without it is banned, and no packet of a known address is dropped."""
    attacked = Attacked(*friends, exempt=exempt)
    assert attacked.play(guesses) <= MOST
    known = [ip_network(one) for one in (*friends, *exempt)]
    banned = [one.subject for one in attacked.decisions]
    assert not [(one, of) for one in banned for of in known if contains(one, of)]


ATTACKERS = [f"192.{n}.2.1" for n in range(8)]


def under_attack(*friends: str, per_minute: int = 600) -> Attacked:
    """Return a detector whose account alice eight addresses without a common network have tried."""
    attacked = Attacked(*friends, per_minute=per_minute)
    for number, address in enumerate(ATTACKERS):
        attacked.guess(float(number), address)
    return attacked


@pytest.mark.parametrize(
    ("transport", "scope"),
    [
        (Transport.UDP, Scope.SIP_UDP),
        (Transport.UNKNOWN, Scope.SIP_UDP),
        (Transport.TCP, Scope.SIP_TCP),
        (Transport.TLS, Scope.SIP_TCP),
    ],
)
def test_a_strangers_first_failure_closes_one_transport_for_minutes(
    transport: Transport, scope: Scope
) -> None:
    """The reason explains why so little is enough, and a second failure closes all."""
    attacked = under_attack()
    first = attacked.guess(10.0, "203.0.113.7", transport=transport)
    assert first is not None
    assert (str(first.subject), first.scope, first.seconds) == ("203.0.113.7/32", scope, 600.0)
    assert (first.rule.name, first.rule.meaning) == ("distributed", FIRST_FAILURE)
    assert [str(one.address) for one in first.attempts] == ["203.0.113.7"]
    assert attacked.guess(609.0, "203.0.113.7", transport=transport) is None
    second = attacked.guess(610.0, "203.0.113.7", transport=transport)
    assert second is not None
    assert (second.seconds, len(second.attempts)) == (None, 2)


def test_a_failure_on_another_account_is_none_of_the_attack() -> None:
    """Neither is a failure on this account whose address nothing proves, or a request without credentials."""
    attacked = under_attack()
    bare = evolve(attempt("203.0.113.9", 9.0, proof=Proof.NONCE), credentials=False)
    assert attacked.detector.judge(bare, 9.0)[0].decision is None
    assert attacked.guess(10.0, "203.0.113.7", "bob") is None
    assert attacked.guess(11.0, "203.0.113.8", proof=Proof.CLAIMED) is None


def test_a_failure_before_the_ban_took_effect_leads_to_no_second_narrow_one() -> None:
    """Asterisk had it in its queue; being the second of the address, it closes all."""
    attacked = under_attack()
    attacked.guess(10.0, "203.0.113.7")
    late = attempt("203.0.113.7", 10.1, proof=Proof.NONCE)
    decision = attacked.detector.judge(late, 10.1)[0].decision
    assert decision is not None
    assert decision.seconds is None
    neighbour = attempt("203.0.113.7", 10.2, proof=Proof.NONCE)
    assert attacked.detector.judge(neighbour, 10.2)[0].decision is None


@pytest.mark.parametrize("place", ["203.0.113.7", "2001:db8::7"])
def test_the_known_places_of_the_account_stay(place: str) -> None:
    """Where it works or worked, a wrong password is a broken phone, also at a neighbour of an attacker."""
    attacked = under_attack(place)
    neighbour = str(ip_address(place) + 1) if "." in place else "2001:db8:0:1::1"
    for number in range(2):
        attacked.guess(10.0 + number, str(ip_address(neighbour) + 2 * number))
    assert attacked.guess(20.0, place) is None
    [friend] = attacked.detector.friends.all()
    attacked.detector.friends.remove(("pbx", friend.address, "alice", FriendReason.AUTHENTICATED), 30.0)
    for number in range(40):
        attacked.guess(40.0 + number, f"203.0.113.{100 + number}")
        attacked.guess(40.0 + number, f"2001:db8:0:{100 + number}::1")
    assert not any(contains(one.subject, ip_network(place)) for one in attacked.decisions)
    assert attacked.guess(100.0, place) is None


def test_twenty_failures_of_a_few_are_an_attack() -> None:
    """Four each of five addresses, below the rule ``guess``; the sixth address is banned at its first."""
    attacked = Attacked()
    for number in range(20):
        assert attacked.guess(float(number), ATTACKERS[number % 5]) is None or number == 19
    assert [one.code for one in attacked.alarms] == ["attack.distributed"]
    assert attacked.guess(20.0, "203.0.113.7") is not None


def test_failures_that_led_to_a_full_ban_begin_no_attack() -> None:
    """Four addresses with five guesses each are banned by the rule ``guess`` alone."""
    attacked = Attacked()
    for number in range(20):
        attacked.guess(float(number), ATTACKERS[number // 5])
    assert {one.rule.name for one in attacked.decisions} == {"guess"}
    assert attacked.alarms == []


def test_two_addresses_are_no_attack() -> None:
    """However often they fail: at least three must take part."""
    attacked = Attacked()
    for number in range(60):
        attacked.detector.judge(attempt(ATTACKERS[number % 2], 0.0, proof=Proof.NONCE), 0.0)
    assert attacked.alarms == []


def test_a_wider_network_takes_precedence_over_the_ban_of_its_member() -> None:
    """The fifth guess of an address would ban it alone, but it is the second address of its /24 here."""
    attacked = under_attack()
    attacked.guess(9.0, "203.0.113.7")
    for number in range(4):
        attacked.guess(10.0 + number, "203.0.113.8", f"other-{number}")
    decision = attacked.guess(20.0, "203.0.113.8")
    assert decision is not None
    assert str(decision.subject) == "203.0.113.0/24"
    assert {str(one.address) for one in decision.attempts} == {"203.0.113.7", "203.0.113.8"}


def test_the_ban_of_an_address_follows_beside_that_of_its_network() -> None:
    """With its fifth guess an address loses TCP too: the ban of its /24 closes only SIP by UDP."""
    attacked = under_attack()
    attacked.guess(9.0, "203.0.113.7")
    for number in range(4):
        attacked.guess(10.0 + number, "203.0.113.8", f"other-{number}")
    attacked.guess(20.0, "203.0.113.8")
    bans = {str(one.subject): one.scope for one in attacked.decisions}
    assert (bans["203.0.113.0/24"], bans["203.0.113.8/32"]) == (Scope.SIP_UDP, Scope.SIP)
    assert attacked.decisions[-1].rule.name == "guess"
    assert attacked.guess(21.0, "203.0.113.8", "other-5", transport=Transport.TCP) is None


def test_a_claimed_ban_beside_that_of_the_network_adds_nothing() -> None:
    """Of an address with too few proven guesses, the narrow ban of its /24 is enough."""
    attacked = under_attack()
    attacked.guess(9.0, "203.0.113.7")
    for number in range(4):
        attacked.guess(10.0 + number, "203.0.113.8", f"other-{number}", proof=Proof.CLAIMED)
    attacked.guess(20.0, "203.0.113.8")
    assert [str(one.subject) for one in attacked.decisions[-1:]] == ["203.0.113.0/24"]


def test_so_many_first_failures_a_minute_are_bans() -> None:
    """They count like claimed bans of proven senders."""
    attacked = under_attack(per_minute=3)
    bans = [attacked.guess(10.0 + number, f"203.{number}.113.7") for number in range(4)]
    assert [one is not None for one in bans] == [True, True, False, False]  # the first one is the eighth's
    assert "attack.spoofing" in {one.code for one in attacked.alarms}


def test_the_attack_lasts_as_long_as_its_bans() -> None:
    """An address that returns after a ban of two hours finds the account attacked, and the alarm stays."""
    attacked = under_attack()
    for time in (10.0, 611.0, 2_412.0):
        attacked.guess(time, f"203.0.113.{time % 200:.0f}")
        attacked.guess(time + 0.1, f"203.0.113.{time % 200 + 1:.0f}")
    attacked.tick(9_600.0)
    assert attacked.guess(9_612.2, "203.0.113.250") is not None
    attacked.tick(40_000.0)
    assert [one.cleared for one in attacked.alarms] == [False, True]


@pytest.mark.parametrize(
    ("address", "members", "network"),
    [
        ("192.0.2.1", ["192.0.2.1"], "192.0.2.1/32"),
        ("192.0.2.1", ["192.0.2.1", "192.0.2.2"], "192.0.2.0/24"),
        ("192.0.2.1", [f"192.0.{n}.1" for n in range(1, LEAST_24S)], "192.0.2.1/32"),
        ("192.0.2.1", [f"192.0.{n}.1" for n in range(LEAST_24S)], "192.0.0.0/16"),
        ("192.0.2.1", ["192.0.2.1", "2001:db8::1", *(f"192.{n}.2.1" for n in range(1, 40))], "192.0.2.1/32"),
        ("2001:db8::1", ["2001:db8::1", "2001:db8:0:f::1"], "2001:db8::/60"),
        ("2001:db8::1", ["2001:db8::1", "2001:db8:0:8000::1"], "2001:db8::/48"),
        ("2001:db8::1", [f"2001:db8:0:{n}::1" for n in range(4)], "2001:db8::/60"),
        ("2001:db8::1", [f"2001:db8:0:{n}::1" for n in range(5)], "2001:db8::/48"),
        ("2001:db8::1", [f"2001:db8:{n}::1" for n in range(LEAST_48S - 1)], "2001:db8::/64"),
        ("2001:db8::1", [f"2001:db8:{n}::1" for n in range(LEAST_48S)], "2001:db8::/32"),
        ("64:ff9b::c000:201", ["64:ff9b::c000:201", "64:ff9b::c000:202"], "64:ff9b::c000:200/120"),
        ("64:ff9b::c000:201", [f"64:ff9b::c000:{n:x}01" for n in range(LEAST_24S)], "64:ff9b::c000:0/112"),
    ],
)
def test_the_network_around_a_stranger(address: str, members: list[str], network: str) -> None:
    """It has all members that share a /24, /48 or /120, or enough of these."""
    assert banned_around(address, members, Friends()) == [network]


WIDE = [f"192.0.{n}.1" for n in range(2, 250, 3)]


def banned_around(
    address: str, members: list[str], friends: Friends, exempt: Iterable[str] = ()
) -> list[str]:
    """Return the networks to ban around an address."""
    subjects = Subjects(friends, NetworkSet(ip_network(one) for one in exempt))
    keys = [pack_network(sender_of(ip_address(one))) for one in members]
    return [str(one) for one in networks_to_ban(subjects.find(ip_address(address)), keys, subjects)]


@pytest.mark.parametrize("others", [0, 1, 5])
def test_no_ban_of_a_64_closes_it_to_the_friend_in_it(others: int) -> None:
    """The kernel exempts friends from the bans of a /64. A wider one leaves the /64 out."""
    friends, friend = Friends(), ip_address("2001:db8::1")
    friends.add(Friend("pbx", friend, "alice", FriendReason.AUTHENTICATED, 0.0, 0.0, 9.0))
    members = ["2001:db8::5", *(f"2001:db8:0:{number:x}::5" for number in range(1, others + 1))]
    first, *more = map(ip_network, banned_around("2001:db8::5", members, friends))
    assert str(first) == "2001:db8::/64"
    assert exempts_friends(first)
    assert bool(more) == bool(others)
    assert not any(friend in network for network in more)


def former(*addresses: str) -> Friends:
    """Return former friends."""
    friends = Friends()
    for number, address in enumerate(addresses):
        tie = FriendReason.AUTHENTICATED
        friends.add(Friend("pbx", ip_address(address), str(number), tie, 0.0, 0.0, 1.0))
    friends.expire(2.0)
    return friends


@pytest.mark.parametrize(
    ("known", "networks"),
    [
        ("198.51.100.1", ["192.0.0.0/16"]),
        ("2001:db8::1", ["192.0.0.0/16"]),
        (
            "192.0.200.1",
            [
                *("192.0.0.0/17", "192.0.128.0/18", "192.0.224.0/19", "192.0.208.0/20"),
                *("192.0.192.0/21", "192.0.204.0/22", "192.0.202.0/23", "192.0.201.0/24"),
            ],
        ),
        (
            "192.0.2.200",
            [
                *("192.0.2.0/25", "192.0.128.0/17", "192.0.64.0/18", "192.0.32.0/19", "192.0.16.0/20"),
                *("192.0.8.0/21", "192.0.4.0/22", "192.0.0.0/23", "192.0.3.0/24"),
            ],
        ),
    ],
)
def test_the_parts_without_anybody_known_are_banned(known: str, networks: list[str]) -> None:
    """A former friend and an exempt address are known alike; the stranger's part comes first."""
    assert banned_around("192.0.2.1", WIDE, former(known)) == networks
    assert banned_around("192.0.2.1", WIDE, Friends(), [known]) == networks


@pytest.mark.parametrize(
    ("address", "members", "network"),
    [
        ("192.0.2.1", ["192.0.2.9", "192.0.2.10"], "192.0.2.1/32"),
        ("192.0.2.1", [f"192.0.{number}.1" for number in range(3, 200)], "192.0.2.1/32"),
        ("2001:db8::1", [f"2001:db8:0:{number}::1" for number in range(1, 9)], "2001:db8::/64"),
        ("2001:db8::1", [f"2001:db8:{number}::1" for number in range(1, 20)], "2001:db8::/64"),
    ],
)
def test_known_addresses_that_fail_too_widen_no_ban(address: str, members: list[str], network: str) -> None:
    """They failed as strangers, and are phones: their settings have the same wrong account."""
    assert banned_around(address, [address, *members], former(*members)) == [network]


def test_a_stranger_beside_a_known_address_is_banned_alone() -> None:
    """The next address of a friend, and one within an exempt network."""
    assert banned_around("192.0.2.1", WIDE, former("192.0.2.0"))[0] == "192.0.2.1/32"
    assert banned_around("192.0.2.1", WIDE, Friends(), ["192.0.2.0/24"])[0] == "192.0.2.1/32"


def test_the_parts_of_a_network_are_bounded() -> None:
    """The widest come first; with too many known addresses, only the /24 around the stranger is banned."""
    addresses = [f"192.0.{n}.{m}" for m in range(10) for n in range(10, 250, 2)]
    found = banned_around("192.0.2.1", WIDE, former(*addresses[:120]))
    assert len(found) == MOST_PARTS
    lengths = [int(one.split("/")[1]) for one in found[1:]]
    assert lengths == sorted(lengths)
    assert banned_around("192.0.2.1", WIDE, former(*addresses[: MOST_KNOWN + 1])) == ["192.0.2.0/24"]
