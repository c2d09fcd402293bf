"""Observation: logins explain refusals, and the number of observed friends is bounded."""

from ipaddress import ip_address

from tests.detect.events import event

from ringfence.detect.observation import (
    ANSWERED_WITHIN,
    MANY,
    MOST,
    MOST_COUNTED,
    MOST_TOGETHER,
    NEW_FOR,
    FirstDay,
    Observation,
)
from ringfence.values.event import EventKind, SecurityEvent, Transport
from ringfence.values.network import Address, sender_of
from ringfence.values.packet import CopiedAnswer

FIRST = int(ip_address("198.18.0.0"))
HERE = ip_address("198.18.0.1")


def refused(friend: Address, call_id: bytes = b"a", transport: Transport = Transport.UDP) -> CopiedAnswer:
    """Return an answer by which Asterisk refuses a friend's request."""
    return CopiedAnswer(
        *(friend, 5060, HERE, 5060, call_id, b""), sender=friend, account="alice", transport=transport
    )


def report(kind: EventKind, friend: Address, by: Transport = Transport.UDP) -> SecurityEvent:
    """Return AMI's event about a friend's request with the Call-ID ``phone``."""
    return event(kind, address=str(friend), session=b"phone", transport=by)


def test_the_friends_refused_longest_ago_are_discarded_first() -> None:
    """Of more friends than fit, the latest are observed, and each begins to be observed once."""
    observation = Observation()
    friends = [ip_address(FIRST + number) for number in range(MOST + 1)]
    begun = [[observation.on_refusal(one, refused(one), 0.0) for _ in range(MANY + 2)] for one in friends]
    assert begun == [[False] * MANY + [True, False]] * len(friends)
    assert {*observation.senders(0.0)} == {*map(sender_of, friends[1:])}


def test_the_friends_that_are_counted_are_bounded() -> None:
    """Of more friends than fit, the one refused longest ago is counted from zero again."""
    observation = Observation()
    for number in range(MOST_COUNTED + 1):
        friend = ip_address(FIRST + number)
        for _ in range(MANY if number == 0 else 1):
            observation.on_refusal(friend, refused(friend), 0.0)
    first = ip_address(FIRST)
    assert not observation.on_refusal(first, refused(first), 1.0)


def test_a_login_explains_the_challenge_that_it_answers_only() -> None:
    """The logins of a phone pay for no guess of an attacker at its address, by UDP, TCP or WebSocket."""
    for by, seen in ((Transport.UDP, Transport.UDP), (Transport.WS, Transport.TCP)):
        observation, friend = Observation(), ip_address(FIRST)
        challenge, success = (
            report(kind, friend, by) for kind in (EventKind.CHALLENGE_SENT, EventKind.SUCCESSFUL_AUTH)
        )
        for _ in range(MANY + 1):
            assert not observation.on_refusal(friend, refused(friend, b"phone", seen), 0.0)
            observation.on_challenge(challenge, 0.0)
            observation.on_success(success, 0.0)
        begun = []
        for number in range(MANY + 1):
            begun.append(observation.on_refusal(friend, refused(friend, b"%d" % number, seen), 1.0))
            observation.on_challenge(challenge, 1.0)
            observation.on_success(success, 1.0)
        assert begun == [False] * MANY + [True]


def test_the_challenges_of_an_earlier_request_are_forgotten() -> None:
    """Only those within a minute before the latest challenge of the session count for a login."""
    observation, friend = Observation(), ip_address(FIRST)
    observation.on_challenge(report(EventKind.CHALLENGE_SENT, friend), 0.0)
    for _ in range(MANY):
        observation.on_refusal(friend, refused(friend, b"phone"), 1.0)
    observation.on_challenge(report(EventKind.CHALLENGE_SENT, friend), ANSWERED_WITHIN)
    observation.on_success(report(EventKind.SUCCESSFUL_AUTH, friend), ANSWERED_WITHIN)
    assert not observation.on_refusal(friend, refused(friend), ANSWERED_WITHIN)
    assert observation.on_refusal(friend, refused(friend), ANSWERED_WITHIN)


def test_other_addresses_of_a_new_friends_network_are_new_as_well() -> None:
    """They are new for as long as the friend is, and only if the same account works there."""
    day = FirstDay()
    first, second, elsewhere = map(ip_address, ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"))
    begin(day, "204", first, 10.0)
    assert all([admits(day, "204", first), admits(day, "300", second), admits(day, "204", elsewhere)])
    assert day.addresses == {first}
    assert admits(day, "204", second)
    day.expire(9.0 + NEW_FOR)
    assert day.addresses == {first, second}
    day.expire(10.0 + NEW_FOR)
    assert admits(day, "204", second)
    assert day.addresses == set()


def test_an_address_is_new_while_one_of_its_accounts_is() -> None:
    """An account that is new again counts once, from its latest time; a clock that is set changes nothing."""
    day, friend = FirstDay(), ip_address(FIRST)
    begin(day, "204", friend, 0.0)
    begin(day, "300", friend, 5.0)
    begin(day, "204", friend, 10.0)
    day.move(100.0)
    day.expire(109.0 + NEW_FOR)
    assert day.addresses == {friend}
    day.expire(110.0 + NEW_FOR)
    assert day.addresses == set()


def test_an_account_is_new_at_a_sender_for_a_day() -> None:
    """It is new in its whole /64, and not elsewhere; another account there is not new."""
    day = FirstDay()
    first, second, elsewhere = map(ip_address, ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"))
    begin(day, "204", first, 10.0)
    asked = [("204", second), ("204", elsewhere), ("300", first)]
    assert [day.is_new(account, sender_of(address)) for account, address in asked] == [True, False, False]
    day.expire(10.0 + NEW_FOR)
    assert not day.is_new("204", sender_of(first))


def test_new_friends_are_bounded() -> None:
    """Those new for longest are discarded first, and one account has room for some addresses of a /64."""
    day = FirstDay()
    for number in range(MOST + 1):
        begin(day, "204", ip_address(FIRST + number), float(number))
    assert day.addresses == {ip_address(FIRST + number) for number in range(1, MOST + 1)}
    network = int(ip_address("2001:db8::"))
    begin(day, "204", ip_address(network), 2_000.0)
    assert all(admits(day, "204", ip_address(network + number)) for number in range(1, MOST_TOGETHER))
    last = ip_address(network + MOST_TOGETHER)
    assert not admits(day, "204", last)
    assert admits(day, "204", ip_address(network))
    assert admits(day, "205", last)
    assert last not in day.addresses
    assert len(day.addresses) == MOST - 1 + MOST_TOGETHER


def test_a_clock_that_is_ahead_keeps_no_other_first_day_open() -> None:
    """The times are those of several Asterisks, so a day that began later may be known earlier."""
    day, (ahead, right) = FirstDay(), map(ip_address, ("192.0.2.8", "192.0.2.9"))
    begin(day, "alice", ahead, 3_600.0)
    begin(day, "bob", right, 0.0)
    day.expire(NEW_FOR)
    assert day.addresses == {ahead}


def begin(day: FirstDay, account: str, address: Address, since: float) -> None:
    """Record that an account works at an address for the first time."""
    day.begin(account, sender_of(address), address, since)


def admits(day: FirstDay, account: str, address: Address) -> bool:
    """Record that an account works at another address; return whether it has room."""
    return day.admit(account, sender_of(address), address)
