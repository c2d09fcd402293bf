"""The ledger of bans: it answers as a plain list does, and holds a hundred thousand bans in little memory."""

import tracemalloc
from collections import Counter
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence import ledger as ledgers
from ringfence.ledger import SLOT, Ledger, Record, ban_of, key_of, network_of, parts_of
from ringfence.values.attempt import AttemptCounts
from ringfence.values.ban import Ban, Origin, Scope
from ringfence.values.network import Address, Network, overlap

NOW = 1_700_000_000.0
NET = ip_network("192.0.2.0/24")
ONE, TWO, THREE = (ip_network(f"192.0.2.{n}/32") for n in (1, 2, 3))

Model = dict[tuple[Network, Scope], Record]


def cut(address: Address, length: int) -> Network:
    """Return the network of this length around an address."""
    return ip_network((address, min(length, address.max_prefixlen)), strict=False)


ADDRESSES: st.SearchStrategy[Address] = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(network="192.0.2.0/29"),
    st.ip_addresses(network="2001:db8::/125"),
    st.ip_addresses(network="::192.0.2.0/125"),
    st.sampled_from([ip_address(text) for text in ("0.0.0.0", "255.255.255.255", "::", "ffff::ffff")]),
)
NETWORKS = st.builds(
    cut, ADDRESSES, st.integers(0, 128) | st.sampled_from([24, 29, 30, 32, 61, 64, 127, 128])
)
SCOPES = st.sampled_from(Scope)
ENDS = st.just(inf) | st.floats(NOW - 100, NOW + 200) | st.floats(0.0, 4e9)
WHICH = st.tuples(NETWORKS, SCOPES)
STEPS = st.one_of(
    st.tuples(st.just("put"), WHICH, ENDS),
    st.tuples(st.just("pop"), WHICH, st.just(0.0)),
    st.tuples(st.just("time"), WHICH, st.floats(-100.0, 100.0)),
)


def record(expires: float, since: float = NOW, renew_at: float = inf) -> Record:
    """Return a record with that end."""
    ban = Ban(
        NET, since=since, expires=expires, rule="guess", reason="somebody tries", counts=AttemptCounts(5)
    )
    return Record.of(ban, renew_at)


def inside(one: Network, other: Network) -> bool:
    """Whether ``one`` lies in ``other``."""
    return overlap(one, other) and one.prefixlen >= other.prefixlen


def agree(ledger: Ledger, model: Model, now: float, asked: Network, scope: Scope) -> None:
    """Check that every answer of the ledger equals the model's."""
    assert len(ledger) == len(model)
    assert {network_of(key): kept for key, kept in ledger.items()} == model
    assert {network_of(key) for key in ledger.keys()} == model.keys()  # noqa: SIM118 - it is no dict
    alive = sum(kept.expires > now for kept in model.values())
    assert abs(ledger.alive(now) - alive) <= ledger.uncertainty

    covering = [network_of(key)[0] for key in ledger.covering(asked, scope, now)]
    assert covering == sorted(covering, key=lambda network: network.prefixlen)
    assert set(covering) == {
        network
        for (network, of), kept in model.items()
        if of is scope and inside(asked, network) and kept.expires > now
    }
    within = [network_of(key)[0] for key in ledger.within(asked, scope)]
    assert Counter(within) == Counter(
        network for network, of in model if of is scope and inside(network, asked)
    )
    like = {
        net: kept.expires
        for (net, of), kept in model.items()
        if (net.version, of) == (asked.version, scope) and kept.expires > now
    }
    as_wide = [end for net, end in like.items() if net.prefixlen == asked.prefixlen]
    soonest = ledger.soonest(asked, scope, 3, now)
    assert [end for end, _ in soonest] == sorted(as_wide or like.values())[:3]
    assert [kept.expires for _, key in soonest if (kept := ledger.get(key))] == [end for end, _ in soonest]


@given(st.lists(STEPS, max_size=30), NETWORKS, SCOPES)
@settings(max_examples=2 * settings().max_examples)
def test_the_answers_are_those_of_a_plain_list(
    steps: list[tuple[str, tuple[Network, Scope], float]], asked: Network, scope: Scope
) -> None:
    """In both versions and scopes the ledger answers as a plain list does, also if the time goes back."""
    ledger, model, now = Ledger(), Model(), NOW
    for step, (network, of), number in steps:
        key = key_of(network, of)
        if step == "put":
            model[network, of] = record(number)
            ledger.put(key, model[network, of])
        elif step == "pop":
            assert ledger.pop(key) is model.pop((network, of), None)
        else:
            now += number
        assert (key in ledger) == ((network, of) in model)
        assert ledger.get(key) is model.get((network, of))
        agree(ledger, model, now, asked, scope)
    for network, of in model:
        agree(ledger, model, now, network, of)
    ledger.clear()
    agree(ledger, {}, now, asked, scope)


@given(NETWORKS, SCOPES)
def test_a_key_stands_for_one_network_and_scope(network: Network, scope: Scope) -> None:
    """A key can be converted back into its network and scope, and into the numbers of the network."""
    key = key_of(network, scope)

    assert network_of(key) == (network, scope)
    assert parts_of(key) == (network.version, int(network.network_address), network.prefixlen)
    other = Scope.FULL if scope is Scope.SIP_UDP else Scope.SIP_UDP
    assert key_of(network, other) != key


def test_the_ip_versions_are_distinct() -> None:
    """``::192.0.2.1`` is not 192.0.2.1, although their numbers are the same."""
    ledger = Ledger()
    ledger.put(key_of(ip_network("192.0.2.1")), record(NOW + 60))
    low = ip_network("::192.0.2.1")

    assert ledger.covering(low, Scope.FULL, NOW) == []
    assert ledger.within(ip_network("::/0"), Scope.FULL) == []
    assert ledger.soonest(low, Scope.FULL, 9, NOW) == []


def test_a_ban_goes_through_a_record() -> None:
    """A record keeps every field of a ban, and its attempts as a number."""
    ban = Ban(
        NET,
        since=1.0,
        expires=2.0,
        rule="flood",
        reason="why",
        origin=Origin.ADMIN,
        scope=Scope.SIP_UDP,
        offence=3,
        forced=True,
        counts=AttemptCounts(7, 6),
    )
    kept = Record.of(ban, renew_at=1.5, seen=4)

    assert (kept.counts, kept.renew_at, kept.seen) == (ban.counts, 1.5, 4)
    assert ban_of(key_of(NET, Scope.SIP_UDP), kept) == ban


def test_each_scope_has_a_key_of_its_own() -> None:
    """Bans of one network with different scopes, and of both IP versions, have different keys."""
    networks = [
        ip_network(text) for text in ("0.0.0.0/1", "192.0.2.1", "::/1", "2001:db8::/64", "::c000:201")
    ]
    keys = {key_of(network, scope): (network, scope) for network in networks for scope in Scope}
    assert len(keys) == len(networks) * len(Scope)
    assert {key: network_of(key) for key in keys} == keys


def test_a_clock_that_is_set_back_hides_nothing() -> None:
    """Bans that are placed after the clock is set back count as alive, although they ended before."""
    ledger = Ledger()
    assert ledger.alive(NOW + 10 * 86_400) == 0
    ledger.put(key_of(NET), record(NOW + 3_600))
    assert (ledger.alive(NOW), ledger.uncertainty) == (1, 0)
    assert ledger.alive(NOW + 3_600 + 2 * SLOT) == 0


def test_in_the_end_every_record_is_looked_at() -> None:
    """Due and renewable records are all found, in several steps if there are many."""
    ledger = Ledger()
    total = 12_000
    keys = [key_of(IPv4Network((number, 32))) for number in range(total)]
    for number, key in enumerate(keys):
        renew_at = NOW - 1 if number % 3 == 1 else NOW + 1
        ledger.put(key, record(NOW if number % 3 == 0 else NOW + 60, renew_at=renew_at))
    over, renew, looks = set[int](), set[int](), 0
    while len(over) + len(renew) < total * 2 // 3:
        some_over, some_renew = ledger.due(NOW)
        over.update(some_over)
        renew.update(some_renew)
        looks += 1
        assert looks <= 3

    assert looks > 1
    assert (over, renew) == (set(keys[::3]), set(keys[1::3]))


def test_a_removed_record_is_not_due() -> None:
    """A record that is removed before its turn is not due."""
    ledger = Ledger()
    for number in range(6_000):
        ledger.put(key_of(IPv4Network((number, 32))), record(NOW))
    first, _ = ledger.due(NOW)
    rest = set(ledger.keys()) - set(first)
    for key in rest:
        ledger.pop(key)

    assert ledger.due(NOW) == ([], [])


@pytest.mark.parametrize("number", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_many_bans_are_little_memory(number: int) -> None:
    """Bans, half of them IPv6 prefixes, in both scopes, need less than 300 bytes of memory each."""
    networks = [
        IPv4Network((n << 4, 32)) if n % 2 else IPv6Network((0x20010DB8 << 96 | n << 64, 64))
        for n in range(number)
    ]
    tracemalloc.start()
    try:
        ledger = Ledger()
        before, _ = tracemalloc.get_traced_memory()
        for nth, network in enumerate(networks):
            scope = Scope.SIP_UDP if nth % 10 == 0 else Scope.FULL
            ban = Ban(
                network,
                since=NOW + nth,
                expires=NOW + 3_600 + nth,
                rule="guess",
                reason="somebody tries",
                scope=scope,
            )
            ledger.put(key_of(network, scope), Record.of(ban))
        ledger.alive(NOW)
        ledger.due(NOW)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(ledger) == number
    assert after - before < number * 300


def ban(network: Network, *, forced: bool = False) -> Ban:
    """Return a ban of a minute."""
    return Ban(network, since=NOW, expires=NOW + 60.0, rule="admin", forced=forced)


def both() -> Ledger:
    """Return a ledger with a confirmed ban, and a forced one that is pending."""
    ledger = Ledger()
    ledger.put(key_of(ONE), Record.of(ban(ONE)))
    ledger.refuse(ban(TWO, forced=True))
    return ledger


def dropped(ledger: Ledger, now: float, scope: Scope = Scope.FULL, *, friend: bool = False) -> list[int]:
    """Return the last bytes of those of three addresses that are banned at ``now``."""
    found = (ledger.scopes(key_of(one), now, friend=friend) for one in (ONE, TWO, THREE))
    return [number for number, scopes in enumerate(found, 1) if scope in scopes]


def test_a_pending_ban_is_found_like_a_confirmed_one() -> None:
    """Look-ups find both kinds; a subject with a pending ban counts as banned."""
    ledger = both()
    keys = key_of(ONE), key_of(TWO)
    assert tuple(ledger.all_keys()) == keys
    assert ledger.overlapping(NET, NOW) == [key_of(TWO), key_of(ONE)]
    assert [ledger.is_forced(key) for key in keys] == [False, True]
    assert [ledger.ban(key) for key in (*keys, 0)] == [ban(ONE), ban(TWO, forced=True), None]
    assert dropped(ledger, NOW) == [1, 2]
    assert dropped(ledger, NOW, Scope.SIP_UDP) == []


def test_a_confirmed_ban_is_not_pending() -> None:
    """A pending ban that the kernel accepts is confirmed; a discarded one is unknown."""
    ledger = both()
    ledger.put(key_of(TWO), Record.of(ban(TWO)))
    assert (ledger.pending, len(ledger)) == ({}, 2)
    ledger.discard(key_of(TWO))
    assert ledger.all_keys() == [key_of(ONE)]


def test_pending_bans_are_limited_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a refused ban is not pending; a pending ban ends with its time."""
    monkeypatch.setattr(ledgers, "MOST_PENDING", 1)
    ledger = both()
    assert ledger.refuse(ban(TWO))
    assert not ledger.refuse(ban(THREE))
    ends = (ledger.expire_pending(NOW), ledger.expire_pending(NOW + 60.0))
    assert ([len(ended) for ended in ends], ledger.pending) == ([0, 1], {})


def test_a_clock_that_is_set_moves_every_ban() -> None:
    """If the clock is set, bans of every kind keep their time left."""
    ledger = both()
    ledger.assume(THREE, Scope.FULL, NOW + 60.0)
    ledger.shift(3_600.0)
    moved = ledger.get(key_of(ONE))
    assert moved is not None
    assert [moved.expires, ledger.pending[key_of(TWO)].ban.expires] == [NOW + 3_660.0] * 2
    assert dropped(ledger, NOW + 3_659.0) == [1, 2, 3]
    assert dropped(ledger, NOW + 3_660.0) == [2]


def test_the_detector_asks_in_monotonic_time() -> None:
    """``offset`` converts the monotonic time of the detector into the time of the bans."""
    ledger = both()
    ledger.discard_pending(key_of(TWO))
    ledger.offset = NOW
    assert (dropped(ledger, 59.9), dropped(ledger, 60.0)) == ([1], [])


def test_a_ban_of_a_wider_network_drops_all_in_it() -> None:
    """A confirmed ban of any network applies to the subjects in it, an assumed one if it is a prefix."""
    confirmed, assumed = Ledger(), Ledger()
    confirmed.put(key_of(ip_network("192.0.2.0/30")), record(NOW + 60.0))
    assumed.assume(NET, Scope.FULL, NOW + 60.0)
    assumed.assume(ip_network("2001:db8::/48"), Scope.FULL, NOW + 60.0)
    sender = key_of(ip_network("2001:db8:0:7::/64"))

    assert (dropped(confirmed, NOW), dropped(assumed, NOW)) == ([1, 2, 3], [1, 2, 3])
    assert not confirmed.scopes(key_of(ip_network("192.0.2.4")), NOW, friend=False)
    assert assumed.scopes(sender, NOW, friend=False)
    assumed.discard_assumed(NET)
    assert dropped(assumed, NOW) == []


@pytest.mark.parametrize("prefix", [64, 96])
def test_a_ban_of_a_64_does_not_apply_to_a_friend_in_it(prefix: int) -> None:
    """A friend is banned by a ban of its own address, and not by one of its /64 or of a part of it."""
    friend, ledger = ip_network("2001:db8::7"), Ledger()
    ledger.put(key_of(friend.supernet(new_prefix=prefix)), record(NOW + 60.0))
    assert not ledger.scopes(key_of(friend), NOW, friend=True)
    assert ledger.scopes(key_of(friend), NOW, friend=False)
    ledger.put(key_of(friend), record(NOW + 60.0))
    assert ledger.scopes(key_of(friend), NOW, friend=True)


def test_an_assumed_ban_lasts_until_its_end() -> None:
    """An assumed ban ends when its time is over. The last end that was recorded counts."""
    ledger = Ledger()
    for network, ends in ((ONE, (10.0, 100.0)), (TWO, (100.0, 10.0)), (THREE, (10.0, 20.0))):
        for end in ends:
            ledger.assume(network, Scope.FULL, end)
    assert (dropped(ledger, 9.9), dropped(ledger, 10.0)) == ([1, 2, 3], [1, 3])
    assert ledger.assumed(10.0) == {(ONE, Scope.FULL), (THREE, Scope.FULL)}
    for now in (10.0, 20.0, 80.0):
        ledger.expire_assumed(now)
    assert ledger.assumed(0.0) == {(ONE, Scope.FULL)}
    ledger.expire_assumed(200.0)
    ledger.assume(TWO, Scope.FULL, 210.0)
    ledger.expire_assumed(210.0)
    assert ledger.assumed(0.0) == set()


def test_the_scopes_of_assumed_bans_are_distinct() -> None:
    """Each scope counts separately, and all end together."""
    ledger = Ledger()
    ledger.assume(ONE, Scope.SIP_UDP, 10.0)
    assert (dropped(ledger, 0.0), dropped(ledger, 0.0, Scope.SIP_UDP)) == ([], [1])
    ledger.assume(ONE, Scope.FULL, 10.0)
    ledger.discard_assumed(ONE)
    assert (dropped(ledger, 0.0), dropped(ledger, 0.0, Scope.SIP_UDP)) == ([], [])


def test_assumed_bans_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the bans that end first are forgotten, in whatever order they were recorded."""
    monkeypatch.setattr(ledgers, "MOST_ASSUMED", 3)
    ledger = Ledger()
    for last, end in ((1, 5.0), (1, 40.0), (2, 10.0), (3, 30.0), (4, 20.0), (5, 50.0)):
        ledger.assume(ip_network(f"192.0.2.{last}"), Scope.FULL, end)

    assert ledger.assumed(0.0) == {(ip_network(f"192.0.2.{last}"), Scope.FULL) for last in (1, 3, 5)}
