"""The number of events that ringfence loses while guesses come as fast as possible.

Three callers at a time guess: first each waits for the answer to its last guess, then each has up to 32
unanswered guesses, and last the lines of the log come ten seconds late, too. Each caller stays below the
threshold, so that there is no ban and no dropped packet.
Afterwards the counts of ringfence are compared with Asterisk's own file and with the callers' answers:

- each answered request is one challenge on the wire and one security event, on AMI and in the file;
- each refused guess is one ChallengeResponseFailed, and that is one attempt;
- each guess that Asterisk drops and so never answers may be one attempt more.

A SECURITY line that ringfence skips, because AMI delivers its event, counts as read. Lines that Asterisk
leaves out of its file (``Log queue threshold (1000) exceeded``) are counted separately. An event that
does not come by AMI counts as lost by ringfence, even if Asterisk lost it.
"""

import os
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, bed, only
from tests.support.daemon import Guard
from tests.support.lab import Lab

CALLERS = 50
"""The number of sources in a round, three of them at a time."""
GUESSES = 400
"""The guesses of each source: below the threshold even if each counted twice."""
THRESHOLD = 1_000
LEAST = 1_000
"""The least number of answered guesses that are a load."""
MOST_LOST = 0.5
"""The share of the copied packets that may be lost: the load is all that both processors can handle.

The guard needs more time for a guess than Asterisk does. So the kernel's buffer of copies becomes full, on a
fast machine by callers that wait for answers, too. The attempts count all the same.
"""
_MOST_ROUNDS = 200
_HIDDEN_AFTER = 6.0  # seconds after which an unreported attempt counts as hidden
_REST_WITHIN = 180.0
_COPY_EVERY = 0.05

_SECURITY = b" SECURITY["
_PJSIP = b',Service="PJSIP",'
_REFUSED = b'SecurityEvent="ChallengeResponseFailed"'
_NOTICE = b" NOTICE["


@frozen
class Pace:
    """The speed of the guesses: the client's arguments, and the duration (seconds)."""

    name: str
    options: tuple[str, ...]
    seconds: float
    late: float = 0.0
    """How much later each line is in the log that ringfence reads (seconds)."""


ONE_BY_ONE = Pace("each after the answer to the one before", ("guess",), 30.0)
PIPELINED = Pace("32 of each caller's on the way", ("pipeline", "--window", "32", "--timeout", "0.2"), 20.0)
"""More than Asterisk can handle, so it drops requests, and unread events must wait."""
LATE = Pace(
    "32 of each caller's on the way, and each line of the log 10 s late", PIPELINED.options, 5.0, 10.0
)


@frozen
class Load:
    """The callers' results: guesses sent and answered, answered requests (each by a challenge), the time."""

    sent: int
    guesses: int
    requests: int
    seconds: float


@frozen
class Run:
    """The load, the lines in Asterisk's file about it, and ringfence's counts of it."""

    load: Load
    lines: Counter[str]
    events: Counter[str]
    attempts: int
    hidden: int
    banned: int
    reported: int = field(init=False)

    @reported.default
    def _reported(self) -> int:
        """Return the minimum number of requests that Asterisk reported."""
        return max(self.load.requests, self.lines["requests"], self.events["wire"])

    @property
    def lost(self) -> dict[str, int]:
        """By source: the number of reported requests that it missed."""
        return {
            "AMI": self.reported - self.events["ami"],
            "log": self.lines["evidence"] - self.events["log"],
            "wire": self.reported - self.events["wire"],
        }

    @property
    def unwritten(self) -> int:
        """The number of security events that Asterisk left out of its own file."""
        return self.reported - self.lines["requests"]


def load(lab: Lab, pace: Pace) -> Load:
    """Run the callers, round after round, until the time is over."""
    sent = guesses = requests = 0
    began = time.monotonic()
    for number in range(1, _MOST_ROUNDS):
        result = lab.attack(
            *(*pace.options, "--number", str(GUESSES), "--parallel", "3", "--seconds", "10"),
            *("--sources", f"198.19.{number}.1-198.19.{number}.{CALLERS}"),
        )
        sent += result.sent
        guesses += result.answered
        requests += result.answered + result.challenges_answered
        if time.monotonic() - began >= pace.seconds:
            break
    return Load(sent, guesses, requests, time.monotonic() - began)


def lines_after(path: Path, offset: int) -> Counter[str]:
    """Count the lines of a log after ``offset``: of evidence, of requests, and of refused guesses."""
    found: Counter[str] = Counter()
    with path.open("rb") as log:
        log.seek(offset)
        for line in log:
            if _SECURITY in line:
                found["evidence"] += 1
                found["requests"] += _PJSIP in line
                found["refused"] += _PJSIP in line and _REFUSED in line
            elif _NOTICE in line:
                found["evidence"] += 1
    return found


def events_of(status: dict[str, Any]) -> Counter[str]:
    """Return the number of events of each source, with those that a log skipped; for the wire, challenges."""
    kinds = {"pbx/ami": "ami", "wire": "wire"}
    return Counter(
        {
            kinds.get(source["name"], "log"): source["events"] + source.get("skipped", 0)
            for source in status["sources"]
        }
    )


@contextmanager
def delayed(written: Path, read: Path, seconds: float) -> Iterator[None]:
    """Copy what is appended to a log into another one, ``seconds`` later."""
    stop = threading.Event()
    waiting: deque[tuple[float, bytes]] = deque()

    def run() -> None:
        with written.open("rb") as source, read.open("ab", buffering=0) as target:
            source.seek(0, os.SEEK_END)
            while not stop.wait(_COPY_EVERY):
                if new := source.read():
                    waiting.append((time.monotonic() + seconds, new))
                while waiting and time.monotonic() >= waiting[0][0]:
                    target.write(waiting.popleft()[1])

    copying = threading.Thread(target=run, name="a late log")
    copying.start()
    try:
        yield
    finally:
        stop.set()
        copying.join()


def measured(pace: Pace) -> Run:
    """Run the load with a daemon, wait until it has read everything, and compare."""
    rules = only(guess={"attempts": THRESHOLD, "window": "10s"})
    with ExitStack() as stack:
        logs: dict[str, Any] = {}
        read = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "late"
        if pace.late:
            read.touch()
            logs = {"logs": {"paths": [str(read)], "timezone": "UTC"}}
        here = stack.enter_context(bed(rules, **logs))
        log = here.lab.asterisk.logs / "ringfence"
        if pace.late:
            stack.enter_context(delayed(log, read, pace.late))
        offset, before = log.stat().st_size, here.guard.status()
        seen = load(here.lab, pace)
        time.sleep(pace.late)
        after = _at_rest(here.guard)
        return Run(
            load=seen,
            lines=lines_after(log, offset),
            events=events_of(after) - events_of(before),
            attempts=after["attempts"] - before["attempts"],
            hidden=after["hidden"] - before["hidden"],
            banned=after["placed"] - before["placed"],
        )


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows; fail2ban is not measured here."""
    for pace in (ONE_BY_ONE, PIPELINED, LATE):
        run = measured(pace)
        yield _events(pace, run)
        yield _attempts(run)


def _events(pace: Pace, run: Run) -> Figure:
    lost = {name: number for name, number in run.lost.items() if number > 0}
    missed = f" ({', '.join(f'{name}: {number}' for name, number in lost.items())})" if lost else ""
    total = sum(lost.values())
    left = f"; Asterisk left {run.unwritten} out of its file" if run.unwritten else ""
    bans = f"; {run.banned} bans" if run.banned else ""
    speed = run.load.guesses / run.load.seconds
    if lost.get("wire", 0) <= MOST_LOST * run.reported:
        lost.pop("wire", None)
    return Figure(
        what=f"events lost in {pace.seconds:.0f} s of guesses at full speed, all sources: {pace.name}",
        measured=(f"{total} of {sum(run.events.values())}{missed}, at {speed:.0f} guesses/s{left}{bans}"),
        must=f"0, and no ban; the wire ≤ {MOST_LOST:.0%}: its buffer is bounded, and the load is not",
        reached=not lost and not run.banned and run.load.guesses >= LEAST,
        cores=PLACED,
    )


def _attempts(run: Run) -> Figure:
    """Return the row of the attempts: those that Asterisk refused, and those that it never answered.

    Under a load that it cannot handle, PJSIP drops requests. So a guess without an answer counts as blind.
    """
    refused, sent = run.lines["refused"], run.load.sent
    return Figure(
        what="attempts counted then, of the guesses that Asterisk refused, and of those sent",
        measured=f"{run.attempts} of {refused} and {sent} ({run.hidden} by the wire alone)",
        must="as many as refused, at most as many as sent",
        reached=refused <= run.attempts <= sent,
        cores=PLACED,
    )


def _at_rest(guard: Guard) -> dict[str, Any]:
    """Wait until the counts stop growing; return the status then."""
    deadline = time.monotonic() + _REST_WITHIN
    before: tuple[object, ...] = ()
    while time.monotonic() < deadline:
        status = guard.status()
        now = events_of(status), status["attempts"]
        if now == before:
            return status
        before = now
        time.sleep(_HIDDEN_AFTER)
    raise TimeoutError(f"ringfence still reads events {_REST_WITHIN:.0f} s after the last guess")
