"""How many guesses are answered to those who hide from what Asterisk tells, or make its log name a stranger.

Every trial comes from an address that was never seen before, guesses one after the other at full speed, and
ringfence hears AMI, the log and the wire. Nobody but the guessers may be banned: that a stranger is named is
what the forged lines are for. fail2ban reads those of one attack too, with 300 guesses a trial.
"""

import tempfile
import time
from pathlib import Path

from attrs import frozen
from tests.bench.fail2ban import Fail2ban
from tests.bench.figures import Figure, spread
from tests.support.captures import FORGED
from tests.support.guarded import guarded
from tests.support.lab import Lab

MOST = 7
TRIALS = 10
GUESSES = 3_000
"""So many would be answered if nobody stopped the guesser."""
OTHERS_TRIALS = 3
OTHERS_GUESSES = 300
_OTHERS_FIRST = 128
_REST = 0.05  # seconds

_DIGEST = (
    r'Authorization: Digest username="alice", realm="asterisk", nonce="{}", uri="sip:x", response="0"\r\n'
)


@frozen
class Attack:
    """A way to hide or to blame: what the client is asked for, and the network that its trials come from."""

    name: str
    options: tuple[str, ...]
    network: str
    blames: bool = False

    def source(self, trial: int) -> str:
        """Give a source that no other trial has."""
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
    """What came of the trials of one attack: the answered guesses of each, and who else was banned."""

    answered: tuple[int, ...]
    others: tuple[str, ...]

    def __str__(self) -> str:
        others = f"banned as well: {', '.join(self.others)}" if self.others else "nobody else banned"
        return f"{spread(self.answered)}; {others}"


def _answered(lab: Lab, attack: Attack, trial: int, number: int) -> int:
    result = lab.attack("guess", "--number", str(number), "--sources", attack.source(trial), *attack.options)
    time.sleep(_REST)
    return result.answered


def ours(lab: Lab) -> list[Outcome]:
    """Measure ringfence: every attack, one after the other, beside one daemon."""
    outcomes: list[Outcome] = []
    expected: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, guarded(lab, Path(folder)) as guard:
        for attack in ATTACKS:
            trials = range(1, TRIALS + 1)
            answered = tuple(_answered(lab, attack, trial, GUESSES) for trial in trials)
            expected |= {attack.source(trial) for trial in trials}
            outcomes.append(Outcome(answered, tuple(sorted(guard.banned() - expected))))
    return outcomes


def theirs(lab: Lab, root: Path, attack: Attack) -> Outcome:
    """Measure fail2ban, whose time to read its log is not charged to the next trial."""
    trials = range(_OTHERS_FIRST, _OTHERS_FIRST + OTHERS_TRIALS)
    answered = []
    with tempfile.TemporaryDirectory() as folder, Fail2ban(lab, root, Path(folder)) as guard:
        for trial in trials:
            answered.append(_answered(lab, attack, trial, OTHERS_GUESSES))
            guard.settle()
        # Those of our own trials it finds in the log as well, and rightly.
        strangers = guard.banned() & {str(FORGED)}
    return Outcome(tuple(answered), tuple(strangers))


def figures(lab: Lab, root: Path | None) -> list[Figure]:
    """Measure both, and give a row for each attack."""
    return [
        Figure(
            what=f"guesses answered with all three sources: {attack.name}",
            measured=str(outcome),
            must=f"≤ {MOST} in every trial, and nobody else banned",
            reached=max(outcome.answered) <= MOST and not outcome.others,
            compared=_compared(lab, root, attack),
        )
        for attack, outcome in zip(ATTACKS, ours(lab), strict=True)
    ]


def _compared(lab: Lab, root: Path | None, attack: Attack) -> str:
    if root is None or not attack.blames:
        return ""
    return f"fail2ban, of {OTHERS_GUESSES}: {theirs(lab, root, attack)}"
