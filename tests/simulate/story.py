"""Stories: what the senders of a world do, and what fails meanwhile. A story follows from its seed."""

import errno
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tests.judge.asterisk import PBX, SECOND, Act
from tests.judge.oracle import GUESSES
from tests.judge.worlds import ATTACKERS, world, written

MOST_FAULTS = 8
FEATURES = "features"
"""The kind of the first step of a story whose daemon has features."""


@dataclass(frozen=True)
class Step:
    """One thing that happens, ``wait`` seconds after the last one.

    ``kind`` is "act" (a sender does something) or a fault. ``number`` and ``seconds`` are those of the fault:
    how many calls or packets fail, how many callbacks come before a kill, how long something is down. ``set``
    is by how much the wall clock is set (seconds), and ``asterisk`` is the one to which the fault happens.
    """

    kind: str
    act: Act | None = None
    wait: float = 1.0
    number: int = 0
    seconds: float = 0.0
    set: float = 0.0
    asterisk: str = PBX

    def __str__(self) -> str:
        if self.act is not None:
            return f'Step("act", {written(self.act).removesuffix(",")}, wait={self.wait!r}),'
        default, names = Step(self.kind), ("wait", "number", "seconds", "set", "asterisk")
        changed = [one for one in names if getattr(self, one) != getattr(default, one)]
        values = [repr(self.kind), *(f"{one}={getattr(self, one)!r}" for one in changed)]
        return f"Step({', '.join(values)}),"


def _kill(chosen: random.Random) -> Step:
    number = chosen.choice((0, 3, chosen.randrange(400)))
    return Step("kill", number=number, seconds=chosen.choice((0.1, 2.0, 20.0)))


def _set_while_down(chosen: random.Random) -> Step:
    return Step("kill", number=chosen.randrange(100), seconds=chosen.choice((0.1, 2.0)), set=_set(chosen))


def _set(chosen: random.Random) -> float:
    return chosen.choice((-7_200.0, -60.0, -4.0, 4.0, 60.0, 300.0))


def _reboot(chosen: random.Random) -> Step:
    return Step("reboot", number=chosen.randrange(100), seconds=chosen.choice((1.0, 30.0)))


def _stop(chosen: random.Random) -> Step:
    return Step("stop", seconds=chosen.choice((0.1, 2.0)))


def _cut(chosen: random.Random) -> Step:
    return Step("cut", seconds=chosen.choice((0.0, 3.0, 20.0)), asterisk=chosen.choice((PBX, SECOND)))


def _hold(chosen: random.Random) -> Step:
    return Step("hold", seconds=chosen.choice((0.3, 1.0, 3.0)), asterisk=chosen.choice((PBX, SECOND)))


def _disk(chosen: random.Random) -> Step:
    error = chosen.choice((errno.ENOSPC, errno.EIO))
    return Step("disk", number=error, seconds=chosen.choice((0.5, 5.0, 40.0)))


def _clock(chosen: random.Random) -> Step:
    return Step("clock", set=_set(chosen))


def _api_bans(chosen: random.Random) -> Step:
    seconds = chosen.choice((20.0, 60.0, 14_400.0))
    return Step("api bans", number=chosen.randint(1, 4), seconds=seconds)


def _times(kind: str, most: int) -> Callable[[random.Random], Step]:
    return lambda chosen: Step(kind, number=chosen.randint(1, most))


FAULTS: dict[str, Callable[[random.Random], Step]] = {
    "kill": _kill,
    "kill, and set the clock": _set_while_down,
    "reboot": _reboot,
    "stop": _stop,
    "cut": _cut,
    "hold": _hold,
    "disk": _disk,
    "clock": _clock,
    "lose": _times("lose", 6),
    "overflow": _times("overflow", 1),
    "refuse": _times("refuse", 6),
    "lost answers": _times("lost answers", 4),
    "unreadable": _times("unreadable", 3),
    "damage": _times("damage", 1),
    "rotate": _times("rotate", 1),
    "break": _times("break", 1),
    "ban": _times("ban", 2),
    "unban": _times("unban", 2),
    "unban all": _times("unban all", 1),
    "off": _times("off", 1),
    "on": _times("on", 1),
}
"""The faults, and the commands of the administrator, by name."""

OF_FEATURES: dict[str, Callable[[random.Random], Step]] = {
    "api down": lambda chosen: Step("api down", seconds=chosen.choice((1.0, 20.0, 90.0))),
    "api fails": _times("api fails", 4),
    "api answers are lost": _times("api answers are lost", 4),
    "api restarts": _times("api restarts", 1),
    "api forgets": _times("api forgets", 1),
    "api bans": _api_bans,
    "api is short": _times("api is short", 1),
    "api deletes ours": _times("api deletes ours", 1),
    "unban a sender": _times("unban a sender", 2),
    "allow": _times("allow", 2),
    "deny": _times("deny", 2),
    "reload": _times("reload", 1),
    "refused reload": _times("refused reload", 1),
}
"""More faults and commands for a daemon with features: of the local API, the lists and the configuration."""


def story(seed: int) -> tuple[Step, ...]:
    """Return the steps of the story with this seed: a world of the judge with some faults in it."""
    chosen = random.Random(f"story {seed}")  # noqa: S311 - a world, no secret
    steps = [Step("act", act, act.wait) for act in world(seed)]
    _scatter(steps, FAULTS, chosen)
    # Chosen by the number of the seed, so that the stories of all others stay as they are.
    if seed % 4 == 3:
        steps.insert(0, Step("log security", wait=0.0))
    if seed % 8 == 6:
        steps.insert(len(steps) // 2, Step("erase"))
    if seed % 16 in {5, 10}:
        steps.insert(len(steps) // 2, Step("power loss", seconds=1.0))
    if seed % 4 == 1:
        at, wait = chosen.randint(0, len(steps)), chosen.choice((0.1, 1.0))
        guess = Act("guesses", chosen.choice(ATTACKERS), account="900", transport="TCP")
        steps[at:at] = [Step("act", guess, wait=wait)] * GUESSES  # a ban that is shared
        _scatter(steps, OF_FEATURES, chosen)
        steps.insert(0, Step(FEATURES, wait=0.0))
    return tuple(steps)


def _scatter(
    steps: list[Step], kinds: Mapping[str, Callable[[random.Random], Step]], chosen: random.Random
) -> None:
    """Insert some steps of these kinds at random places."""
    names = sorted(kinds)
    for _ in range(chosen.randint(1, MOST_FAULTS)):
        step = kinds[chosen.choice(names)](chosen)
        at = chosen.randint(0, len(steps))
        steps.insert(at, replace(step, wait=chosen.choice((0.0, 0.05, 1.0))))
