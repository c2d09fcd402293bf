"""The operations during which system calls fail."""

import re
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from tests.faults.bed import BANNED, ENFORCE, LONG, OFF, Bed, Facts
from tests.judge.oracle import GUESSES
from tests.support.daemon import Completed
from tests.support.faults import wait_for
from tests.support.killing import guess

from ringfence import control
from ringfence.errors import ControlError, DaemonUnreachableError, Exit, RingfenceError

LIST = "LIST"
"""An argument: the file of the feed."""
GUESSER = "198.18.5.1"
TRIAL = 300.0
"""The length of a trial of the fence (seconds): more than a case takes."""
PATIENCE = 30.0
"""Seconds after which an operation has failed to end."""


class Outcome(Enum):
    """What the administrator learned."""

    DONE = auto()
    UNRECORDED = auto()  # in force, but the database lacks it
    REFUSED = auto()
    UNKNOWN = auto()  # the answer was lost, or the command ended with an error


@frozen
class Answer:
    """The answer to an operation, and its text."""

    outcome: Outcome
    text: str = ""


class Process(Enum):
    """The process whose calls fail."""

    RUNNING = auto()  # the daemon, between READY and its end
    STARTING = auto()  # the daemon, from its first step to READY
    COMMAND = auto()  # a command that asks the daemon
    ALONE = auto()  # a command without a daemon


def _same(facts: Facts) -> Facts:
    return facts


@frozen
class Operation:
    """One operation: ``act`` does it, and ``after`` returns the facts that follow from those before.

    ``empty``: before it, the folder is empty. ``earlier``: before it, the database is that of an earlier
    ringfence.
    """

    name: str
    act: Callable[[Bed], Answer]
    after: Callable[[Facts], Facts] = _same
    process: Process = Process.RUNNING
    empty: bool = False
    earlier: bool = False
    stops: bool = False
    is_in_file: bool = False
    """Whether it changes a file: the configuration, or the database if the command reaches no daemon.

    Then a daemon that lacks the change has it after a restart.
    """
    first: Callable[[Bed], object] | None = None
    """What is done before, while nothing fails; ``since`` returns the facts after that."""
    since: Callable[[Facts], Facts] = _same
    usual: Outcome = Outcome.DONE
    """The outcome while nothing fails."""
    keeps_records: bool = False
    """Whether the database keeps the bans that the kernel loses."""
    repeats: bool = False
    """Whether the daemon tries again by itself, although it has answered that it failed."""
    ends_with_daemon: bool = False
    """Whether a restart of the daemon undoes it."""
    is_certain: bool = False
    """Whether it must happen, whatever call fails once, except those that read the reports."""


def _ask(do: str, **arguments: Any) -> Callable[[Bed], Answer]:  # noqa: ANN401 - JSON
    def act(bed: Bed) -> Answer:
        reasons: list[str] = []
        path = Path(bed.guard.settings["control"]["socket"])
        try:
            result = control.ask(path, do, unrecorded=reasons, **arguments)
        except DaemonUnreachableError as error:
            return Answer(Outcome.UNKNOWN, str(error))
        except ControlError as error:
            return Answer(Outcome.REFUSED, str(error))
        # The removals of `unban` that the kernel refused are tried again, so they may be done later.
        if do != "unban" and isinstance(result, dict) and result.get("problems"):
            return Answer(Outcome.REFUSED, str(result))
        return Answer(Outcome.UNRECORDED, *reasons) if reasons else Answer(Outcome.DONE)

    return act


def _ended(done: Completed) -> Answer:
    """Return the answer that a command printed."""
    if done.returncode == Exit.DONE:
        return Answer(Outcome.DONE)
    outcome = Outcome.UNRECORDED if done.returncode == Exit.NOT_RECORDED else Outcome.UNKNOWN
    return Answer(outcome, done.stderr)


def _reload(bed: Bed) -> Answer:
    """Let SIGHUP switch off a rule; the log has the answer."""
    text = bed.guard.config.read_text("utf-8")
    on, off = (f"[rules.probe]\nenabled = {value}" for value in ("true", "false"))
    bed.guard.config.write_text(text.replace(on, off))
    bed.guard.reload()
    answers = re.compile(r"event=configuration\.(loaded|refused)(.*)")
    wait_for(PATIENCE, lambda: answers.search(bed.guard.log) or not bed.guard.running)
    found = answers.search(bed.guard.log)
    if found is None:
        return Answer(Outcome.UNKNOWN, "" if bed.guard.running else "the daemon ended")
    return Answer(Outcome.DONE) if found[1] == "loaded" else Answer(Outcome.REFUSED, found[2])


def _rotate(bed: Bed) -> Answer:
    """Rotate Asterisk's log as logrotate does; that the daemon follows is checked after each operation."""
    bed.log.rename(bed.log.with_suffix(".1"))
    bed.log.touch()
    with suppress(RingfenceError):  # the fault may concern this request
        bed.hears(0.5)
    return Answer(Outcome.UNKNOWN, "nobody waits for an answer")


def _guess(bed: Bed) -> Answer:
    """Let AMI report guesses until a rule bans their sender. The record of the ban may follow later."""
    events = "".join(guess(f"fault-{number}", GUESSER) for number in range(GUESSES))
    with suppress(ConnectionError):  # the fault has ended the daemon, or its connection
        bed.pbx.send(events.encode())
    wait_for(4.0, lambda: GUESSER in bed.kernel() or not bed.guard.running)
    outcome = Outcome.UNRECORDED if GUESSER in bed.kernel() else Outcome.UNKNOWN
    return Answer(outcome, "nobody waits for an answer")


def _begin(bed: Bed) -> Answer:
    """Let the daemon, which waits at its first step, go on until it is READY or ends."""
    guard = bed.guard
    guard.process.send_signal(signal.SIGCONT)
    wait_for(PATIENCE, lambda: guard.has_notified("READY=1") or not guard.running)
    if guard.running and guard.has_notified("READY=1"):
        return Answer(Outcome.DONE)
    return Answer(Outcome.UNKNOWN, guard.log)


def _stop(bed: Bed) -> Answer:
    bed.guard.process.send_signal(signal.SIGTERM)
    wait_for(PATIENCE, lambda: not bed.guard.running)
    if bed.guard.running:
        return Answer(Outcome.UNKNOWN)
    code = bed.guard.wait()
    return Answer(Outcome.DONE) if code == 0 else Answer(Outcome.UNKNOWN, bed.guard.log)


def _run(*arguments: str) -> Callable[[Bed], Answer]:
    """Run a command whose own calls fail."""

    def act(bed: Bed) -> Answer:
        line = [str(bed.list) if word is LIST else word for word in arguments]
        return _ended(bed.guard.command(*line, traced=bed.traced))

    return act


def _banned(facts: Facts) -> Facts:
    return evolve(facts, bans=facts.bans | {"198.18.2.1", "198.18.2.2"})


def _unbanned(facts: Facts) -> Facts:
    return evolve(facts, bans=facts.bans - {BANNED[0]})


def _all_unbanned(facts: Facts) -> Facts:
    return evolve(facts, bans=frozenset())


def _allowed(facts: Facts) -> Facts:
    return evolve(facts, allowed=facts.allowed | {"198.18.3.0/24"})


def _fed(facts: Facts) -> Facts:
    return evolve(facts, feeds=facts.feeds | {"office"})


def _admitted(facts: Facts) -> Facts:
    return evolve(facts, admitted=facts.admitted | {"198.18.4.0/24"})


def _ruled(facts: Facts) -> Facts:
    return evolve(facts, rules=facts.rules | {"probe"})


def _denied(facts: Facts) -> Facts:
    return evolve(facts, denied=facts.denied | {"198.18.6.0/24"})


def _disallowed(facts: Facts) -> Facts:
    return evolve(facts, allowed=facts.allowed - {"192.0.2.0/24"})


def _switched_off(facts: Facts) -> Facts:
    return evolve(facts, bans=frozenset(), switched=frozenset({OFF}))


def _switched_on(facts: Facts) -> Facts:
    return evolve(facts, bans=frozenset(BANNED), switched=frozenset())


def _enforced(facts: Facts) -> Facts:
    return evolve(facts, fenced=frozenset({ENFORCE}))


def _guessed(facts: Facts) -> Facts:
    return evolve(facts, bans=facts.bans | {GUESSER})


_BANS = ("198.18.2.1", "198.18.2.2")

OPERATIONS: Mapping[str, Operation] = {
    one.name: one
    for one in (
        Operation("ban", _ask("ban", networks=list(_BANS), seconds=LONG), _banned),
        Operation("unban", _ask("unban", networks=[BANNED[0]]), _unbanned),
        Operation("unban-all", _ask("unban", all=True), _all_unbanned),
        Operation("allow-add", _ask("allow_add", what=["198.18.3.0/24"]), _allowed),
        Operation("feeds-add", _run("feeds", "add", "office", "--file", LIST), _fed, is_in_file=True),
        Operation("fence", _ask("fence_admit", what="198.18.4.0/24", seconds=LONG), _admitted),
        Operation(
            "enforce",
            _ask("fence_enforce", seconds=TRIAL, force=True),
            _enforced,
            repeats=True,
            ends_with_daemon=True,
        ),
        Operation("reload", _reload, _ruled, is_in_file=True),
        Operation("rotation", _rotate, usual=Outcome.UNKNOWN),
        Operation("allow-remove", _ask("allow_remove", what=["192.0.2.0/24"]), _disallowed),
        Operation("deny-add", _ask("deny_add", what=["198.18.6.0/24"]), _denied),
        Operation("off", _ask("off"), _switched_off, keeps_records=True, repeats=True),
        Operation(
            "on",
            _ask("on"),
            _switched_on,
            first=lambda bed: bed.guard.ask("off"),
            since=_switched_off,
            repeats=True,
        ),
        Operation("guess", _guess, _guessed, usual=Outcome.UNRECORDED, is_certain=True),
        Operation("stop", _stop, stops=True),
        Operation("start-full", _begin, process=Process.STARTING),
        Operation("start-empty", _begin, process=Process.STARTING, empty=True),
        Operation("upgrade", _begin, process=Process.STARTING, earlier=True),
        Operation("ban-command", _run("ban", *_BANS, "--for", "30d"), _banned, Process.COMMAND),
        Operation(
            "allow-command",
            _run("allow", "add", "198.18.3.0/24"),
            _allowed,
            Process.COMMAND,
            is_in_file=True,
        ),
        Operation(
            "enforce-command",
            _run("fence", "enforce", "--force", "--for", f"{TRIAL:.0f}s"),
            _enforced,
            Process.COMMAND,
            repeats=True,
            ends_with_daemon=True,
        ),
        Operation(
            "feeds-command",
            _run("feeds", "add", "office", "--file", LIST),
            _fed,
            Process.COMMAND,
            is_in_file=True,
        ),
        Operation("unban-alone", _run("unban", BANNED[0]), _unbanned, Process.ALONE),
        Operation("restore", _run("restore"), process=Process.ALONE),
    )
}
"""The operations by their names."""
