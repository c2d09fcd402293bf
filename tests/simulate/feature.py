"""What a feature of the daemon adds to a story: tables of the configuration, steps, and what must hold.

Each module of ``features/`` has one. A story has the feature if its first steps name it (``story.py``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from tests.judge.oracle import Violation
from tests.simulate.judge import ForgivingJudge
from tests.simulate.loop import UP_FOR
from tests.simulate.put_back import Row
from tests.simulate.step import Kinds, Step

from ringfence.values.ban import Ban

if TYPE_CHECKING:
    from tests.simulate.process import Host, Process

SLACK = 6.0
"""Seconds by which a ban may end earlier or later than recorded (``bans/reconcile.py``)."""
ENDING = 8.0
"""Seconds before its end in which a ban counts as present or absent."""
SOON = 3.0
"""Seconds within which the daemon carries out a request, ends what is over, and changes the rules for it."""
RETRIED_WITHIN = 65.0
"""Seconds within which the daemon tries again what the kernel has refused (``bans/filling.py``)."""

Replaced = tuple[object, str, object]
"""An owner, the name of one of its attributes, and what stands there during the story."""


class Stage(Protocol):
    """The story that is played (``play.py``)."""

    host: "Host"
    judge: ForgivingJudge
    drift: float
    """By how many seconds small steps of the clock moved the recorded ends of bans."""
    ends_unknown: bool
    """Whether a process may have missed a step of the clock."""
    undone: bool
    """Whether a process ended before all was recorded."""

    @property
    def process(self) -> "Process":
        """The daemon's process."""

    @property
    def recorded(self) -> list[Ban]:
        """The bans of the ledger."""


class Feature:
    """A feature of the daemon in a story. It outlives the processes of the daemon."""

    kind: ClassVar[str]
    """The kind of the first step of a story that has this feature."""
    steps: ClassVar[Kinds] = {}
    """What may happen to the feature. The method of a step has its kind as its name, ``_`` for blanks."""
    faults: ClassVar[Sequence[Row]] = ()
    """Faults that the daemon had, or would have without one line: a story must find each (``faults.py``)."""
    rest = 0.0
    """The seconds by which the quiet must be longer."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.host = stage.host

    def settings(self) -> Mapping[str, object]:
        """Return tables of the configuration."""
        return {}

    def options(self) -> Mapping[str, str]:
        """Return options of the command line of the next process, by name."""
        return {}

    def replaced(self) -> Sequence[Replaced]:
        """Return what of the daemon stands for something else during the story."""
        return ()

    def drops(self, _source: str) -> bool:
        """Whether the kernel drops the packets of an address because of the feature."""
        return False

    def on_step(self, step: Step) -> None:
        """Handle a step of the story, of whatever kind, before it happens."""

    def before_kill(self) -> None:
        """Record what the process knows now, which is killed next."""

    def on_end(self, before: Path, after: Path) -> None:
        """Handle the end of the process; copy the feature's files from its folder to that of the next one."""

    def on_restart(self) -> None:
        """Handle the beginning of the next process."""

    def heal(self) -> None:
        """End all faults."""

    def violations(self) -> Iterator[Violation]:
        """Yield what does not hold after a quiet."""
        yield from ()

    def method_of(self, kind: str) -> Callable[[Step], None] | None:
        """Return what a step of this kind does, None if it is not the feature's."""
        if kind == self.kind:
            return lambda _: None
        if kind not in self.steps:
            return None
        method: Callable[[Step], None] = getattr(self, kind.replace(" ", "_"))
        return method


class WatchedFeature(Feature):
    """A feature at which the story also looks each second while the daemon serves."""

    letter: ClassVar[str]
    """The letter of its invariant."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._noted: dict[str, float] = {}  # what did not hold, and when first (monotonic seconds)
        self.host.schedule.after(1.0, self._watch)

    def _watch(self) -> None:
        self.host.schedule.after(1.0, self._watch)
        if self.host.serves.is_set() and not self.stage.process.is_over:
            self.look()

    def look(self) -> None:
        """Look at the daemon and the kernel, and note what does not hold."""

    def note(self, text: str) -> None:
        """Record what does not hold now. The quiet yields it."""
        self._noted.setdefault(text, self.host.schedule.mono)

    def violations(self) -> Iterator[Violation]:
        """Yield what did not hold at any time of the story."""
        for text, at in self._noted.items():
            yield Violation(self.letter, f"{text}, {at - UP_FOR:.0f} s after the beginning")
