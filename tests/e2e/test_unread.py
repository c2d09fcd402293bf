"""Hidden guesses of a sender that reads no answer: they count by what Asterisk's host has acknowledged."""

import pytest
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, shared
from tests.support.lab import Lab
from tests.support.unread import BYE, FOLDED, unread

pytestmark = pytest.mark.asterisk

MANY = 60
PAUSE = 0.2
"""Seconds between two guesses: the daemon of a busy machine needs some time for the ban."""
MOST = 25
FEW = 12
"""A limit for guesses that the wire reads: it also holds on a busy machine."""


@pytest.mark.parametrize(("transport", "host"), [("TLS", 1), ("WSS", 2)])
def test_guesses_without_answers_end(open22: Lab, transport: str, host: int) -> None:
    """By TLS some twenty are checked, with a closed window and without a log; the right one is not."""
    source = f"198.19.14{host}.1"
    with shared(open22, logs=NO_LOGS) as guard, unread(open22, source, transport) as guesser:
        guesser.guess(MANY, pause=PAUSE, stopped=lambda: source in guard.banned())
        until(lambda: guard.scopes() == {source: "sip-tcp"}, "the ban")

        assert guesser.checked <= MOST
        assert not guesser.registered
        assert {one["kind"] for one in guard.attempts_of(source)} == {"unexplained"}


@pytest.mark.parametrize(
    ("transport", "host", "fragments"), [("TCP", 3, 1), ("WS", 4, 1), ("WS", 5, 3), ("WS", 6, 2)]
)
def test_guesses_behind_a_fold_or_in_fragments_end(
    open22: Lab, transport: str, host: int, fragments: int
) -> None:
    """In clear text each guess is read, although the window is full of answers to BYE."""
    source = f"198.19.14{host}.1"
    with shared(open22, logs=NO_LOGS) as guard, unread(open22, source, transport, fragments=fragments) as one:
        one.fill(FOLDED if fragments == 1 else BYE)
        one.guess(MANY, pause=0.5, stopped=lambda: source in guard.banned())
        print("checked", one.checked, "bans", guard.bans())
        until(lambda: guard.scopes() == {source: "sip"}, "the ban")

        assert one.checked <= FEW
        assert not one.registered
