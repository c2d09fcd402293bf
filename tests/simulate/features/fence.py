"""The fence in a story: trials in which it drops what strangers send, and addresses that it admits.

No trial is confirmed, and the longest one ends within the quiet. The process that ends a trial if the daemon
cannot does not run: the command starts it, and not the daemon.
"""
# ruff: noqa: ANN401 - a replaced function may be any

import json
import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from tests.simulate.feature import RETRIED_WITHIN, SOON, Stage, WatchedFeature
from tests.simulate.put_back import LATER, Row, does_nothing
from tests.simulate.step import Kinds, Step

from ringfence.control_server import Unrecorded
from ringfence.features.fence import network_list
from ringfence.features.fence.stage import FenceFilter
from ringfence.firewall import network_lists
from ringfence.firewall.limits import LimitMode
from ringfence.ledger import CLOCK_STEP

ADDRESSES = ("203.0.113.214", "203.0.113.215")
"""Addresses that only the fence admits. No sender of a story has them."""
_INSIDE = (network_lists.ALLOW, *network_lists.PASSING, network_list.LIST)
_RECORD = "SELECT value FROM facts WHERE name = 'fence'"

_FENCE = "ringfence.features.fence.firewall:Fence"
_TRIAL = (Step("fence", wait=0.0), Step("fence trial", wait=8.0, seconds=60.0))
_SHORT_TRIAL = (Step("fence", wait=0.0), Step("fence trial", wait=8.0, seconds=10.0))
_ADMITS = (Step("fence", wait=0.0), Step("fence admit", wait=8.0, number=1, seconds=60.0))


def _keeps_trial(right: Any) -> Any:
    def made(self: Any, side: Any) -> None:
        right(self, side)
        if (end := json.loads(self._written)["trial"]) is not None:
            self._state.trial = end
            self._trial_ends = self._clock.mono() + end - self._clock.wall()

    return made


def _forgets_end(right: Any) -> Any:
    def text(self: Any) -> Any:
        self._ended = None
        return right(self)

    return text


def _by_wall(_right: Any) -> Any:
    return property(lambda self: 0.0 if (end := self._state.trial) is None else end - self._clock.wall())


_FAULTS: Sequence[Row] = (
    (
        "a fence whose daemon stops",
        "The kernel went on to drop what strangers sent, and nobody ended the trial.",
        f"{_FENCE}.end_trial",
        lambda _right: lambda *_: False,
        "Y",
        [*_TRIAL, Step("stop", wait=3.0, seconds=2.0), LATER],
    ),
    (
        "a fence whose daemon is killed",
        "The next process continued a trial that had perhaps locked out phones.",
        f"{_FENCE}.__init__",
        _keeps_trial,
        "Y",
        [*_TRIAL, Step("kill", wait=3.0, seconds=0.1), LATER],
    ),
    (
        "the end of a fence that the kernel refuses",
        "The record of the trial was gone, so that only the daemon could end what the kernel dropped.",
        f"{_FENCE}._text",
        _forgets_end,
        "Y",
        [
            *_SHORT_TRIAL,
            Step("refuse", wait=9.0, number=6),
            Step("kill", wait=4.0, seconds=0.1),
            LATER,
        ],
    ),
    (
        "a fence while the clock is set back",
        "Its trial became longer by two hours.",
        f"{_FENCE}._left",
        _by_wall,
        "Y",
        [*_SHORT_TRIAL, Step("clock", wait=2.0, set=-7_200.0), LATER],
    ),
    (
        "a fence after damage",
        "The repaired rules only counted, although the trial went on.",
        "ringfence.guard.firewall_manager:RuleUpdates._check",
        does_nothing,
        "Y",
        [*_TRIAL, Step("damage", wait=3.0), Step("rotate", wait=20.0)],
    ),
    (
        "an admission while the clock is set back",
        "The fence admitted the address for two more hours.",
        f"{_FENCE}.on_fact",
        does_nothing,
        "Y",
        [*_ADMITS, Step("clock", wait=2.0, set=-7_200.0), LATER],
    ),
    (
        "an admission before a restart",
        "The fence did not admit the address any more.",
        f"{_FENCE}.save",
        does_nothing,
        "Y",
        [*_ADMITS, Step("kill", wait=2.0, seconds=0.1), Step("rotate", wait=20.0)],
    ),
)


def _admit(chosen: random.Random) -> Step:
    return Step("fence admit", number=chosen.randint(1, len(ADDRESSES)), seconds=chosen.choice((20.0, 60.0)))


@dataclass
class _Promise:
    """A trial, or the admission of an address, that was asked for. All times are monotonic seconds.

    It is certainly in force until ``must``, if the kernel does not fail, and over after ``may``.
    ``is_recorded``: the database has it. ``is_moved``: the clock was set since it was asked for.
    """

    asked: float = -inf
    must: float = -inf
    may: float = inf
    is_recorded: bool = False
    is_moved: bool = False


class Fence(WatchedFeature):
    """The fence, which an administrator starts only for trials.

    Invariant Y: the fence drops what strangers send while a trial runs, and neither after its end, nor after
    the daemon has stopped or begun. If the daemon is killed while it drops, the database has the trial. An
    address is admitted for its time, also after a restart, and no longer.

    A small step of the clock is none to the daemon, and moves the end of an admission. So nothing is known of
    this end any more. The same holds if a process ends after any step of the clock, or without its last
    writes.
    """

    kind = "fence"
    letter = "Y"
    steps: ClassVar[Kinds] = {
        "fence trial": lambda chosen: Step("fence trial", seconds=chosen.choice((10.0, 60.0))),
        "fence admit": _admit,
    }
    faults = _FAULTS

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._trial = _Promise(may=-inf)
        self._recorded: float | None = None  # the end of the trial that the database must have (epoch)
        self._admitted: dict[str, _Promise] = {}

    def settings(self) -> Mapping[str, object]:
        """Return the table of the fence. Nothing is inside except friends and the allow list."""
        return {"fence": {"mode": "enforce"}}

    def drops(self, source: str) -> bool:
        """Whether the fence drops the packets of an address."""
        return self._is_dropping and not any(self.host.kernel.has(which, source) for which in _INSIDE)

    @property
    def _is_dropping(self) -> bool:
        plan = self.host.kernel.plan
        return plan is not None and plan.mode(FenceFilter.name) is LimitMode.ENFORCE

    # -- the steps

    def fence_trial(self, step: Step) -> None:
        """Start a trial of some seconds, although the fence has not observed for a day."""
        now = self.host.schedule.mono
        end = now + step.seconds
        # If the request is refused, an earlier trial goes on.
        self._trial = trial = _Promise(now, may=max(self._trial.may, end))
        self._recorded = None

        def then(answer: Any) -> None:
            if self._trial is not trial:
                return
            result: Any = answer.result if isinstance(answer, Unrecorded) else answer
            trial.may = end
            if result["mode"] == "enforce" and not trial.is_moved:
                trial.must = end
            if result is answer:
                self._recorded = result["end"]

        self.stage.process.ask("fence_enforce", then, seconds=step.seconds, force=True)

    def fence_admit(self, step: Step) -> None:
        """Admit an address for some seconds."""
        address, now = ADDRESSES[step.number - 1], self.host.schedule.mono
        end, before = now + step.seconds, self._admitted.get(address)
        # Until the database has the new end, a restart may bring back the earlier one.
        one = _Promise(now, may=end if before is None else max(before.may, end))
        self._admitted[address] = one

        def then(answer: Any) -> None:
            if self._admitted[address] is one:
                one.must = end
                if not isinstance(answer, Unrecorded):
                    one.may, one.is_recorded = end, True

        self.stage.process.ask("fence_admit", then, what=address, seconds=step.seconds)

    def on_step(self, step: Step) -> None:
        """Record that the clock is set."""
        if not step.set:
            return
        if step.set > 0.0:  # this may end the trial, which ends by either clock
            self._trial.must, self._trial.is_moved = -inf, True
        if abs(step.set) <= CLOCK_STEP:
            self._admitted = {address: _Promise() for address in self._admitted}
        for one in self._admitted.values():
            one.is_moved = True

    # -- what must hold

    def on_end(self, before: Path, after: Path) -> None:
        """Look at what a process leaves: it has no files, but its trial is over or in the database."""
        process, kernel = self.stage.process, self.host.kernel
        if not self._is_dropping:
            return
        if process.is_over and self.host.schedule.mono - kernel.failed_at > RETRIED_WITHIN:
            self.note("the fence drops packets, and the daemon has stopped")
        if self._recorded is None or self.stage.undone or not process.side.kernel.enforcer.enforcing:
            return
        with closing(sqlite3.connect(after / process.database.name)) as database:
            row = database.execute(_RECORD).fetchone()
        if row is None or json.loads(row[0])["trial"] != self._recorded:
            self.note("the fence drops packets, the daemon has ended, and its trial is not in the database")

    def on_restart(self) -> None:
        """End the trial. Of the admissions, only those in the database are known, if no clock was set."""
        self._trial, self._recorded = _Promise(may=-inf), None
        for one in self._admitted.values():
            if one.is_moved or self.stage.undone:
                one.may = inf
            if one.may == inf or not one.is_recorded:
                one.must = -inf

    def look(self) -> None:
        """Compare what the kernel has with what was asked for."""
        kernel = self.host.kernel
        self._compare("the trial of the fence", self._trial, is_there=self._is_dropping)
        for address, one in self._admitted.items():
            is_there = kernel.has(network_lists.ADMITTED, address)
            self._compare(f"the admission of {address}", one, is_there=is_there)

    def _compare(self, what: str, one: _Promise, *, is_there: bool) -> None:
        """Record it if something is in force in the kernel that must not be, or the other way round."""
        kernel, now = self.host.kernel, self.host.schedule.mono
        is_over = now > one.may + SOON and now - kernel.failed_at > RETRIED_WITHIN
        is_settled = kernel.has_rules and now - kernel.rules_since > SOON
        is_due = now < one.must - SOON and one.asked - kernel.failed_at > RETRIED_WITHIN
        if is_there and is_over:
            self.note(f"{what} is over, and still in force")
        elif not is_there and is_settled and is_due:
            self.note(f"{what} is not in force")
