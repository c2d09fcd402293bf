"""The number of answers to guesses that Asterisk does not report, or whose log lines name a stranger.

Each attack has its own Asterisk and daemon, and each trial its own address, from which it guesses at full
speed. ringfence reads AMI, the log and the wire. Only the senders' addresses may be banned. fail2ban is
measured only with the attack that forges lines, with 300 guesses in each trial.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen
from tests.bench.attacks import OTHERS_TRIALS, THRESHOLD
from tests.bench.figures import Figure, spread, unrationed
from tests.bench.testbed import GUESS, PLACED, bed, peer_bed
from tests.support.captures import FORGED
from tests.support.hostile_run import QUICK, findings
from tests.support.hostile_text import LIMITS
from tests.support.lab import RELEASES, Lab

MOST = THRESHOLD + 1
TRIALS = 6
GUESSES = 3_000
"""The number of guesses that would be answered without a guard."""
OTHERS_GUESSES = 300
EVERY = 5
"""One case of hostile text in so many is run: all of them take forty minutes. Each day has its own ones."""
_REST = 0.05  # seconds

_DIGEST = (
    r'Authorization: Digest username="alice", realm="asterisk", nonce="{}", uri="sip:x", response="0"\r\n'
)


@frozen
class Attack:
    """A way to hide guesses or to frame an address: the client's arguments, and the network of its trials."""

    name: str
    options: tuple[str, ...]
    network: str
    blames: bool = False

    def source(self, trial: int) -> str:
        """Return the source address of a trial."""
        return f"{self.network}.{trial}"


ATTACKS = (
    Attack("a Call-ID that is not UTF-8", ("--call-id", r"\xff{}"), "198.19.5"),
    Attack(
        f"the same, and an ESC that makes the log name {FORGED}",
        (
            *("--call-id", rf"{{}}\xffm\" <sip:a@h>' failed for '{FORGED}:5060' (callid: zz{{}}"),
            *("--display", r'"x\x1b" '),
        ),
        "198.19.6",
        blames=True,
    ),
    Attack(
        "two Authorization headers, the first always the same, and one Call-ID",
        ("--before-digest", _DIGEST.format("0"), "--call-id", "one-for-all"),
        "198.19.7",
    ),
    Attack(
        "two Authorization headers, the first with a nonce that is not UTF-8",
        ("--before-digest", _DIGEST.format(r"\xff")),
        "198.19.8",
    ),
)


@frozen
class Outcome:
    """The trials of one attack: the answered guesses of each, and the other addresses that were banned."""

    answered: tuple[int, ...]
    others: tuple[str, ...]

    def __str__(self) -> str:
        others = f"banned as well: {', '.join(self.others)}" if self.others else "nobody else banned"
        return f"{spread(self.answered)}; {others}"


def _answered(lab: Lab, attack: Attack, trial: int, number: int) -> int:
    result = lab.attack("guess", "--number", str(number), "--sources", attack.source(trial), *attack.options)
    time.sleep(_REST)
    return result.answered


def ours(attack: Attack) -> Outcome:
    """Measure ringfence."""
    trials = range(1, TRIALS + 1)
    with bed(GUESS) as here:
        answered = tuple(_answered(here.lab, attack, trial, GUESSES) for trial in trials)
        others = here.guard.banned() - {attack.source(trial) for trial in trials}
    return Outcome(answered, tuple(sorted(others)))


def theirs(root: Path, attack: Attack) -> Outcome:
    """Measure fail2ban; each trial begins after it has read its log."""
    answered = []
    trials = range(1, OTHERS_TRIALS + 1)
    with peer_bed(root) as (lab, guard):
        for trial in trials:
            answered.append(_answered(lab, attack, trial, OTHERS_GUESSES))
            guard.settle()
        others = guard.banned() - {attack.source(trial) for trial in trials}
    return Outcome(tuple(answered), tuple(sorted(others)))


def seed_of_today() -> int:
    """Return the seed of today's cases: the number of the day."""
    return datetime.now(UTC).toordinal()


def figures(root: Path | None) -> Iterator[Figure]:
    """Measure both; yield a row for each attack, and four for hostile text."""
    for attack in ATTACKS:
        outcome = ours(attack)
        must, reached = unrationed(outcome.answered, MOST)
        yield Figure(
            what=f"guesses answered with all three sources: {attack.name}",
            measured=str(outcome),
            must=f"{must}, and nobody else banned",
            reached=reached and not outcome.others,
            compared=_compared(root, attack),
            cores=PLACED,
        )
    yield from _texts()


def _texts() -> list[Figure]:
    """Run cases of hostile text against Asterisk 16 and 22, and return the rows of both."""
    began, seed = time.monotonic(), seed_of_today()
    found = findings(RELEASES, EVERY, seed)
    cases = sum(one.cases for one in found)
    framed = {address: names for one in found for address, names in one.framed.items()}
    uncounted = {name: came for one in found for name, came in one.uncounted.items()}
    late = {name: came for one in found for name, came in one.late.items()}
    doubled = {name: came for one in found for name, came in one.doubled.items()}
    silent = sorted({way for one in found for way in one.silent})
    took = time.monotonic() - began
    return [
        Figure(
            what=(
                f"hostile text, each {EVERY}th case (of fields, characters, lines, transports, settings; "
                f"seed {seed}; {cases} cases in {took:.0f} s): bans of addresses that sent nothing"
            ),
            measured=f"{_count(framed)}{''.join(f'; nobody was answered by {way}' for way in silent)}",
            must="0, and guesses are answered by each transport",
            reached=not framed and not silent,
        ),
        Figure(
            what=(
                f"then: cases whose sender was not banned by {QUICK.attempts + 3} guesses at a threshold "
                f"of {QUICK.attempts}; known limits ({len(LIMITS)}) aside"
            ),
            measured=_count(uncounted),
            must="0",
            reached=not uncounted,
        ),
        Figure(
            what=f"then: cases whose sender was banned after more than {QUICK.attempts + 1} answers",
            measured=_count(late),
            must="0",
            reached=not late,
        ),
        Figure(
            what="then: cases at a second address, in a container or with two Asterisks counted twice",
            measured=_count(doubled),
            must="0",
            reached=not doubled,
        ),
    ]


def _count(found: Mapping[str, str]) -> str:
    """Return the number of cases, with the first of them, as text."""
    first = next(iter(found.items()), None)
    return "0" if first is None else f"{len(found)}, as {first[0]}: {first[1]}"


def _compared(root: Path | None, attack: Attack) -> str:
    if root is None or not attack.blames:
        return ""
    return f"fail2ban, of {OTHERS_GUESSES}: {theirs(root, attack)}"
