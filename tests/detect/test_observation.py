"""Observation: logins explain refusals, and the number of observed friends is bounded."""

from ipaddress import ip_address

from ringfence.detect.observation import MANY, MOST, MOST_COUNTED, MOST_TOGETHER, NEW_FOR, Observation

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
    observation = Observation()
    first, second, elsewhere = map(ip_address, ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"))
    observation.on_new_friend("204", first, 10.0)
    assert not observation.on_login("204", first, 20.0)
    assert not observation.on_login("300", second, 20.0)
    assert not observation.on_login("204", elsewhere, 20.0)
    assert observation.on_login("204", second, 20.0)
    assert {*observation.addresses(9.0 + NEW_FOR)} == {first, second}
    assert observation.is_new(second, 9.0 + NEW_FOR)
    assert not observation.is_new(second, 10.0 + NEW_FOR)
    assert not observation.on_login("204", second, 10.0 + NEW_FOR)


def test_an_address_is_new_while_one_of_its_accounts_is() -> None:
    """An account that is new again counts once, from its latest time."""
    observation, friend = Observation(), ip_address(FIRST)
    observation.on_new_friend("204", friend, 0.0)
    observation.on_new_friend("300", friend, 5.0)
    observation.on_new_friend("204", friend, 10.0)
    assert observation.is_new(friend, 9.0 + NEW_FOR)
    assert not observation.is_new(friend, 10.0 + NEW_FOR)


def test_new_friends_are_bounded() -> None:
    """Those new for longest are discarded first, and one account has room for some addresses of a /64."""
    observation = Observation()
    for number in range(MOST + 1):
        observation.on_new_friend("204", ip_address(FIRST + number), float(number))
    assert not observation.is_new(ip_address(FIRST), 2_000.0)
    assert len(observation.addresses(2_000.0)) == MOST
    network = int(ip_address("2001:db8::"))
    observation.on_new_friend("204", ip_address(network), 2_000.0)
    for number in range(1, MOST_TOGETHER):
        address = ip_address(network + number)
        assert observation.has_room("204", address, 2_000.0)
        assert observation.on_login("204", address, 2_000.0)
    last = ip_address(network + MOST_TOGETHER)
    assert not observation.has_room("204", last, 2_000.0)
    assert not observation.on_login("204", last, 2_000.0)
    assert observation.has_room("204", ip_address(network), 2_000.0)
    assert observation.has_room("205", last, 2_000.0)
    assert len(observation.addresses(2_000.0)) == MOST - 1 + MOST_TOGETHER
