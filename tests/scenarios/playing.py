"""Plays a scenario line by line; at the first line with another result it shows the transcript.

Results are compared line by line: all that happens between the times of a line and of the next one must stand
below it, and nothing else. The order within a line does not matter.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define
from structlog.testing import capture_logs
from tests.scenarios.deeds import Deed
from tests.scenarios.language import Scenario, Step
from tests.scenarios.outcomes import Outcome, What
from tests.scenarios.stage import SETTLES, Counted, Happened, Stage
from tests.scenarios.words import clock_text, duration_text

from ringfence.values.network import format_network

_MOST_SHOWN = 10


class DivergenceError(AssertionError):
    """A scenario with other results than it states; the text is the transcript with the differences."""


@define
class _Due:
    """The next repetition of an action. Earlier lines go first."""

    time: float
    line: int
    index: int
    deed: Deed

    def __lt__(self, other: "_Due") -> bool:
        return (self.time, self.line, self.index) < (other.time, other.line, other.index)


def play(scenario: Scenario) -> None:
    """Play a scenario with a database of its own; raise DivergenceError if a result differs."""
    with capture_logs() as logged, TemporaryDirectory() as folder:
        stage = Stage(scenario, Path(folder), logged)
        try:
            _Player(scenario, stage).play()
        finally:
            stage.close()


Missing = tuple[Outcome, str]
"""The result that is missing, and what happened instead."""

# For each state: the expected answer, and the text that is shown if the answer differs.
_STANDINGS = {
    What.BANNED: (True, "is not"),
    What.NOT_BANNED: (False, "is banned"),
    What.FRIEND: (True, "is not"),
    What.STRANGER: (False, "is a friend"),
}


class _Player:
    def __init__(self, scenario: Scenario, stage: Stage) -> None:
        self._scenario = scenario
        self._stage = stage
        self._due: list[_Due] = []

    def play(self) -> None:
        steps = self._scenario.steps
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            before = self._stage.counted
            if step.deed is not None:
                heappush(self._due, _Due(step.time, step.line, 0, step.deed))
                self._go_on(following)
                wrong = [*self._standings(step)]
            else:  # a line without an action asks for a state at its time
                self._stage.wait(step.time)
                wrong = [*self._standings(step)]
                self._go_on(following)
            self._compare(step, [*wrong, *self._counts(step, before)])
            self._stage.happened.clear()

    def _go_on(self, following: Step | None) -> None:
        """Do all that is due before the next line, and wait for it; at the end, for all that may follow."""
        until = following.time if following is not None else inf
        while self._due and self._due[0].time <= until:
            due = heappop(self._due)
            self._stage.wait(due.time)
            self._stage.do(due.deed, due.index)
            due.index += 1
            due.time += due.deed.every
            if due.index < due.deed.number and not due.deed.at_once:
                heappush(self._due, due)
        self._stage.wait(min(until, self._stage.now + SETTLES))
        if following is not None:
            self._stage.wait(until)

    # -- what must follow -------------------------------------------------------------------------------

    def _compare(self, step: Step, missing: list[Missing]) -> None:
        left = list(self._stage.happened)
        for outcome in sorted(step.outcomes, key=_is_vague):
            if outcome.what in (What.BAN, What.ALARM, What.CLEARS):
                found = [one for one in left if _is_it(outcome, one)][: outcome.number]
                taken = {id(one) for one in found}  # two that are alike are two
                left = [one for one in left if id(one) not in taken]
                if len(found) < outcome.number:
                    told = f"{len(found)} of {outcome.number}" if found else "did not follow"
                    missing.append((outcome, told))
        if left or missing:
            raise DivergenceError("\n".join(self._shown(step, left, missing)))

    def _standings(self, step: Step) -> Iterator[Missing]:
        """Yield each state that now differs from the transcript."""
        for outcome in step.outcomes:
            if outcome.what is What.ACTIVE:
                active = sum(
                    alarm.code == outcome.name and outcome.subject in ("", alarm.subject)
                    for alarm in self._stage.alarms.active
                )
                if active != outcome.number:
                    yield outcome, f"{active} are active"
            if outcome.what not in _STANDINGS or outcome.network is None:
                continue
            wanted, told = _STANDINGS[outcome.what]
            banned = outcome.what in (What.BANNED, What.NOT_BANNED)
            is_so = self._stage.is_banned if banned else self._stage.is_friend
            if is_so(outcome.network) is not wanted:
                yield outcome, told

    def _counts(self, step: Step, before: Counted) -> Iterator[Missing]:
        """Yield each number that differs from the transcript."""
        for outcome in step.outcomes:
            if outcome.what is What.COUNT:
                name = outcome.name.replace(" ", "_")
                number = getattr(self._stage.counted, name) - getattr(before, name)
                if number != outcome.number:
                    yield outcome, f"they are {number}"

    # -- how it is shown --------------------------------------------------------------------------------

    def _shown(self, step: Step, left: list[Happened], missing: list[Missing]) -> Iterator[str]:
        wrong = {outcome.line: told for outcome, told in missing}
        last = max([step.line, *(outcome.line for outcome in step.outcomes)])
        yield f"{self._scenario.name}.scenario goes another way in line {min(wrong, default=step.line)}:"
        for number, text in enumerate(self._scenario.lines[:last], 1):
            yield f"{'!!' if number in wrong else '  '}{number:4} | {text}".rstrip()
            if number in wrong:
                yield f"       ^ {wrong[number]}"
        for one in left[:_MOST_SHOWN]:
            yield f"++     | {clock_text(one.time)}  => {_text(one, self._scenario)}"
        if len(left) > _MOST_SHOWN:
            yield f"++     | and {len(left) - _MOST_SHOWN} more"
        if left:
            yield "       ^ happened, and is not written"


def _is_vague(outcome: Outcome) -> bool:
    """Whether an outcome matches more than one event, so that it takes what the others leave."""
    network = outcome.network
    return outcome.subject == "" and (network is None or network.num_addresses > 1)


def _is_it(outcome: Outcome, one: Happened) -> bool:
    if one.name != outcome.name or one.is_ban is not (outcome.what is What.BAN):
        return False
    if not one.is_ban:
        return one.is_cleared is (outcome.what is What.CLEARS) and outcome.subject in ("", one.subject)
    assert one.network is not None
    assert outcome.network is not None
    same = outcome.network == one.network
    inside = outcome.is_within and one.network.version == outcome.network.version
    if not same and not (inside and one.network.subnet_of(outcome.network)):  # type: ignore[arg-type]
        return False
    terms = (one.seconds, one.only_sip) == (outcome.seconds, outcome.only_sip)
    return terms and outcome.after in (None, one.after)


def _text(one: Happened, scenario: Scenario) -> str:
    """Return an event as a transcript would state it."""
    if not one.is_ban:
        name = _name(one.subject, scenario)
        return f"alarm {one.name}{f' for {name}' if name else ''}{' clears' * one.is_cleared}"
    assert one.network is not None
    sip = ", UDP to the SIP ports" if one.only_sip else ""
    attempts = f"after {one.after} attempt{'s' * (one.after != 1)}"
    length, name = duration_text(one.seconds), _name(format_network(one.network), scenario)
    return f"ban of {name} by {one.name} for {length}{sip}, {attempts}"


def _name(text: str, scenario: Scenario) -> str:
    names = {format_network(network): name for name, network in scenario.names.items()}
    return " ".join(names.get(word, word) for word in text.split(" "))
