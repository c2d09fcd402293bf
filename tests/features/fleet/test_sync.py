"""Requests to the local API, and applied decisions: by examples, and against a simple model of the API."""

import gc
import sys
from ipaddress import ip_address, ip_network
from itertools import count
from random import Random

import pytest
from attrs import define, evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.features.fleet import decisions as decisions_module
from ringfence.features.fleet.channel import FIRST_PAUSE, LONGEST_PAUSE, Channel
from ringfence.features.fleet.decisions import (
    ENDED_AT_ONCE,
    MOST_SAME,
    MOST_WIDE,
    SPARE,
    STEP,
    WIDE,
    Key,
    key_of,
)
from ringfence.features.fleet.lapi import DecisionPage, LapiDecision, parse_page
from ringfence.features.fleet.messages import scenario_of
from ringfence.features.fleet.sync import (
    AGAIN_AFTER,
    AT_ONCE,
    BEAT_EVERY,
    CALM,
    FULL_EVERY,
    Beat,
    OwnBan,
    Pull,
    Push,
    Request,
    Sync,
    Withdraw,
)
from ringfence.values.network import Network, pack, unpack

NETWORKS = [ip_network(text) for text in ("198.51.100.7", "198.51.100.8", "203.0.113.0/24", "2001:db8::/64")]
ONE = NETWORKS[0]
GUESS = scenario_of("guess")


def own(network: Network = ONE, rule: str = "guess", ends: float = 1_000.0, began: float = 0.0) -> OwnBan:
    """Return a ban of this host."""
    return OwnBan(network, rule, ends, began=began, since=began)


def decision(
    number: int, network: Network = ONE, scenario: str = GUESS, seconds: float = 500.0
) -> LapiDecision:
    """Return a decision of the stream."""
    return LapiDecision(number, network, scenario, "ringfence:other", seconds)


def pulled(sync: Sync, *new: LapiDecision, now: float = 0.0, deleted: tuple[LapiDecision, ...] = ()) -> bool:
    """Answer the next request of ``sync``, which must be a pull."""
    request = sync.next_request(now)
    assert isinstance(request, Pull)
    *_, changed = sync.on_page(DecisionPage(new, deleted), request, now)
    return changed


def applied(sync: Sync) -> set[tuple[Network, str]]:
    """Return the network and the scenario of each decision that applies."""
    return {(unpack(int.from_bytes(packed, "big")), scenario) for packed, scenario in sync.in_force()}


def test_a_decision_of_another_host_applies_until_its_end() -> None:
    """It applies for the time that it has left, or until it is deleted; a missing one goes on."""
    sync = Sync()

    assert pulled(sync, decision(1), decision(2, NETWORKS[1]), decision(3, NETWORKS[2], seconds=-1.0))
    assert applied(sync) == {(ONE, GUESS), (NETWORKS[1], GUESS)}
    assert not pulled(sync, now=10.0)
    assert pulled(sync, now=20.0, deleted=(decision(2, NETWORKS[1]), decision(9)))
    assert applied(sync) == {(ONE, GUESS)}
    assert not sync.expire(499.0)
    assert sync.expire(500.0)
    assert (applied(sync), len(sync), sync.origins()) == (set(), 0, {})


def test_the_number_of_another_database_deletes_nothing() -> None:
    """A deletion counts only for the network and the scenario that it names."""
    sync = Sync()
    pulled(sync, decision(1))

    assert not pulled(sync, now=10.0, deleted=(decision(1, NETWORKS[1]), decision(1, scenario="other")))
    assert applied(sync) == {(ONE, GUESS)}


def test_two_decisions_of_a_network_end_one_after_the_other() -> None:
    """A network stays denied until its last decision has ended."""
    sync = Sync()
    pulled(sync, decision(1, seconds=100.0), decision(2, seconds=200.0))

    assert not pulled(sync, now=10.0, deleted=(decision(1),))
    assert applied(sync) == {(ONE, GUESS)}
    assert sync.expire(200.0)


def test_a_changed_end_counts() -> None:
    """If an answer names another end of a known decision, that one counts."""
    sync = Sync(full_every=10.0)
    pulled(sync, decision(1, seconds=100.0))
    assert not pulled(sync, decision(1, seconds=300.0), now=10.0)

    assert not sync.expire(200.0)
    assert sync.expire(310.0)


def test_a_ban_of_this_host_is_sent_and_recognised() -> None:
    """A ban is sent once, and its decision is not applied as that of another host."""
    sync = Sync()
    pulled(sync)
    sync.on_ban(own(began=1.0))
    push = sync.next_request(1.0)

    assert push == Push((own(began=1.0),))
    assert sync.waiting == 1
    sync.on_done(Push((own(began=1.0),)), 2.0)
    assert (sync.waiting, sync.next_request(3.0)) == (0, None)
    assert not pulled(sync, decision(1), now=10.0)
    assert (applied(sync), sync.lag) == (set(), 9.0)
    assert not sync.expire(509.0)


def test_a_longer_decision_of_another_host_outlives_the_own_ban() -> None:
    """When the own ban ends, another host's decision of the same rule applies."""
    sync = Sync()
    sync.on_ban(own(ends=100.0))
    pulled(sync, decision(1, seconds=300.0))

    assert applied(sync) == set()
    assert sync.expire(100.0)
    assert applied(sync) == {(ONE, GUESS)}


def test_an_unban_is_sent_and_hides_the_decision_at_once() -> None:
    """Until the API has ended the decisions of an unbanned network, they are not applied here."""
    sync = Sync()
    pulled(sync)
    sync.on_ban(own())
    assert isinstance(sync.next_request(1.0), Push)
    sync.on_done(Push((own(),)), 1.0)
    pulled(sync, decision(1), now=10.0)
    sync.on_unban(ONE, 11.0)

    assert applied(sync) == set()
    withdraw = sync.next_request(11.0)
    assert withdraw == Withdraw(ONE, GUESS)
    pulled(sync, decision(1), now=20.0)
    assert applied(sync) == set()
    sync.on_done(Withdraw(ONE, GUESS), 21.0)
    assert sync.waiting == 0
    assert pulled(sync, decision(2), now=30.0)  # a new one of another host


def test_a_ban_that_never_left_is_not_withdrawn() -> None:
    """An unban before the ban was sent needs no request; the unban of an unknown network neither."""
    sync = Sync()
    pulled(sync)
    sync.on_ban(own())
    sync.on_unban(ONE, 1.0)
    sync.on_unban(NETWORKS[1], 1.0)

    assert sync.waiting == 0
    assert isinstance(sync.next_request(1.0), Beat)


def test_an_unban_goes_before_a_new_ban() -> None:
    """A network that is banned again at once is first unbanned at the API, so that the new ban stays."""
    sync = Sync()
    pulled(sync)
    sync.on_restored([own()])
    sync.on_unban(ONE, 1.0)
    sync.on_ban(own(ends=2_000.0))

    assert sync.next_request(1.0) == Withdraw(ONE, GUESS)
    sync.on_done(Withdraw(ONE, GUESS), 1.0)
    assert sync.next_request(1.0) == Push((own(ends=2_000.0),))


def test_a_ban_that_gets_longer_is_sent_again() -> None:
    """If a network is banned again while its ban is being sent, the longer ban is sent as well."""
    sync = Sync()
    pulled(sync)
    sync.on_ban(own())
    sync.next_request(0.0)
    sync.on_ban(own(ends=2_000.0))
    sync.on_done(Push((own(),)), 0.0)

    assert sync.next_request(0.0) == Push((own(ends=2_000.0),))


def test_bans_that_the_api_lacks_are_sent_again() -> None:
    """Bans that a full answer lacks are sent, unless someone has ended them at the API."""
    sync = Sync()
    sync.on_restored([own(network) for network in NETWORKS[:3]])
    pulled(sync, decision(1, seconds=1_000.0), decision(2, NETWORKS[1], seconds=1_000.0))

    assert sync.next_request(0.0) == Push((own(NETWORKS[2]),))
    sync.on_done(Push((own(NETWORKS[2]),)), 0.0)
    pulled(sync, now=10.0, deleted=(decision(2, NETWORKS[1]),))
    pulled(sync, decision(3, NETWORKS[2]), now=FULL_EVERY)
    assert sync.next_request(FULL_EVERY) == Push((own(ONE),))


def test_a_ban_that_got_longer_before_a_restart_is_sent_once_more() -> None:
    """The API's decision of the shorter ban does not count as the present ban, whatever its clock shows."""
    sync = Sync(full_every=10.0)
    longer = own(ends=2_000.0)
    sync.on_restored([longer])
    pulled(sync, decision(1, seconds=1_000.0))
    assert sync.next_request(0.0) == Push((longer,))

    sync.on_done(Push((longer,)), 0.0)
    pulled(sync, decision(1, seconds=990.0), now=10.0)
    assert sync.waiting == 0


def test_a_ban_that_followed_an_unban_before_a_restart_is_sent_after_it() -> None:
    """The earlier ban's end at the API, by the unban or by its own time, does not end the present ban."""
    for withdrawn in (True, False):
        sync = Sync()
        sync.on_restored([own(ends=2_000.0)])
        sync.on_unfinished([(own().key, 1_000.0)])
        pulled(sync, decision(1, seconds=1_000.0))
        assert sync.next_request(0.0) == Withdraw(ONE, GUESS)
        if withdrawn:
            sync.on_done(Withdraw(ONE, GUESS), 0.0)
        else:
            sync.on_failed(Withdraw(ONE, GUESS), "no answer", 0.0)
        sync.expire(1_000.0)
        pulled(sync, now=1_000.0, deleted=(decision(1, seconds=0.0),))

        assert sync.next_request(1_000.0) == Push((own(ends=2_000.0),))


def test_a_dry_run_sends_no_ban_that_followed_an_unban() -> None:
    """It ends at the API what this host sent before, and sends nothing in its place."""
    sync = Sync(sends=False)
    sync.on_restored([own(ends=2_000.0)])
    sync.on_unfinished([(own().key, 1_000.0)])
    pulled(sync)
    assert sync.next_request(0.0) == Withdraw(ONE, GUESS)

    sync.on_done(Withdraw(ONE, GUESS), 0.0)
    assert sync.waiting == 0


def test_a_deletion_between_two_answers_counts() -> None:
    """A ban that someone deletes at the API before an answer has shown it is not sent again."""
    sync = Sync(full_every=10.0)
    pulled(sync, decision(1, NETWORKS[1]))
    sync.on_ban(own())
    assert sync.next_request(0.0) == Push((own(),))
    sync.on_done(Push((own(),)), 0.0)
    pulled(sync, now=10.0, deleted=(decision(2),))

    pulled(sync, decision(1, NETWORKS[1]), now=20.0, deleted=(decision(2),))
    assert isinstance(sync.next_request(20.0), Beat | None)


def test_a_deletion_before_a_restart_counts() -> None:
    """A ban is not sent again if the first answer shows that someone has deleted it since it began."""
    sync = Sync()
    sync.on_restored([own(began=-60.0), own(NETWORKS[1], began=-60.0)])
    pulled(sync, deleted=(decision(2, seconds=-30.0), decision(1, NETWORKS[1], seconds=-90.0)))

    assert sync.next_request(0.0) == Push((own(NETWORKS[1], began=-60.0),))


def test_the_end_of_an_earlier_ban_is_no_deletion_of_the_present_one() -> None:
    """A decision that ended before the present ban of its network began does not concern it."""
    sync = Sync(full_every=10.0)
    sync.on_restored([own()])
    pulled(sync, deleted=(decision(2, seconds=-1.0),))
    assert sync.next_request(0.0) == Push((own(),))
    sync.on_done(Push((own(),)), 0.0)

    pulled(sync, now=10.0, deleted=(decision(2, seconds=-11.0),))
    assert sync.next_request(10.0) == Push((own(),))


def test_after_a_failure_everything_is_requested() -> None:
    """The pauses after failures double up to a limit; a server may ask for a longer one up to that limit."""
    sync = Sync()
    now, pauses = 0.0, []
    for _ in range(7):
        request = sync.next_request(now)
        assert request == Pull(full=True)
        sync.on_failed(request, "no answer", now)
        sync.push.due = now + 1_000.0
        pauses.append(sync.pull.due - now)
        assert sync.due() == sync.pull.due
        now = sync.pull.due
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert (sync.pull.error, sync.pull.last) == ("no answer", None)

    pulled(sync, now=now)
    sync.on_failed(Pull(full=False), "status 429", now, 20.0)
    assert (sync.pull.due, sync.next_request(now + 20.0)) == (now + 20.0, Pull(full=True))
    sync.on_failed(Pull(full=True), "status 429", now, 9_999.0)
    assert sync.pull.due == now + LONGEST_PAUSE


def test_hosts_do_not_return_in_the_same_moment() -> None:
    """The pauses after failures are random, and no longer than the limit; a server's pause is kept."""
    hosts = [Sync(chance=Random(number)) for number in range(20)]  # noqa: S311 - no secret
    for _ in range(6):
        for host in hosts:
            host.on_failed(Pull(full=True), "no answer", 0.0)
    dues = [host.pull.due for host in hosts]

    assert len({*dues}) > 10
    assert all(FIRST_PAUSE <= due <= LONGEST_PAUSE for due in dues)
    for host in hosts:
        host.on_failed(Push(()), "status 429", 0.0, LONGEST_PAUSE)
    assert {host.push.due for host in hosts} == {LONGEST_PAUSE}


def requests_for_all(sync: Sync, start: float, end: float, *news: tuple[float, LapiDecision]) -> list[float]:
    """Return when all decisions are requested, with an API that has these ones from these times on."""
    found, now = [], start
    while now < end:
        request = sync.next_request(now)
        if isinstance(request, Pull):
            rows = tuple(evolve(row, seconds=1e6) for when, row in news if when <= now)
            assert [*sync.on_page(DecisionPage(rows), request, now)]
            found += [now] * request.full
        elif request is not None:
            sync.on_done(request, now)
        now = max(now, sync.due())
    return found


def test_everything_is_requested_once_within_a_minute_after_news() -> None:
    """A decision that was stored during an answer is in no later one but a full one, so that comes soon."""
    sync = Sync()
    assert requests_for_all(sync, 0.0, 100.0) == [0.0]
    assert requests_for_all(sync, 100.0, 600.0, (100.0, decision(1))) == [100.0 + AGAIN_AFTER]
    assert AGAIN_AFTER + 10.0 < 60.0
    many = [(600.0 + 10.0 * number, decision(2 + number)) for number in range(12)]
    found = requests_for_all(sync, 600.0, 1_300.0, *many)
    assert found == [630.0, 660.0, 690.0, 720.0]  # and no more, because the last one found nothing new


def test_many_decisions_are_requested_less_often() -> None:
    """After news, an answer with very many decisions is requested later; those left out are no news."""
    sync = Sync(most=CALM)
    rows = [
        (0.0, decision(number, ip_network(f"198.51.{number >> 8}.{number & 255}"))) for number in range(CALM)
    ]
    left_out = (50.0, decision(CALM, NETWORKS[2]))
    sync._decisions._number = 99 * CALM  # as many as a community list has
    sync._decisions.most = 100 * CALM
    assert requests_for_all(sync, 0.0, 500.0, *rows, left_out) == [0.0, 100.0]


def test_what_found_no_room_is_requested_again_when_there_may_be_room() -> None:
    """Any deletion may make room, or end what found none; without one, nothing is requested early."""
    sync, first, second, third = Sync(most=1), *(decision(n, NETWORKS[n]) for n in range(3))
    pulled(sync, first, second)
    pulled(sync, first, second, now=AGAIN_AFTER)
    now = AGAIN_AFTER + 10.0
    pulled(sync, now=now)
    assert (sync.left.crowded, sync._next_full) == (1, AGAIN_AFTER + FULL_EVERY)

    pulled(sync, deleted=(evolve(second, seconds=-1.0),), now=now + 10.0)
    assert sync._next_full == now + 10.0 + AGAIN_AFTER
    pulled(sync, first, third, now=now + 10.0 + AGAIN_AFTER)
    pulled(sync, deleted=(evolve(first, seconds=-1.0),), now=now + 20.0 + AGAIN_AFTER)
    pulled(sync, third, now=now + 20.0 + 2 * AGAIN_AFTER)
    assert (applied(sync), sync.left.crowded) == ({(NETWORKS[2], GUESS)}, 0)


def test_only_a_newer_decision_without_room_is_a_new_loss() -> None:
    """An answer that repeats or lacks what found no room is no loss, and neither is the first answer."""
    sync, rows = Sync(most=1), [decision(n, NETWORKS[n]) for n in range(4)]
    losses = []
    for now, *numbers in ((0, 0, 1, 2), (600, 0, 1, 2), (1_200, 0, 1), (1_800, 0, 1, 2), (2_400, 0, 1, 2, 3)):
        pulled(sync, *(evolve(rows[one], seconds=1e6) for one in numbers), now=now)
        losses.append(sync.turned_away)
    assert losses == [0, 0, 0, 0, 1]


def test_refused_bans_do_not_stop_the_others() -> None:
    """If the API refuses a request with several bans, they are sent one by one; a refused one is given up."""
    sync = Sync()
    pulled(sync)
    for network in NETWORKS[:2]:
        sync.on_ban(own(network))
    both = sync.next_request(0.0)
    assert both == Push((own(), own(NETWORKS[1])))
    sync.on_failed(Push((own(), own(NETWORKS[1]))), "status 400", 0.0, refused=True)

    assert sync.next_request(1.0) == Push((own(),))
    sync.on_failed(Push((own(),)), "status 400", 1.0, refused=True)
    assert sync.next_request(9.0) == Push((own(NETWORKS[1]),))
    sync.on_done(Push((own(NETWORKS[1]),)), 9.0)
    assert (sync.lost, sync.waiting) == (1, 0)

    sync.on_restored([own(NETWORKS[2])])
    sync.on_unban(NETWORKS[2], 9.0)
    sync.on_failed(Withdraw(NETWORKS[2], GUESS), "status 400", 9.0, refused=True)
    sync.on_failed(Beat(), "status 400", 9.0, refused=True)
    assert (sync.lost, sync.waiting) == (2, 0)


def test_a_refused_ban_is_lost_once() -> None:
    """An answer that lacks a ban that the API refused does not send it again; a longer ban is sent."""
    sync = Sync()
    pulled(sync)
    sync.on_ban(own())
    assert sync.next_request(0.0) == Push((own(),))
    sync.on_failed(Push((own(),)), "status 400", 0.0, refused=True)
    sync.on_done(Beat(), 1.0)
    pulled(sync, now=FULL_EVERY)
    assert (sync.waiting, sync.lost) == (0, 1)

    longer = own(ends=2_000.0, began=700.0)
    sync.on_ban(longer)
    assert sync.next_request(700.0) == Pull(full=False)
    pulled(sync, now=700.0)
    assert sync.next_request(700.0) == Push((longer,))


def test_every_table_is_bounded() -> None:
    """Beyond its limit, each table counts what it does not take."""
    sync = Sync(most=1)
    pulled(sync, decision(1), decision(2, NETWORKS[1]))
    assert (len(sync), sync.lost, sync.left.crowded) == (1, 0, 1)
    networks = [ip_network(f"198.51.{n >> 8}.{n & 255}") for n in range(300)]
    for network in networks:
        sync.on_ban(own(network))
    request = sync.next_request(0.0)
    assert isinstance(request, Push)
    assert len(request.bans) == AT_ONCE
    for number in range(5_000):
        sync.on_ban(own(networks[0], ends=1_000.0 + number))
        pulled(sync, decision(1, seconds=100.0 + 5 * (number % 2)), now=10.0 * (number + 1))
    assert len(sync._own_ends) < 2_000
    assert len(sync._decisions._ends) < 2_000


def test_the_texts_of_decisions_have_room_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are counted by their memory, and each different one once; its room is free when it has ended."""
    monkeypatch.setattr(decisions_module, "MOST_TEXTS", 1_000_000)
    sync = Sync(full_every=10.0)
    networks = [ip_network(f"198.51.{n >> 8}.{n & 255}") for n in range(2_000)]
    wide = [decision(n, one, f"{n}" + "\U0001f600" * 195) for n, one in enumerate(networks)]
    pulled(sync, *wide)
    fit = len(sync)
    assert 0 < fit < 1_000_000 / 800
    assert sync.left.crowded == len(networks) - fit
    assert not pulled(sync, evolve(decision(40_000), origin="\U0001f600" * 200), now=10.0)
    assert (len(sync), sync.left.crowded) == (fit, 1)
    pulled(sync, *(decision(50_000 + n, one, wide[0].scenario) for n, one in enumerate(networks)), now=20.0)
    assert (len(sync), sync.left.crowded) == (fit + len(networks), 0)
    while sync.ending(600.0):
        sync.expire(600.0)
    pulled(sync, *wide, now=610.0)
    assert len(sync) == fit


def test_many_decisions_that_end_together_end_in_steps() -> None:
    """Each call handles some of the ends, and returns whether others wait."""
    sync = Sync()
    networks = [ip_network(f"198.51.{n >> 8}.{n & 255}") for n in range(3 * ENDED_AT_ONCE)]
    pulled(sync, *(decision(number, network) for number, network in enumerate(networks)))
    left = []
    while sync.ending(500.0):
        assert sync.expire(500.0)
        left.append(len(sync))
    assert left == [2 * ENDED_AT_ONCE, ENDED_AT_ONCE, 0]


def test_many_decisions_of_the_same_networks_end_in_steps() -> None:
    """One call ends some hundred decisions, however many of them each network has."""
    sync = Sync()
    networks = [ip_network(f"198.51.100.{n}") for n in range(ENDED_AT_ONCE // 10)]
    rows = [decision(100 * n + each, network) for each in range(100) for n, network in enumerate(networks)]
    pulled(sync, *rows)
    before, worst = len(sync), 0
    assert before == 10 * ENDED_AT_ONCE
    while sync.ending(501.0):
        sync.expire(501.0)
        before, worst = len(sync), max(worst, before - len(sync))
    assert before == 0
    assert worst <= ENDED_AT_ONCE + MOST_SAME


def test_a_network_has_so_many_decisions_of_one_scenario() -> None:
    """More are left out; the network stays denied until the last one has ended."""
    sync = Sync()
    pulled(sync, *(decision(number, seconds=100.0 + number) for number in range(MOST_SAME + 1)))
    assert (len(sync), sync.left.crowded) == (MOST_SAME, 1)
    now = 99.0 + MOST_SAME - 1
    while sync.ending(now):
        assert not sync.expire(now)
    assert len(sync) == 1
    assert sync.expire(100.0 + MOST_SAME)


def test_no_networks_can_be_chosen_whose_keys_collide() -> None:
    """Python's hash of an integer is the rest modulo 2**61 - 1; that of a key is secret."""
    first, step = int(ip_address("2001:db8::")), sys.hash_info.modulus
    networks = [ip_network(first + number * step) for number in range(1_000)]

    assert len({hash(key_of(pack(network), GUESS)) for network in networks}) > 990


def test_the_garbage_collector_passes_over_decisions() -> None:
    """Neither an answer nor what is kept of it adds objects that the collector visits one by one."""
    sync = Sync()
    rows = ",".join(
        f'{{"id":{n},"value":"198.51.{n >> 8}.{n & 255}","scope":"ip","type":"ban","duration":"1h",'
        f'"scenario":"s","origin":"o"}}'
        for n in range(2_000)
    )
    gc.collect()
    before = len(gc.get_objects())
    page = parse_page(f'{{"new":[{rows}]}}'.encode())
    assert [*sync.on_page(page, Pull(full=True), 0.0)]
    for _ in range(3):  # a tuple of tuples is passed over after these
        gc.collect()
    assert (len(page.new), len(sync)) == (2_000, 2_000)
    assert len(gc.get_objects()) - before < 200


def test_ends_of_short_answers_do_not_pile_up() -> None:
    """An API that replaces a few decisions in each answer fills no queue."""
    sync, last = Sync(full_every=1e9), tuple[LapiDecision, ...]()
    for n in range(2 * SPARE):
        one = decision(n, scenario=f"s{n}", seconds=1e6)
        pulled(sync, one, deleted=last, now=10.0 * n)
        last = (one,)
    assert len(sync._decisions._ends) <= SPARE + 10


def test_ends_that_change_do_not_pile_up() -> None:
    """An answer that shortens all decisions again and again leaves few outdated ends, and each end counts."""
    sync = Sync(full_every=10.0)
    networks = [ip_network(f"198.51.{n >> 8}.{n & 255}") for n in range(2_000)]
    for turn in range(20):
        seconds = 10_000.0 - 100.0 * turn
        rows = (decision(number, network, seconds=seconds) for number, network in enumerate(networks))
        pulled(sync, *rows, now=10.0 * turn)
        assert len(sync._decisions._ends) <= 3 * len(networks) // 2 + SPARE + STEP
    assert not sync.expire(190.0 + 8_099.0)
    while sync.ending(190.0 + 8_100.0):
        sync.expire(190.0 + 8_100.0)
    assert len(sync) == 0


def test_unusable_networks_are_left_out() -> None:
    """A decision whose network may not be applied is counted and named."""
    sync = Sync(refusal=lambda packed: "local" if unpack(packed) == ONE else "")

    assert not pulled(sync, decision(1))
    assert (len(sync), sync.left.number, sync.left.crowded) == (0, 1, 0)
    assert sync.left.named == ["198.51.100.7 (local)"]
    pulled(sync, decision(2), now=10.0)
    assert sync.left.number == 2
    sync.on_failed(Pull(full=False), "x", 20.0)
    pulled(sync, now=30.0)
    assert (sync.left.number, sync.left.named) == (0, [])


def test_a_repeated_decision_is_left_out_once() -> None:
    """Answers may repeat a decision. Those without a number cannot be recognised."""
    sync = Sync(most=1, refusal=lambda packed: "local" if unpack(packed) == ONE else "")
    local, kept, crowded = decision(1), decision(2, NETWORKS[1]), decision(3, NETWORKS[2])
    for now in (0.0, 10.0, 20.0):
        request = sync.next_request(now)
        assert isinstance(request, Pull)
        assert [*sync.on_page(DecisionPage((local, kept, crowded, local), (), (4, 4)), request, now)]

    assert (sync.left.number, sync.left.crowded) == (3, 1)
    assert sync.left.named == ["198.51.100.7 (local)", "203.0.113.0/24 (no room)"]
    assert [*sync.on_page(DecisionPage(left_out=(None, None)), Pull(full=False), 30.0)]
    assert sync.left.number == 5


def test_wide_networks_cover_a_part_of_the_internet_only() -> None:
    """Four /8 have room, one more is named; it never takes the room of narrow networks, and gets it later."""
    sync = Sync(full_every=10.0)
    wide = [ip_network(f"{first}.0.0.0/8") for first in range(11, 16)]
    rows = [decision(number, network) for number, network in enumerate(wide)]
    pulled(
        sync, *rows, decision(10, wide[0]), decision(20, ip_network("2001::/19")), decision(30, NETWORKS[2])
    )

    assert applied(sync) == {(one, GUESS) for one in (*wide[:4], ip_network("2001::/19"), NETWORKS[2])}
    assert (sync.left.number, sync.left.crowded, sync.left.named) == (1, 1, ["15.0.0.0/8 (no room)"])
    pulled(sync, *rows[1:4], now=10.0, deleted=(rows[0], decision(10, wide[0])))
    pulled(sync, *rows[1:], now=20.0)
    assert (wide[4], GUESS) in applied(sync)
    assert sync.left.number == 0


@given(
    st.lists(
        st.tuples(
            st.integers(8, 32),
            st.integers(0, 2**32 - 1),
            st.integers(0, 20),
            st.integers(0, 2),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_the_room_of_wide_networks_is_counted(made: list[tuple[int, int, int, int, bool]]) -> None:
    """Whatever comes and goes, the wide networks in force have at most the addresses of the limit."""
    sync = Sync()
    for length, address, number, scenario, ends in made:
        network = ip_network((address >> (32 - length) << (32 - length), length))
        row = decision(number, network, f"s{scenario}")
        pulled(sync, *(() if ends else (row,)), now=1e6, deleted=(row,) if ends else ())
        sync._next_pull = sync._next_full = 0.0
        wide = [one for one, _ in applied(sync) if one.prefixlen < WIDE[4]]
        assert sync._decisions._wide[4] == sum(one.num_addresses for one in wide) <= MOST_WIDE[4]
    sync.expire(2e6)
    assert not +sync._decisions._wide


def test_an_unban_that_fails_is_sent_apart() -> None:
    """It stops no ban and no other unban, is tried again with growing pauses, and ends with its ban."""
    sync = Sync(interval=1e9, full_every=1e9)
    pulled(sync)
    sync.on_restored([own(network, ends=200.0) for network in NETWORKS[:2]])
    for network in NETWORKS[:2]:
        sync.on_unban(network, 0.0)
    sync.on_ban(own(NETWORKS[2]))
    sync.on_ban(own())  # a new ban of the same network waits for its unban
    failing = Withdraw(ONE, GUESS)
    assert sync.next_request(0.0) == failing
    sync.on_failed(failing, "status 500", 0.0)
    assert sync.due() == 1.0

    assert sync.next_request(1.0) == Push((own(NETWORKS[2]),))
    sync.on_done(Push((own(NETWORKS[2]),)), 1.0)
    assert sync.next_request(1.0) == Withdraw(NETWORKS[1], GUESS)
    sync.on_done(Withdraw(NETWORKS[1], GUESS), 1.0)
    assert (sync.waiting, sync.failing) == (2, 1)
    now, pauses = 1.0, []
    while sync.failing:
        if sync.expire(now) or not sync.failing:
            break
        request = sync.next_request(now)
        if request == failing:
            sync.on_failed(failing, "status 500", now)
            pauses.append(sync.retry.due - now)
        elif request == Beat():
            sync.on_done(Beat(), now)
        now = max(now, sync.due())
        assert not sync.push.error
    assert now == 200.0
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert {*pauses[5:]} == {LONGEST_PAUSE}
    assert sync.next_request(now) == Push((own(),))


def test_a_ban_that_fails_is_sent_apart() -> None:
    """A request with several bans that fails is sent as single ones; the others do not wait for a bad one."""
    sync = Sync(interval=1e9, full_every=1e9)
    pulled(sync)
    networks = [ip_network(f"203.0.113.{number}") for number in range(40)]
    for network in networks:
        sync.on_ban(own(network))
    now, stored = 0.0, set[Network]()
    while len(stored) < 39:
        request = sync.next_request(now)
        assert isinstance(request, Push | Beat)
        sent = {ban.network for ban in request.bans} if isinstance(request, Push) else set()
        if networks[25] in sent:
            sync.on_failed(request, "status 500", now)
        else:
            stored |= sent
            sync.on_done(request, now)
        now = max(now, sync.due())
    assert now < 8.0
    assert (sync.waiting, sync.failing) == (1, 1)
    sync.on_ban(own(networks[25], ends=2_000.0))  # a longer ban of it is tried at once
    assert (sync.waiting, sync.failing) == (1, 0)
    request = sync.next_request(now)
    assert request == Push((own(networks[25], ends=2_000.0),))
    sync.on_done(Push((own(networks[25], ends=2_000.0),)), now)
    assert sync.waiting == 0


def test_a_failed_ban_may_end() -> None:
    """A ban or an unban that ended meanwhile is not sent again, whatever became of its request."""
    sync = Sync(interval=1e9, full_every=1e9)
    pulled(sync)
    sync.on_ban(own())
    push = sync.next_request(0.0)
    assert push == Push((own(),))
    sync.on_unban(ONE, 0.0)
    sync.on_failed(Push((own(),)), "lost", 0.0)
    assert sync.next_request(1.0) == Withdraw(ONE, GUESS)
    sync.expire(1_000.0)
    sync.on_failed(Withdraw(ONE, GUESS), "lost", 1_000.0)
    assert (sync.waiting, sync.failing) == (0, 0)

    sync.on_ban(own(ends=1_100.0))
    assert sync.next_request(1_003.0) == Push((own(ends=1_100.0),))
    sync.on_failed(Push((own(ends=1_100.0),)), "lost", 1_003.0)
    assert sync.failing == 1
    sync.expire(1_100.0)
    assert (sync.waiting, sync.failing) == (0, 0)


def test_a_request_that_hangs_is_a_problem() -> None:
    """A channel has a problem if a request has no answer for long, or if none has succeeded since."""
    channel = Channel()
    assert channel.problem(1e9, 30.0) == ""
    channel.begins(0.0)
    assert (channel.problem(30.0, 30.0), channel.problem(31.0, 30.0)) == ("", "no answer yet")
    channel.failed("status 500", 40.0)
    channel.begins(41.0)
    assert channel.problem(42.0, 30.0) == "status 500"
    channel.worked(43.0)
    assert channel.problem(1e9, 30.0) == ""


def test_a_sign_of_life_each_minute() -> None:
    """Without a ban to send, there is a sign of life each minute."""
    sync = Sync(interval=1_000.0)
    pulled(sync)
    assert sync.next_request(0.0) == Beat()
    sync.on_done(Beat(), 0.0)

    assert sync.next_request(BEAT_EVERY - 1.0) is None
    assert sync.due() == BEAT_EVERY
    assert sync.next_request(BEAT_EVERY) == Beat()


# -- two hosts and an API that loses requests, answers and rows


@frozen
class Row:
    """A decision of the model."""

    key: Key
    ends: float
    created: float
    deleted: float | None = None


@define
class Model:
    """The API as it is documented, and as simple as possible: rows that are never removed."""

    rows: dict[int, Row] = field(factory=dict)
    last: dict[str, float] = field(factory=dict)
    numbers: "count[int]" = field(factory=lambda: count(1))

    def add(self, key: Key, ends: float, now: float) -> None:
        """Store a decision."""
        self.rows[next(self.numbers)] = Row(key, ends, now)

    def delete(self, key: Key, now: float) -> None:
        """Delete the decisions of a network and a scenario."""
        for number, row in self.rows.items():
            if row.key == key and row.deleted is None:
                self.rows[number] = evolve(row, deleted=min(now, row.ends))

    def live(self, now: float) -> set[Key]:
        """Return what is in force."""
        return {row.key for row in self.rows.values() if row.deleted is None and row.ends > now}

    def page(self, node: str, now: float, *, full: bool) -> DecisionPage:
        """Return an answer for a node."""
        since = -1.0 if full else self.last.get(node, -1.0)
        self.last[node] = now
        new, deleted = [], []
        for number, row in self.rows.items():
            packed, scenario = int.from_bytes(row.key[0], "big"), row.key[1]
            found = LapiDecision(number, packed, scenario, "x", row.ends - now)
            end = row.ends if row.deleted is None else row.deleted
            if row.deleted is None and row.ends > now and row.created > since:
                new.append(found)
            elif end <= now and end >= since - 2.0:
                deleted.append(evolve(found, seconds=end - now))
        return DecisionPage(tuple(new), tuple(deleted))


@define
class World:
    """Two hosts, their bans as an administrator sees them, and the API."""

    now: float = 0.0
    api: Model = field(factory=Model)
    nodes: dict[str, Sync] = field(factory=lambda: {name: Sync() for name in "ab"})
    bans: dict[str, dict[Key, OwnBan]] = field(factory=lambda: {"a": {}, "b": {}})

    def advance(self, seconds: float) -> None:
        """Advance the clock, and expire decisions and bans."""
        self.now += seconds
        for node, sync in self.nodes.items():
            sync.expire(self.now)
            self.bans[node] = {key: ban for key, ban in self.bans[node].items() if ban.ends > self.now}

    def ban(self, node: str, ban: OwnBan) -> None:
        """Ban at a host."""
        self.bans[node][ban.key] = ban
        self.nodes[node].on_ban(ban)

    def unban(self, node: str, network: Network) -> None:
        """Unban at a host."""
        self.bans[node] = {key: ban for key, ban in self.bans[node].items() if ban.network != network}
        self.nodes[node].on_unban(network, self.now)

    def step(self, node: str, fault: str) -> None:
        """Carry out the next request of a host; a fault loses the request, its answer, or rows of it."""
        self.advance(0.001)  # the API loses what is stored in the moment of an answer
        sync = self.nodes[node]
        request = sync.next_request(self.now)
        if request is None:
            return
        page = DecisionPage() if fault == "request" else self._served(node, request)
        if fault in {"request", "answer"}:
            sync.on_failed(request, fault, self.now)
        elif isinstance(request, Pull):
            before = {*sync.in_force()}
            if fault == "rows" and request.full:
                page = DecisionPage([*page.new][: len(page.new) // 2])
            assert [*sync.on_page(page, request, self.now)]
            deleted = {key_of(one.packed, one.scenario) for one in page.deleted}
            assert before - {*sync.in_force()} <= deleted  # nothing ends because it is missing
        else:
            sync.on_done(request, self.now)

    def _served(self, node: str, request: Request) -> DecisionPage:
        """Carry out a request at the API."""
        if isinstance(request, Pull):
            return self.api.page(node, self.now, full=request.full)
        if isinstance(request, Withdraw):
            self.api.delete(key_of(pack(request.network), request.scenario), self.now)
        elif isinstance(request, Push):
            for ban in request.bans:
                self.api.add(ban.key, ban.ends, self.now)
        return DecisionPage()


NODE = st.sampled_from("ab")
PLACE = st.sampled_from(NETWORKS[:2])
RULE = st.sampled_from(["guess", "enumeration"])


def steps(*faults: str) -> st.SearchStrategy[list[tuple[object, ...]]]:
    """Return steps of a world with these faults."""
    return st.lists(
        st.one_of(
            st.tuples(st.just("ban"), NODE, PLACE, RULE, st.sampled_from([300.0, 3_000.0])),
            st.tuples(st.just("unban"), NODE, PLACE),
            st.tuples(st.just("cscli add"), PLACE, RULE),
            st.tuples(st.just("cscli delete"), PLACE, RULE),
            st.tuples(st.just("wait"), st.sampled_from([1.0, 10.0, 120.0])),
            st.tuples(st.just("step"), NODE, st.just("")),
            st.tuples(st.just("step"), NODE, st.sampled_from(faults)),
        ),
        max_size=40,
    )


def agrees(made: list[tuple[object, ...]], seconds: int) -> None:
    """Check that each host applies exactly what the API has, some time after these steps."""
    world = World()
    for step in made:
        _play(world, step)
    for _ in range(seconds):
        world.advance(1.0)
        for node in "ab":
            for _ in range(12):
                world.step(node, "")
    live = world.api.live(world.now)
    gone = {row.key for row in world.api.rows.values() if row.deleted is not None}
    for node, sync in world.nodes.items():
        mine = world.bans[node].keys()
        assert {*sync.in_force()} == live - mine
        assert mine - gone <= live
        assert (sync.waiting, sync.failing, sync.lost) == (0, 0, 0)


@settings(max_examples=3 * settings().max_examples)
@given(steps("request", "answer"))
def test_both_hosts_agree_with_the_api_within_a_minute(made: list[tuple[object, ...]]) -> None:
    """Whatever request or answer gets lost, a minute later each host applies exactly what the API has."""
    agrees(made, 60)


@given(steps("request", "answer", "rows"))
def test_both_hosts_agree_after_answers_without_some_decisions(made: list[tuple[object, ...]]) -> None:
    """After a full answer that lacks decisions, the next full one corrects that."""
    agrees(made, 660)


def _play(world: World, step: tuple[object, ...]) -> None:
    world.advance(0.001)
    match step:
        case "ban", str(node), network, str(rule), float(seconds):
            world.ban(node, own(network, rule, world.now + seconds, world.now))  # type: ignore[arg-type]
        case "unban", str(node), network:
            world.unban(node, network)  # type: ignore[arg-type]
        case "cscli add", network, str(rule):
            world.api.add(key_of(pack(network), scenario_of(rule)), world.now + 2_000.0, world.now)  # type: ignore[arg-type]
        case "cscli delete", network, str(rule):
            world.api.delete(key_of(pack(network), scenario_of(rule)), world.now)  # type: ignore[arg-type]
        case "wait", float(seconds):
            world.advance(seconds)
        case "step", str(node), str(fault):
            world.step(node, fault)


@given(st.lists(st.tuples(PLACE, RULE, st.sampled_from([100.0, 3_000.0])), max_size=12))
def test_bans_of_one_host_reach_the_other(made: list[tuple[Network, str, float]]) -> None:
    """Every ban of one host that is in force applies at the other one within two intervals."""
    world = World()
    for network, rule, seconds in made:
        world.ban("a", own(network, rule, world.now + seconds, world.now))
        world.advance(1.0)
        world.step("a", "")
    for _ in range(20):
        world.advance(1.0)
        for node in "ab":
            for _ in range(4):
                world.step(node, "")
    assert world.bans["a"].keys() <= {*world.nodes["b"].in_force()}


def test_a_long_answer_is_taken_over_in_steps() -> None:
    """A ban and an unban between two steps of an answer count as at any other moment."""
    sync = Sync()
    networks = [ip_network(f"198.51.{n >> 8}.{n & 255}") for n in range(2 * STEP)]
    rows = tuple(decision(number, network) for number, network in enumerate(networks))
    steps = sync.on_page(DecisionPage(rows, rows[: 2 * STEP - 1]), Pull(full=True), 0.0)

    assert next(steps)
    assert len(sync) == STEP
    sync.on_restored([own(networks[0]), own(networks[-1], ends=500.0)])
    sync.on_unban(networks[0], 0.0)
    assert [*steps] == [True] * 3
    assert sync.in_force() == ()
    assert (len(sync), sync.origins(), sync.waiting) == (1, {"ringfence:other": 1}, 1)
