"""The number of answers to guesses that a hostile reading found uncounted: its recipes (a) to (g).

The recipes are in :mod:`tests.support.uncounted`; ringfence reads all sources. The rows share three Asterisks
with their guards, and each trial has its own address. Only the rule ``guess`` is on, and in the last row
``prefix`` and ``distributed`` too. The first row has the ration, as by default: answers that have waited in a
closed window leave together.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen
from tests.bench.attacks import THRESHOLD
from tests.bench.figures import Figure, spread
from tests.bench.testbed import GUESS, PLACED, Bed, bed, only
from tests.support import open_pbx, uncounted
from tests.support.daemon import until
from tests.support.guarded import until_rationed
from tests.support.sip_raw import answered_within_segments

TRIALS = 3
MOST = THRESHOLD + 1
MANY = 60
MOST_OF_ROTATION = 25
ALARMS = {"attack.distributed", "password.guessed"}
_BANNED_WITHIN = 15.0
"""Seconds within which a ban must follow: a guess whose answer does not leave counts after eight."""
_BLIND = 40.0
"""The greatest number of seconds of a blind trial: longer than a nonce lives."""
_FORGEABLE = "a forger can send the same, so its ban is narrow"

Recipe = Callable[[Bed, str], int]
"""An attack from an address; returns the number of answered guesses."""


@frozen
class Row:
    """A recipe, and the scope of the ban that must follow."""

    what: str
    recipe: Recipe
    scope: str = "sip"


CLOSED_WINDOW = Row(
    "(a) hidden, by TCP with a closed window filled with answers to BYE, all sent at once (with the ration)",
    lambda here, source: answered_within_segments(here.lab, source),
)
ROWS_22 = (
    Row(
        "(b) hidden, blind, one a second, one challenge each 30 s (guesses until the ban)",
        lambda here, source: uncounted.blind(here.lab, source, _BLIND, lambda: source in here.guard.banned()),
    ),
    Row(
        "(c) a Call-ID of 512 bytes, two Authorization headers, each guess paid by an event",
        lambda here, source: uncounted.paid_by_events(here.lab, source, MANY),
    ),
    Row(
        "(d) at a second address of the PBX",
        lambda here, source: uncounted.at_second_address(here.lab, source, MANY, hidden=False),
    ),
    Row(
        "(d) the same, hidden",
        lambda here, source: uncounted.at_second_address(here.lab, source, MANY, hidden=True),
    ),
    Row(
        "(e) behind an Authorization header of garbage",
        lambda here, source: uncounted.behind_garbage(here.lab, source, MANY),
    ),
    Row(
        "(g) under one Call-ID, each reported by other sources, in turn",
        lambda here, source: uncounted.in_turn(here.lab, source, MANY),
    ),
)


def _invented(method: bytes, transport: str) -> Recipe:
    return lambda here, source: uncounted.with_invented_nonce(here.lab, source, MANY, method, transport)


ROWS_16 = (
    Row(
        f"(f) chan_sip, REGISTER by UDP with an invented nonce ({_FORGEABLE})",
        _invented(b"REGISTER", "UDP"),
        "sip-udp",
    ),
    Row("(f) chan_sip, MESSAGE by UDP, the same", _invented(b"MESSAGE", "UDP"), "sip-udp"),
    Row("(f) chan_sip, MESSAGE by TCP, the same", _invented(b"MESSAGE", "TCP")),
)


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    with bed(GUESS, extra=uncounted.configured(), firewall={"ration": {}}) as here:
        until_rationed(here.guard)
        yield _measured(here, CLOSED_WINDOW, "198.19.1.")
    for release, extra, rows in (
        ("22", uncounted.configured(), ROWS_22),
        ("16", open_pbx.configured("16"), ROWS_16),
    ):
        with bed(GUESS, release=release, extra=extra) as here:
            uncounted.add_second_address(here.lab)
            for number, row in enumerate(rows, 1):
                yield _measured(here, row, f"198.19.{number}.")
    yield _rules()


def _rules() -> Figure:
    """Rotate guesses behind a header of garbage over a network, over an account, and guess right."""
    rules = only(guess={}, prefix={}, distributed={})
    with bed(rules, extra=open_pbx.configured("22")) as here:
        answered = uncounted.rotate_behind_garbage(here.lab)
        until(lambda: "password.guessed" in _alarms(here), "the alarm")
        alarms = _alarms(here)
        ban = next((row for row in here.guard.bans() if row["address"] == "198.19.200.0/24"), {})
    found = ban.get("rule", "no ban"), *sorted(alarms & ALARMS)
    return Figure(
        what="(e) the same, of a /24, on one account, and right in the end: answers to the /24; reported by",
        measured=f"{answered}; {', '.join(found)}",
        must=f"≤ {MOST_OF_ROTATION}; prefix, {', '.join(sorted(ALARMS))}",
        reached=answered <= MOST_OF_ROTATION and found == ("prefix", *sorted(ALARMS)),
        cores=PLACED,
    )


def _alarms(here: Bed) -> set[str]:
    return {alarm["code"] for alarm in here.guard.status()["alarms"]}


def _measured(here: Bed, row: Row, network: str) -> Figure:
    answered, scopes = [], []
    for trial in range(1, TRIALS + 1):
        source = f"{network}{trial}"
        answered.append(row.recipe(here, source))
        scopes.append(_scope(here, source))
    others = sorted({scope or "none" for scope in scopes if scope != row.scope})
    return Figure(
        what=f"guesses answered: {row.what}; all sources",
        measured=f"{spread(answered)}; {scopes.count(row.scope)} {row.scope} bans"
        + (f" (else {', '.join(others)})" if others else ""),
        must=f"≤ {MOST} and a {row.scope} ban in every trial",
        reached=max(answered) <= MOST and not others,
        cores=PLACED,
    )


def _scope(here: Bed, source: str) -> str:
    """Return the scope of the ban of an address, empty if none follows in time."""
    end = time.monotonic() + _BANNED_WITHIN
    while True:
        scopes = {row["address"]: row["scope"] for row in here.guard.bans()}
        if source in scopes or time.monotonic() > end:
            return str(scopes.get(source, ""))
        time.sleep(0.1)
