"""New friends of each account: how many an account makes in an hour and in a day."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.events import PBX

from ringfence.detect import new_friends
from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import guessing
from ringfence.detect.new_friends import (
    GUILTY_FOR,
    MOST_A_DAY,
    MOST_AN_HOUR,
    MOST_GUESSES,
    YOUNG_FOR,
    NewFriends,
)
from ringfence.detect.rules import DAY, HOUR, RULES
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Network, sender_of

ALICE, BOB = (PBX.asterisk, "alice"), (PBX.asterisk, "bob")


def sender(number: int) -> str:
    """Return one of many IPv4 addresses."""
    return f"203.0.113.{number}"


def admitted(new: NewFriends, numbers: range, now: float, account: tuple[str, str] = ALICE) -> list[int]:
    """Return which of these senders an account may make friends."""
    return [one for one in numbers if new.admit(account, sender_of(ip_address(sender(one))), now)]


def reason(
    address: str,
    account: str = "alice",
    why: FriendReason = FriendReason.AUTHENTICATED,
    *,
    since: float = 0.0,
    until: float = 1e9,
) -> Friend:
    """Return a reason why an address is a friend."""
    return Friend(PBX.asterisk, ip_address(address), account, why, since, since, until)


def test_an_account_makes_some_new_friends_an_hour_and_a_day() -> None:
    """Eight senders an hour and twenty a day are new friends; an admitted one stays so for a day."""
    new = NewFriends()
    assert admitted(new, range(30), 0.0) == [*range(MOST_AN_HOUR)]
    assert admitted(new, range(30), HOUR - 1) == [*range(MOST_AN_HOUR)]
    assert admitted(new, range(8, 30), HOUR) == [*range(8, 16)]
    assert admitted(new, range(16, 30), 2 * HOUR) == [*range(16, MOST_A_DAY)]
    assert admitted(new, range(20, 30), 3 * HOUR) == []
    assert admitted(new, range(20, 30), DAY) == [*range(20, 28)]


@pytest.mark.parametrize("step", [-40 * DAY, -HOUR, HOUR, 40 * DAY])
def test_a_clock_that_is_set_changes_no_limit(step: float) -> None:
    """Neither that of new friends, nor how long an account stays guilty and its senders tainted."""
    new = NewFriends()
    now = 100 * DAY
    assert admitted(new, range(30), now) == [*range(MOST_AN_HOUR)]
    new.taint(network(1), now + 60.0)
    assert not any(new.blame(ALICE, network(2), now, "205") for _ in range(MOST_GUESSES - 1))
    new.move(step)
    now += step
    assert admitted(new, range(8, 30), now + HOUR - 1) == []
    assert new.is_tainted(network(1), now + 59.0)
    assert not new.is_tainted(network(1), now + 60.0)
    assert new.blame(ALICE, network(3), now + 1.0, "205")
    new.convict(ALICE, now)
    new.move(step)
    assert admitted(new, range(8, 30), now + step + GUILTY_FOR - 1) == []
    assert admitted(new, range(8, 9), now + step + GUILTY_FOR) == [8]


def test_each_account_has_a_limit_of_its_own() -> None:
    """The friends of one account do not count against another's limit; each account is reported once."""
    new = NewFriends()
    assert admitted(new, range(30), 0.0) == admitted(new, range(30), 0.0, BOB)
    assert new.take_refused() == [ALICE, BOB]
    assert new.take_refused() == []


def test_the_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, the account that made a friend longest ago is forgotten."""
    monkeypatch.setattr(new_friends, "MOST", 1)
    new = NewFriends()
    admitted(new, range(30), 0.0)
    admitted(new, range(30), 0.0, BOB)
    assert new.take_refused() == [ALICE]
    assert admitted(new, range(100, 130), 0.0) == [*range(100, 100 + MOST_AN_HOUR)]


def test_where_an_account_worked_it_is_not_new() -> None:
    """A phone that comes back is a friend, also at another address of its /64, however many are new."""
    friends = Friends()
    friends.add(reason("198.51.100.7"))
    friends.remember(reason("2001:db8::7"))
    assert admitted(friends.new, range(30), 0.0) == [*range(MOST_AN_HOUR)]
    assert friends.admit(reason("198.51.100.7"))
    assert friends.admit(reason("2001:db8::8"))
    assert not friends.admit(reason("2001:db8:0:1::8"))
    assert friends.admit(reason("2001:db8:0:1::8", "bob"))


@pytest.mark.parametrize(
    ("why", "number"),
    [(FriendReason.REACHABLE, 8), (FriendReason.REGISTERED, 8), (FriendReason.TRUNK, 30)],
)
def test_contacts_have_the_same_limit_and_trunks_have_none(why: FriendReason, number: int) -> None:
    """A contact may name any address, so it makes no more friends than a login."""
    friends = Friends()
    assert sum(friends.admit(reason(sender(one), why=why)) for one in range(30)) == number


def test_an_account_makes_64_friends_in_a_network_on_its_first_day() -> None:
    """The kernel copies the packets of so many friends, whether a login or a contact made them."""
    friends = Friends()
    for number in range(100):
        why = FriendReason.REGISTERED if number % 2 else FriendReason.AUTHENTICATED
        one = reason(f"2001:db8::{number:x}", why=why)
        if friends.admit(one):
            friends.add(one)
    assert {*friends.addresses()} == {ip_address(f"2001:db8::{number:x}") for number in range(64)}
    assert friends.first_day.addresses == {*friends.addresses()}
    friends.move(100.0)
    friends.expire(DAY + 100.0)
    assert friends.admit(reason("2001:db8::ff", since=DAY + 100.0))


# -- guesses that come from new friends


def network(number: int) -> Network:
    """Return the sender of an address."""
    return sender_of(ip_address(sender(number)))


def blamed(new: NewFriends, *numbers: int, every: float = 1.0) -> list[bool]:
    """Blame ALICE for guesses from these senders, one after the other; return when she becomes guilty."""
    times = [100.0 + every * index for index in range(len(numbers))]
    return [new.blame(ALICE, network(one), at, "205") for one, at in zip(numbers, times, strict=True)]


def test_guesses_from_two_new_senders_make_their_account_guilty() -> None:
    """Twenty guesses within an hour from two senders are many; from one they may be a phone's."""
    new = NewFriends()
    admitted(new, range(2), 0.0)
    assert blamed(new, *[0] * 30) == [False] * 30
    assert blamed(new, *[1] * 2) == [True] * 2
    assert not new.blame(BOB, network(0), 100.0, "205")
    slow = NewFriends()
    admitted(slow, range(2), 0.0)
    assert not any(blamed(slow, *[0, 1] * 15, every=HOUR / 18))


@pytest.mark.parametrize(
    ("every", "accounts", "senders", "alone", "guilty"),
    [
        (0.22, 1, 1, True, True),
        (0.23, 1, 1, True, False),
        (0.02, 2, 1, True, False),
        (0.02, 1, 2, True, False),
        (0.02, 1, 1, False, False),
    ],
    ids=["a program", "slower", "two accounts", "two senders", "an office"],
)
def test_a_program_at_full_speed_makes_its_account_guilty_sooner(
    every: float, accounts: int, senders: int, *, alone: bool, guilty: bool
) -> None:
    """It is guilty at the twelfth guess within two and a half seconds, where it alone made the friend."""
    new = NewFriends()
    admitted(new, range(2), 0.0)
    found = [
        new.blame(ALICE, network(n % senders), 100.0 + n * every, f"{n % accounts}", alone=alone)
        for n in range(12)
    ]
    assert found == [False] * 11 + [guilty]


def test_a_guilty_account_makes_no_new_friends_for_an_hour() -> None:
    """Neither a new sender nor one of the last day is admitted, and both are tainted; an old one is."""
    new = NewFriends()
    admitted(new, range(2), 0.0)
    assert new.convict(ALICE, 100.0) == [network(0), network(1)]
    assert admitted(new, range(4), 101.0) == []
    assert new.admit(ALICE, network(9), 101.0, known=True)
    assert [new.is_tainted(network(one), 102.0) for one in (0, 3, 9)] == [True, True, False]
    assert not any(blamed(new, *[0, 1] * 15))
    assert not new.is_tainted(network(0), 100.0 + GUILTY_FOR)
    assert admitted(new, range(2, 4), 100.0 + GUILTY_FOR) == [2, 3]
    assert new.convict(BOB, 100.0) == []


def test_the_friends_that_a_guilty_account_alone_made_today_become_strangers() -> None:
    """An address with another account, and one where it worked before, stay friends."""
    friends = Friends()
    friends.add(reason("198.51.100.7"))
    for number in range(2):
        assert friends.admit(reason(sender(number)))
        friends.add(reason(sender(number)))
    friends.add(reason(sender(1), "bob"))
    assert friends.accounts_at(ip_address(sender(1))) == {ALICE, BOB}
    estranged = [*friends.estrange(ALICE, 10.0)]
    assert estranged == [(reason(sender(0)),)]
    assert [*map(str, friends.addresses())] == ["198.51.100.7", sender(1)]
    assert not friends.admit(reason(sender(0)))


def test_the_tainted_senders_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, the sender that was tainted longest ago is forgotten."""
    monkeypatch.setattr(new_friends, "MOST", 1)
    new = NewFriends()
    new.taint(network(0), 10.0)
    new.taint(network(1), 10.0)
    assert [new.is_tainted(network(one), 0.0) for one in (0, 1)] == [False, True]


# -- after a restart

PAUSES = st.sampled_from([60.0, HOUR / 3, HOUR, DAY / 3])
STEPS = st.lists(st.tuples(PAUSES, st.integers(0, 40), st.booleans()), max_size=80)


@given(steps=STEPS)
def test_a_restart_changes_nothing_for_an_account(steps: list[tuple[float, int, bool]]) -> None:
    """Restarts in between or not, an account makes the friends that a naive model expects."""
    friends, now = Friends(), 0.0
    made: dict[int, float] = {}
    for pause, number, restarts in steps:
        now += pause
        if restarts:
            stored, friends = friends.all(), Friends()
            for one in stored:
                friends.add(one)
            friends.restore_new(now)
        today, lately = (sum(now - at < span for at in made.values()) for span in (DAY, HOUR))
        free = today < MOST_A_DAY and lately < MOST_AN_HOUR
        login = reason(sender(number), since=now)
        assert friends.admit(login) == (number in made or free)
        if number in made or free:
            made.setdefault(number, now)
            friends.add(login)
            new = friends.new.is_new(ALICE, network(number), now)
            assert new == (now - made[number] < YOUNG_FOR)


def test_an_account_is_new_at_a_sender_since_its_first_reason_there() -> None:
    """An earlier address of a /64, an import, and a reason that has ended count; a trunk is no account."""
    friends, now = Friends(), 10 * DAY
    friends.remember(reason("2001:db8::1", since=DAY, until=2 * DAY))
    friends.add(reason("2001:db8::2", since=now - 1))
    friends.add(reason(sender(1), why=FriendReason.IMPORTED, since=now - 2))
    friends.add(reason(sender(1), since=now - 1))
    friends.add(reason(sender(2), "carrier", FriendReason.TRUNK, since=now - 1))
    friends.add(reason(sender(3), "bob", FriendReason.REACHABLE, since=now - 1))
    friends.add(reason(sender(3), "bob", since=now - 3))
    friends.add(reason(sender(4), "carol"))
    assert friends.restore_new(now) == [reason(sender(3), "bob", since=now - 3)]


def test_a_reason_that_comes_back_began_when_it_did_first() -> None:
    """A phone that returns is not new, however often it has gone."""
    friends = Friends()
    friends.remember(reason(sender(1), since=100.0, until=200.0))
    friends.remember(reason(sender(1), why=FriendReason.REACHABLE, since=150.0, until=300.0))
    back = reason(sender(1), since=400.0)
    assert (friends.began(back), friends.began(reason(sender(2), since=400.0))) == (100.0, 400.0)


def test_after_a_week_a_sender_is_no_longer_new() -> None:
    """Its guesses then do not count against the account."""
    new = NewFriends()
    admitted(new, range(1), 0.0)
    assert new.is_new(ALICE, network(0), YOUNG_FOR - 1.0)
    assert not new.is_new(ALICE, network(0), YOUNG_FOR)


def test_a_guilty_account_is_guilty_after_a_restart() -> None:
    """Its alarm shows it: the account makes no friend, and its senders without a friend are tainted."""
    friends, now = Friends(), 1_000.0
    friends.remember(reason(sender(1), since=900.0, until=950.0))
    friends.add(reason(sender(2), since=900.0))
    friends.add(reason(sender(3), "bob", since=900.0))
    detector = Detector(RULES, friends=friends)
    detector.restore_friends({guessing(*ALICE).subject}, now)
    assert [friends.new.is_tainted(network(one), now) for one in (1, 2, 3)] == [True, False, False]
    assert not friends.admit(reason(sender(4), since=now))
    assert friends.admit(reason(sender(4), "bob", since=now))
    assert detector.observed(5.0) == {ip_address(sender(2)), ip_address(sender(3))}
    friends.expire(now + DAY - 100.0)
    assert detector.observed(5.0) == set()


def test_an_old_account_stays_guilty_where_its_friends_of_a_64_became_strangers() -> None:
    """After a restart it makes no friend there for an hour; at another network, and at IPv4, it does."""
    friends, now = Friends(), 10 * DAY
    for address, ended in (("2001:db8::1", now - 60.0), ("2001:db8:0:1::1", now - HOUR)):
        friends.remember(reason(address, until=ended))
    friends.remember(reason("2001:db8:0:2::1", "bob", until=now - 60.0))
    friends.remember(reason(sender(1), until=now - 60.0))
    friends.add(reason("2001:db8:0:3::1"))
    Detector(RULES, friends=friends).restore_friends({guessing(*ALICE).subject}, now)
    again = ["2001:db8::2", "2001:db8:0:1::2", sender(1), "2001:db8:0:3::2"]
    assert [friends.admit(reason(one, since=now)) for one in again] == [False, True, True, True]
    assert friends.admit(reason("2001:db8:0:2::2", "bob", since=now))
    assert friends.new.is_tainted(sender_of(ip_address("2001:db8::2")), now)
    assert friends.admit(reason("2001:db8::2", since=now + GUILTY_FOR))


def test_a_guilty_account_that_is_new_stays_so_since_its_first_friend() -> None:
    """A restart that makes it guilty again does not prolong the week in which its guesses count."""
    friends, now = Friends(), 10 * DAY
    friends.remember(reason("2001:db8::1", since=now - DAY, until=now - 60.0))
    Detector(RULES, friends=friends).restore_friends({guessing(*ALICE).subject}, now)
    there = sender_of(ip_address("2001:db8::1"))
    assert friends.new.is_new(ALICE, there, now + YOUNG_FOR - DAY - 1.0)
    assert not friends.new.is_new(ALICE, there, now + YOUNG_FOR - DAY)


def test_a_guess_that_is_taken_back_blames_nobody() -> None:
    """AMI reports each of them at an account that works there, so the friend is not in a hurry."""
    new, here = NewFriends(), sender_of(ip_address(sender(0)))
    assert admitted(new, range(1), 0.0) == [0]
    for number in range(3 * MOST_GUESSES):
        assert not new.blame(ALICE, here, 0.1 * number, "victim", alone=True)
        new.take_back(ALICE, here, "other")
        new.take_back(ALICE, here, "victim")
    new.take_back(BOB, here, "victim")
    assert any(new.blame(ALICE, here, 100.0 + 0.1 * number, "victim", alone=True) for number in range(30))
