"""A trial of the whole firewall in a story: at its end, the daemon removes all rules and bans.

The first process of the story begins it, as ``ringfence run --trial`` does. The process that ends a trial if
the daemon cannot does not run.
"""
# ruff: noqa: ANN401 - a replaced function may be any

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from tests.simulate.feature import RETRIED_WITHIN, SOON, Stage, WatchedFeature
from tests.simulate.put_back import LATER, Row, does_nothing
from tests.simulate.step import Kinds, Step, times

from ringfence.control_server import Unrecorded

LASTS = 30.0
"""The length of the trial in seconds."""

_GUARD = "ringfence.features.trial.guard"


def _by_wall(_right: Any) -> Any:
    def check(self: Any) -> None:
        if self.until is not None and self.until <= self._clock.wall():
            self.end()

    return check


_FAULTS: Sequence[Row] = (
    (
        "a trial that is not recorded",
        "It never ended, and somebody who had locked themselves out stayed outside.",
        f"{_GUARD}:begin",
        does_nothing,
        "X",
        [Step("trial", wait=0.0), Step("rotate", wait=40.0)],
    ),
    (
        "a trial while the clock is set back",
        "It became longer by two hours.",
        f"{_GUARD}:TrialWatch.check",
        _by_wall,
        "X",
        [Step("trial", wait=0.0), Step("clock", wait=8.0, set=-7_200.0), Step("rotate", wait=32.0)],
    ),
    (
        "a trial whose daemon stops",
        "The rules stayed, and no daemon was there to remove them.",
        f"{_GUARD}:TrialWatch.end",
        does_nothing,
        "X",
        [Step("trial", wait=0.0), Step("stop", wait=8.0, seconds=0.1), LATER],
    ),
)


class Trial(WatchedFeature):
    """A trial of the whole firewall, which the first process of the daemon begins.

    Invariant X: at the end of the trial, or if the daemon stops before, enforcement is switched off, and the
    kernel has no rules. Nothing is switched off if the trial was confirmed.

    The process after a kill continues the trial. It takes the end from the wall clock, so the end is unknown
    if this was set before. The quiet confirms a trial that still runs.
    """

    kind = "trial"
    letter = "X"
    steps: ClassVar[Kinds] = {
        "trial confirm": times("trial confirm", 1),
        "trial passes": times("trial passes", 1),
    }
    faults = _FAULTS

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._end = self.host.schedule.mono + LASTS  # monotonic; infinite if nothing is known of the trial
        self._is_first = True  # whether the next process is the first one
        self._is_moved = False  # whether the clock was set
        self._is_kept = False  # whether the trial was confirmed, and nothing else may have switched it off
        self._offs = 0  # the number of steps "off"

    def options(self) -> Mapping[str, str]:
        """Return the length of the trial for the first process."""
        return {"trial": str(LASTS)} if self._is_first else {}

    # -- the steps

    def trial_confirm(self, _: Step) -> None:
        """Keep rules and bans, if the trial still runs."""
        self._end, offs = inf, self._offs

        def then(answer: Any) -> None:
            result: Any = answer.result if isinstance(answer, Unrecorded) else answer
            if result is True and self._offs == offs and not self._is_off:
                self._is_kept = True

        self.stage.process.ask("confirm", then)

    def trial_passes(self, _: Step) -> None:
        """Let the time pass until the trial is over."""
        if self._end < inf:
            self.stage.process.run_until(self._end + 2 * SOON)

    def on_step(self, step: Step) -> None:
        """Record what may end the trial early, or may undo its end."""
        if step.set:
            self._is_moved = True
            if self.host.schedule.mono < self.stage.process.began + SOON:  # perhaps before its first look
                self._end = inf
        if step.kind == "off":
            self._is_kept = False
            self._offs += 1
        elif step.kind == "on" and self._may_be_over:
            self._end = inf

    @property
    def _may_be_over(self) -> bool:
        return self._is_moved or self.host.schedule.mono > self._end - SOON

    def on_end(self, before: Path, after: Path) -> None:
        """Look at what a process leaves that has stopped. It has no files."""
        if self.stage.process.is_over:
            if self._end < inf and self.host.kernel.has_rules and self._kernel_works:
                self.note("the daemon has stopped in its trial, and the rules stay")
            self._end = inf

    def on_restart(self) -> None:
        """Forget the trial if the next process may not continue it."""
        self._is_first = False
        if self._may_be_over or self.stage.undone:
            self._end = inf
        self._is_kept = self._is_kept and not self.stage.undone

    def heal(self) -> None:
        """End the trial, and keep rules and bans."""
        self._end = inf
        self.stage.process.ask("confirm", lambda _: None)

    # -- what must hold

    @property
    def _is_off(self) -> bool:
        return self.stage.process.store.records.switched_off

    @property
    def _kernel_works(self) -> bool:
        return self.host.schedule.mono - self.host.kernel.failed_at > RETRIED_WITHIN

    def look(self) -> None:
        """Look whether enforcement is off exactly if the trial demands it."""
        is_off, now = self._is_off, self.host.schedule.mono
        if is_off:
            self.stage.judge.lose()  # what was sent before the end is perhaps reported after it
            if self._is_kept:
                self.note("the trial was confirmed, and enforcement is off")
        is_over = now > max(self._end, self.stage.process.began) + SOON
        if is_over and self._kernel_works and (self.host.kernel.has_rules or not is_off):
            self.note("the trial is over, and enforcement is not off")
