"""Whether ringfence misses anything of what Asterisk tells while guesses come as fast as they can.

Three callers at a time guess, each guess after the answer to the one before, and then with 32 guesses each on
the way; Asterisk, they and ringfence share the processors. Each caller stays below the threshold, so
nobody is banned and nothing is dropped. Afterwards what ringfence counted is held against Asterisk's own file
and against what the callers received:

- each answered request is one challenge on the wire and one security event, on AMI and in the file;
- each refused guess is one ChallengeResponseFailed, and that is one attempt.

What Asterisk itself leaves out of its file (``Log queue threshold (1000) exceeded``) is said by itself; what
does not come by AMI counts as lost by ringfence, whoever lost it.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import field, frozen
from tests.bench.figures import Figure
from tests.support.daemon import Guard
from tests.support.guarded import guarded
from tests.support.lab import Lab

CALLERS = 50
"""So many sources make a round, three of them at a time."""
GUESSES = 400
"""From each source: below the threshold even if each should be counted twice."""
THRESHOLD = 1_000
_MOST_ROUNDS = 200
_HIDDEN_AFTER = 6.0  # seconds: what is not told by then is taken for hidden
_REST_WITHIN = 180.0

_SECURITY = b" SECURITY["
_PJSIP = b',Service="PJSIP",'
_REFUSED = b'SecurityEvent="ChallengeResponseFailed"'
_NOTICE = b" NOTICE["


@frozen
class Pace:
    """How fast guesses come: what the client is asked for, and for how long (seconds)."""

    name: str
    options: tuple[str, ...]
    seconds: float


ONE_BY_ONE = Pace("each after the answer to the one before", ("guess",), 60.0)
PIPELINED = Pace("32 of each caller's on the way", ("pipeline", "--window", "32", "--timeout", "0.2"), 20.0)
"""More than three times as many, and more than both processors can do: what is not read in time must wait."""


@frozen
class Load:
    """What the callers saw: guesses answered, requests answered (each by a challenge), and in what time."""

    guesses: int
    requests: int
    seconds: float


@frozen
class Run:
    """The load, what stands in Asterisk's file for it, and what ringfence counted of it."""

    load: Load
    lines: Counter[str]
    heard: Counter[str]
    attempts: int
    hidden: int
    banned: int
    told: int = field(init=False)

    @told.default
    def _told(self) -> int:
        """Give how many requests Asterisk told of at least."""
        return max(self.load.requests, self.lines["requests"], self.heard["wire"])

    @property
    def lost(self) -> dict[str, int]:
        """How much of what was told each source missed."""
        return {
            "AMI": self.told - self.heard["ami"],
            "log": self.lines["evidence"] - self.heard["log"],
            "wire": self.told - self.heard["wire"],
        }

    @property
    def unwritten(self) -> int:
        """How many security events Asterisk left out of its own file."""
        return self.told - self.lines["requests"]


def load(lab: Lab, pace: Pace) -> Load:
    """Let callers guess, round after round, until the time is over."""
    guesses = requests = 0
    began = time.monotonic()
    for number in range(1, _MOST_ROUNDS):
        result = lab.attack(
            *(*pace.options, "--number", str(GUESSES), "--parallel", "3"),
            *("--sources", f"198.19.{number}.1-198.19.{number}.{CALLERS}"),
        )
        guesses += result.answered
        requests += result.answered + result.challenges_answered
        if time.monotonic() - began >= pace.seconds:
            break
    return Load(guesses, requests, time.monotonic() - began)


def lines_behind(path: Path, place: int) -> Counter[str]:
    """Count the lines of a log behind ``place``: of evidence, of requests, and of refused guesses."""
    found: Counter[str] = Counter()
    with path.open("rb") as log:
        log.seek(place)
        for line in log:
            if _SECURITY in line:
                found["evidence"] += 1
                found["requests"] += _PJSIP in line
                found["refused"] += _PJSIP in line and _REFUSED in line
            elif _NOTICE in line:
                found["evidence"] += 1
    return found


def heard(status: dict[str, Any]) -> Counter[str]:
    """Give the events of each source; of the wire, the challenges."""
    kinds = {"pbx/ami": "ami", "wire": "wire"}
    return Counter({kinds.get(source["name"], "log"): source["events"] for source in status["sources"]})


def measured(lab: Lab, pace: Pace) -> Run:
    """Run the load beside a daemon, wait until it has read all there is, and compare."""
    rules = {"guess": {"attempts": THRESHOLD, "window": "10s"}}
    log = lab.asterisk.logs / "ringfence"
    with tempfile.TemporaryDirectory() as folder, guarded(lab, Path(folder), rules=rules) as guard:
        place, before = log.stat().st_size, guard.status()
        seen = load(lab, pace)
        after = _at_rest(guard)
        return Run(
            load=seen,
            lines=lines_behind(log, place),
            heard=heard(after) - heard(before),
            attempts=after["attempts"] - before["attempts"],
            hidden=after["hidden"] - before["hidden"],
            banned=after["placed"] - before["placed"],
        )


def figures(lab: Lab, root: Path | None) -> list[Figure]:
    """Measure, and give the rows; fail2ban is not measured here."""
    steady = measured(lab, ONE_BY_ONE)
    with Lab.made("22") as another:  # where no source is known yet
        pressed = measured(another, PIPELINED)
    return [
        _events(ONE_BY_ONE, steady),
        Figure(
            what="attempts counted then, of the guesses that Asterisk refused",
            measured=_attempts(steady),
            must="as many",
            reached=steady.attempts == steady.lines["refused"],
        ),
        _events(PIPELINED, pressed),
        Figure(
            what="attempts counted then, of the guesses that Asterisk refused",
            measured=_attempts(pressed),
            must="none missed",
            reached=pressed.attempts >= pressed.lines["refused"],
        ),
    ]


def _events(pace: Pace, run: Run) -> Figure:
    lost = {name: number for name, number in run.lost.items() if number}
    missed = f" ({', '.join(f'{name}: {number}' for name, number in lost.items())})" if lost else ""
    own = f"; Asterisk left {run.unwritten} out of its file" if run.unwritten else ""
    speed = run.load.guesses / run.load.seconds
    return Figure(
        what=f"events lost in {pace.seconds:.0f} s of guesses at full speed, all sources: {pace.name}",
        measured=f"{sum(lost.values())} of {sum(run.heard.values())}{missed}, at {speed:.0f} guesses/s{own}",
        must="0",
        reached=not lost and not run.banned,
    )


def _attempts(run: Run) -> str:
    return f"{run.attempts} of {run.lines['refused']} ({run.hidden} by the wire alone)"


def _at_rest(guard: Guard) -> dict[str, Any]:
    """Wait until nothing is counted any more; give the status then."""
    deadline = time.monotonic() + _REST_WITHIN
    before: tuple[object, ...] = ()
    while time.monotonic() < deadline:
        status = guard.status()
        now = heard(status), status["attempts"]
        if now == before:
            return status
        before = now
        time.sleep(_HIDDEN_AFTER)
    raise TimeoutError(f"ringfence is still busy {_REST_WITHIN:.0f} s after the last guess")
