"""The exact sliding windows, compared with a model that keeps every attempt."""

from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.transcripts.reports import failed, probed, wrong, wrong_by_notice
from tests.support.transcript import Player, Step, Tick, at

from ringfence.values.event import SecurityEvent, Transport

NUMBERS = {"guess": (5, 600.0), "enumeration": (3, 600.0), "slow": (20, 86_400.0), "prefix": (20, 3_600.0)}
"""The number of attempts that each rule needs, and its window in seconds."""


class Model:
    """A model of one rule that keeps every attempt with its time, subject and account.

    The account is empty if it exists. A ban of a subject consumes all attempts of the subject, and a ban of a
    prefix all attempts of the prefix.
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.number, self.window = NUMBERS[rule]
        self.attempts: list[tuple[float, str, str]] = []

    def bans(self, now: float, address: str, unknown: str) -> str | None:
        """Record an attempt and return the network that is banned for it."""
        length = {4: (32, 24), 6: (64, 48)}[6 if ":" in address else 4][self.rule == "prefix"]
        network = str(ip_network((address, length), strict=False))
        subject = str(ip_network((address, 64 if ":" in address else 32), strict=False))
        self.attempts.append((now, subject, unknown))
        inside = ip_network(network)
        mine = [
            (subject, account)
            for time, subject, account in self.attempts
            if now - time < self.window and ip_network(subject).version == inside.version
            if ip_network(subject).subnet_of(inside)  # type: ignore[arg-type]  # of one version
        ]
        subjects = {subject for subject, _ in mine}
        accounts = {account for _, account in mine} - {""}
        have = len(accounts) if self.rule == "enumeration" else len(mine)
        if have < self.number or (self.rule == "prefix" and len(subjects) < 3):
            return None
        self.attempts = [one for one in self.attempts if one[1] not in subjects]
        return network


def attempt(index: int, address: str, unknown: str) -> tuple[SecurityEvent, ...]:
    """Return the events of a proven attempt, under a Call-ID of its own."""
    call = b"%d" % index
    if unknown:
        question = probed(address, call, account=unknown, method="", transport=Transport.TLS)
        return question, failed(address, call, account="<unknown>", transport=Transport.TLS)
    return (failed(address, call, transport=Transport.TLS),)


ADDRESSES = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.3",
    "198.51.100.1",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:0:1::1",
]


def played(rule: str, waits: list[tuple[float, str, str]]) -> tuple[list[str | None], list[str | None]]:
    """Return what the guard and the model ban at each attempt."""
    guard, model, now = Player(rules=(rule,)), Model(rule), 0.0
    guarded: list[str | None] = []
    modelled = []
    for index, (wait, address, unknown) in enumerate(waits):
        now += wait
        bans = guard.play(at(now, *attempt(index, address, unknown))).bans
        assert len(bans) <= 1
        guarded.append(bans[0].split(" ")[2] if bans else None)
        modelled.append(model.bans(now, address, unknown))
    return guarded, modelled


def waits(window: float) -> st.SearchStrategy[list[tuple[float, str, str]]]:
    """Return attempts at such intervals that some leave a window of this length exactly."""
    wait = st.sampled_from([0.0, 1.0, window / 64, window / 16, window / 4, window / 2, window])
    unknown = st.sampled_from(["", "100", "101", "102", "103"])
    return st.lists(st.tuples(wait, st.sampled_from(ADDRESSES), unknown), max_size=120)


@pytest.mark.parametrize("rule", NUMBERS)
@given(data=st.data())
@settings(max_examples=2 * settings().max_examples)
def test_a_rule_decides_as_the_model_that_keeps_every_attempt(rule: str, data: st.DataObject) -> None:
    """The rule bans as the model does, for random times, addresses and accounts."""
    guarded, modelled = played(rule, data.draw(waits(NUMBERS[rule][1])))
    assert guarded == modelled


@pytest.mark.parametrize("rule", NUMBERS)
def test_the_model_itself_bans(rule: str) -> None:
    """Attempts close together fill each rule, so that the comparison includes bans."""
    attempts = [(1.0, ADDRESSES[n % 3], str(100 + n % 4)) for n in range(60)]
    guarded, modelled = played(rule, attempts)
    assert guarded == modelled
    assert any(modelled)


@pytest.mark.parametrize(
    ("rule", "number", "window"),
    [("guess", 5, 600.0), ("enumeration", 3, 600.0), ("slow", 20, 86_400.0), ("prefix", 20, 3_600.0)],
)
def test_an_attempt_leaves_its_window_after_exactly_its_length(rule: str, number: int, window: float) -> None:
    """The last attempt bans just before the first one leaves the window, and not after it has left."""
    senders = 3 if rule == "prefix" else 1
    for last, bans in ((window - 0.25, 1), (window, 0)):
        times = [0.0, *[1.0] * (number - 2), last]
        steps = [
            at(time, *attempt(n, f"192.0.2.{n % senders}", str(100 + n))) for n, time in enumerate(times)
        ]
        assert len(Player(rules=(rule,)).play(*steps).bans) == bans


def test_attempts_that_are_read_late_count_from_when_they_are_read() -> None:
    """A window uses the arrival time of each event."""
    steps: list[Step] = [
        at(n * 10.0, failed(call=b"%d" % n, transport=Transport.TLS, late=5.0)) for n in range(5)
    ]
    happened = Player().play(*steps)
    assert Counter(happened.counted_addresses) == {"192.0.2.7": 5}
    assert len(happened.bans) == 1


def test_an_attempt_that_waited_counts_from_its_report() -> None:
    """A report of chan_sip waits a second for another one, and then counts from its own arrival."""
    for later, bans in ((599.5, 1), (600.0, 0)):
        guard = Player(sources=("AMI", "log"), rules=("guess",))
        guard.play(at(0, wrong(call=b"0"), wrong_by_notice()), at(1.9, Tick()))
        rest = [one for n in range(1, 5) for one in (wrong(call=b"%d" % n), wrong_by_notice())]
        assert len(guard.play(at(later, *rest), at(601, Tick())).bans) == bans


def test_an_attempt_is_kept_for_the_whole_of_the_longest_window() -> None:
    """An attempt within the window counts, although an older one of another address is discarded."""
    guard = Player(rules=("slow",))
    mine = [at(14_000 + n, *attempt(n, "192.0.2.7", "")) for n in range(19)]
    guard.play(at(0, *attempt(100, "192.0.2.8", "")), *mine, at(86_500, Tick()))
    assert len(guard.play(at(99_000, *attempt(19, "192.0.2.7", ""))).bans) == 1
