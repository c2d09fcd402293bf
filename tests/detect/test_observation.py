"""Observation: logins explain refusals, and the number of observed friends is bounded."""

from ipaddress import ip_address

from ringfence.detect.observation import (
    MANY,
    MOST,
    MOST_COUNTED,
    MOST_TOGETHER,
    NEW_FOR,
    FirstDay,
    Observation,
)
from ringfence.values.network import Address, sender_of

FIRST = int(ip_address("198.18.0.0"))


def test_the_friends_refused_longest_ago_are_discarded_first() -> None:
    """Of more friends than fit, the latest are observed, and each begins to be observed once."""
    observation = Observation()
    friends = [ip_address(FIRST + number) for number in range(MOST + 1)]
    begun = [[observation.on_refusal(one, b"a", 0.0) for _ in range(MANY + 2)] for one in friends]
    assert begun == [[False] * MANY + [True, False]] * len(friends)
    assert {*observation.addresses(0.0)} == {*friends[1:]}


def test_the_friends_that_are_counted_are_bounded() -> None:
    """Of more friends than fit, the one refused longest ago is counted from zero again."""
    observation = Observation()
    for number in range(MOST_COUNTED + 1):
        for _ in range(MANY if number == 0 else 1):
            observation.on_refusal(ip_address(FIRST + number), b"a", 0.0)
    assert not observation.on_refusal(ip_address(FIRST), b"a", 1.0)


def test_a_login_explains_the_refusals_with_its_call_id_only() -> None:
    """The logins of a phone pay for no guess of an attacker at its address."""
    observation, friend = Observation(), ip_address(FIRST)
    for _ in range(MANY + 1):
        assert not observation.on_refusal(friend, b"phone", 0.0)
        observation.on_success(friend, b"phone")
    refused = []
    for number in range(MANY + 1):
        refused.append(observation.on_refusal(friend, b"%d" % number, 1.0))
        observation.on_success(friend, b"phone")
    assert refused == [False] * MANY + [True]


def test_a_login_without_a_call_id_explains_one_refusal() -> None:
    """chan_sip's report of a login names no Call-ID."""
    observation, friend = Observation(), ip_address(FIRST)
    observation.on_success(friend, None)
    for _ in range(2 * MANY):
        assert not observation.on_refusal(friend, b"a", 0.0)
        observation.on_success(friend, None)


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
    return day.admits(account, sender_of(address), address)
