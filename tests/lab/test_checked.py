"""The count of checked guesses, on an Asterisk that has no guard."""

from collections.abc import Iterator

import pytest
from tests.support import checked
from tests.support.checked import AT_ONCE, HIDDEN, Checked, Trace, Trial, Way, traced
from tests.support.lab import Lab

pytestmark = pytest.mark.asterisk


@pytest.fixture(scope="module")
def trace() -> Iterator[Trace]:
    """Yield the trace of an Asterisk without a guard, which answers by every transport."""
    with Lab.made("22", checked.configured()) as lab, traced(lab) as trace:
        checked.route(lab)
        yield trace


def all_checked(trace: Trace, number: int) -> Trial:
    """Return a trial whose guesser stops when Asterisk has checked sixty guesses."""
    return Trial(trace.lab, number, right_at=40, is_over=lambda _: trace.total(number) == 60)


@pytest.mark.parametrize(
    ("number", "transport", "version"),
    [(1, "UDP", 4), (2, "TCP", 4), (3, "TLS", 4), (4, "WS", 4), (5, "UDP", 6), (6, "TCP", 6), (7, "TLS", 6)],
)
def test_every_pipelined_guess_counts_and_the_right_one_registers(
    trace: Trace, number: int, transport: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 guesses at once, 59 are refused, and the fortieth, which is right, registers."""
    monkeypatch.setitem(AT_ONCE, transport, 60)
    found = trace.count((checked.pipelined(transport, version), all_checked(trace, number)))
    assert found == [Checked(59, registered=1)]
    if transport != "WS":  # its contact ends with its connection
        assert f"sip:g40@198.18.3.{number} " in trace.lab.asterisk.cli("pjsip show contacts")


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (10, checked.unread("TLS")),
        (11, checked.out_of_step("TCP")),
        (12, checked.out_of_step("WS")),
        (13, checked.as_friend("TCP")),
    ],
)
def test_hidden_guesses_count_though_no_answer_is_read(trace: Trace, number: int, way: Way) -> None:
    """Hidden guesses behind a closed window count, and the right one registers."""
    found = trace.count((way, all_checked(trace, number)))
    assert found == [Checked(59, registered=1)]


def test_guesses_from_many_addresses_count_together(trace: Trace) -> None:
    """Guesses from many addresses with two Vias count as one attack."""
    way = checked.rotating(lambda trial: [trial.in_64(number) for number in range(15)], 4)
    assert trace.count((way, all_checked(trace, 20))) == [Checked(59, registered=1)]


def test_a_guess_without_the_right_password_never_registers(trace: Trace) -> None:
    """A run whose right guess is not sent registers nothing; trials at once are counted apart."""
    trials = [Trial(trace.lab, number, right_at=number) for number in (30, 61)]
    way = checked.rotating(lambda trial: [trial.address()], 60, HIDDEN)
    found = trace.count(*((way, trial) for trial in trials))
    assert found == [Checked(59, registered=1), Checked(60, registered=0)]
