"""The window: equal to counting by hand at any length and threshold, and bounded."""

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.events import attempt

from ringfence.detect.window import Window
from ringfence.model import Attempt, Network, Proof

SUBJECTS = [ip_network(text) for text in ("192.0.2.7", "192.0.2.8", "2001:db8::/64", "2001:db8:0:1::/64")]
ONE, TWO, THREE, FOUR = SUBJECTS


class NaiveWindow:
    """A list of all attempts that ever were; each question is answered by reading it."""

    def __init__(self, attempts: int, seconds: float) -> None:
        self.attempts = attempts
        self.seconds = seconds
        self.all: list[tuple[Network, Attempt, float]] = []

    def inside(self, subject: Network, now: float) -> tuple[Attempt, ...]:
        """Give the attempts of a subject in the window, the last ``attempts`` of them."""
        inside = [a for s, a, at in self.all if s == subject and now - at < self.seconds]
        return tuple(inside[-self.attempts :])


# Quarters of a second, so that edges are met exactly and sums of times are exact.
QUARTERS = st.integers(0, 40).map(lambda number: number / 4)
STEPS = st.lists(
    st.tuples(
        QUARTERS, st.sampled_from(SUBJECTS), st.sampled_from(Proof), st.sampled_from(["add"] * 6 + ["forget"])
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 6), QUARTERS.filter(bool))
@settings(deadline=None, max_examples=400)
def test_the_window_counts_as_a_list_does(
    steps: list[tuple[float, Network, Proof, str]], attempts: int, seconds: float
) -> None:
    """At any time there are as many attempts as lie in the window, up to the threshold, and just those."""
    window, naive, now = Window(attempts, seconds), NaiveWindow(attempts, seconds), 0.0
    for wait, subject, proof, verb in steps:
        now += wait
        if verb == "forget":
            window.forget(subject)
            naive.all = [entry for entry in naive.all if entry[0] != subject]
        else:
            made = attempt(str(subject.network_address), now, proof=proof)
            naive.all.append((subject, made, now))
            assert window.add(subject, made, now) == len(naive.inside(subject, now))
            assert window.evidence(subject) == naive.inside(subject, now)
        expected = {one: inside for one in SUBJECTS if (inside := naive.inside(one, now))}
        recent = window.recent(now, len(SUBJECTS))
        assert dict(recent) == expected
        assert [len(inside) for _, inside in recent] == sorted(map(len, expected.values()), reverse=True)
        assert len(window) == len(expected)
    assert window.evicted == 0


def test_an_attempt_leaves_the_window_exactly_when_its_time_is_over() -> None:
    """Five in 600 s: an attempt 599.99 s old counts, one of 600 s does not."""
    window = Window(5, 600.0)
    for at in (0.0, 1.0, 2.0, 3.0):
        window.add(ONE, attempt(time=at), at)
    assert window.add(ONE, attempt(time=599.99), 599.99) == 5
    assert window.add(ONE, attempt(time=600.0), 600.0) == 5
    assert window.add(ONE, attempt(time=603.0), 603.0) == 3


def test_an_attacker_at_the_edge_gets_no_more_than_the_allowance() -> None:
    """Four quick ones, a wait to the edge, four quick ones: the window is full at the fifth in 600 s."""
    window = Window(5, 600.0)
    times = [0.0, 599.0, 599.1, 599.2, 600.5, 600.6]
    assert [window.add(ONE, attempt(time=at), at) for at in times] == [1, 2, 3, 4, 4, 5]


@pytest.mark.parametrize("proof", [Proof.NONCE, Proof.HANDSHAKE])
def test_single_claimed_attempts_make_room_first(proof: Proof) -> None:
    """A proven attempt and a second claimed one outlive any number of single claimed ones."""
    window = Window(5, 600.0, max_subjects=3)
    window.add(ONE, attempt(proof=proof), 0.0)
    window.add(TWO, attempt(), 0.0)
    window.add(TWO, attempt(), 0.0)
    for number in range(100):
        window.add(ip_network(f"198.51.100.{number}"), attempt(), 1.0)
    assert (len(window), window.evicted) == (3, 99)
    assert [subject for subject, _ in window.recent(1.0, 9)] == [TWO, ONE, ip_network("198.51.100.99")]


def test_then_whoever_was_silent_longest_makes_room() -> None:
    """Where nobody has a single claimed attempt, the last attempt's age decides, not the first one's."""
    window = Window(5, 600.0, max_subjects=2)
    for at, subject in enumerate([ONE, TWO, ONE, THREE]):
        window.add(subject, attempt(proof=Proof.HANDSHAKE), float(at))
    assert [subject for subject, _ in window.recent(3.0, 9)] == [ONE, THREE]
    assert window.evicted == 1


def test_what_has_run_out_makes_room_uncounted() -> None:
    """Subjects out of the window cost nothing and are no loss."""
    window = Window(5, 600.0, max_subjects=2)
    window.add(ONE, attempt(), 0.0)
    window.add(TWO, attempt(proof=Proof.HANDSHAKE), 0.0)
    window.add(THREE, attempt(), 600.0)
    assert (len(window), window.evicted) == (1, 0)


def test_a_known_subject_needs_no_room() -> None:
    """A full window counts on for those whom it knows, without forgetting anybody."""
    window = Window(3, 600.0, max_subjects=2)
    counts = [window.add(subject, attempt(), 0.0) for subject in (ONE, TWO, ONE, TWO, ONE)]
    assert (counts, len(window), window.evicted) == ([1, 1, 2, 2, 3], 2, 0)


def test_no_subject_keeps_more_than_the_threshold() -> None:
    """Of a thousand attempts as many are kept as a ban can need for evidence."""
    window = Window(5, 600.0)
    for at in range(1000):
        assert window.add(ONE, attempt(time=float(at)), at / 1000) == min(at + 1, 5)
    assert [kept.time for kept in window.evidence(ONE)] == [995.0, 996.0, 997.0, 998.0, 999.0]


def test_recent_gives_the_most_attempts_first_and_no_more_than_asked() -> None:
    """Most attempts first, the newest of the single ones before the older."""
    window = Window(5, 600.0)
    for at, subject in enumerate([ONE, TWO, TWO, THREE, THREE, THREE, FOUR]):
        window.add(subject, attempt(), float(at))
    assert [(s, len(a)) for s, a in window.recent(7.0, 3)] == [(THREE, 3), (TWO, 2), (FOUR, 1)]
    assert [s for s, _ in window.recent(7.0, 9)] == [THREE, TWO, FOUR, ONE]
    assert window.recent(700.0, 9) == []


def test_a_forgotten_subject_has_no_evidence() -> None:
    """Forgetting begins anew, and forgetting a stranger is nothing."""
    window = Window(5, 600.0)
    window.add(ONE, attempt(), 0.0)
    window.forget(ONE)
    window.forget(TWO)
    assert window.evidence(ONE) == ()
    assert window.add(ONE, attempt(), 0.0) == 1
