"""Stories: what the senders of a world do, and what fails meanwhile. A story follows from its seed."""

import errno
import random
from collections.abc import Sequence
from dataclasses import replace

from tests.judge.asterisk import PBX, SECOND, Act
from tests.judge.oracle import GUESSES
from tests.judge.worlds import ATTACKERS, CAST, world
from tests.simulate.feature import Feature
from tests.simulate.features.account import Accounts
from tests.simulate.features.feeds import Feeds
from tests.simulate.features.fence import Fence
from tests.simulate.features.fleet import Fleet
from tests.simulate.features.notify import Notify
from tests.simulate.features.phones import Phones
from tests.simulate.features.trial import Trial
from tests.simulate.step import Kinds, Step, times

MOST_FAULTS = 8
FEATURES: Sequence[type[Feature]] = (Fleet, Feeds, Fence, Trial, Notify, Accounts, Phones)
"""The features that a story may have: it has one if a step, which does nothing, has the feature's kind."""
_SENDERS = tuple(name for name in CAST if name != "insider")
"""The senders of stories.

Only copied requests show an insider's guesses, and a kernel that refuses may copy none of a friend.
"""


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


FAULTS: Kinds = {
    "kill": _kill,
    "kill, and set the clock": _set_while_down,
    "reboot": _reboot,
    "stop": _stop,
    "cut": _cut,
    "hold": _hold,
    "disk": _disk,
    "clock": _clock,
    "lose": times("lose", 6),
    "overflow": times("overflow", 1),
    "refuse": times("refuse", 6),
    "lost answers": times("lost answers", 4),
    "unreadable": times("unreadable", 3),
    "damage": times("damage", 1),
    "rotate": times("rotate", 1),
    "break": times("break", 1),
    "ban": times("ban", 2),
    "unban": times("unban", 2),
    "unban all": times("unban all", 1),
    "off": times("off", 1),
    "on": times("on", 1),
}
"""The faults, and the commands of the administrator, by name."""

COMMANDS: Kinds = {
    "unban a sender": times("unban a sender", 2),
    "allow": times("allow", 2),
    "deny": times("deny", 2),
    "reload": times("reload", 1),
    "refused reload": times("refused reload", 1),
}
"""More commands of the administrator, in stories with features."""


def story(seed: int) -> tuple[Step, ...]:
    """Return the steps of the story with this seed: a world of the judge with some faults in it."""
    chosen = random.Random(f"story {seed}")  # noqa: S311 - a world, no secret
    steps = [Step("act", act, act.wait) for act in world(seed, _SENDERS)]
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
        _scatter(steps, {**COMMANDS, **Fleet.steps}, chosen)
        steps.insert(0, Step(Fleet.kind, wait=0.0))
    if seed % 8 in {6, 7}:
        for feature in chosen.sample(FEATURES, chosen.randint(1, 3)):
            _scatter(steps, feature.steps, chosen)
            steps.insert(0, Step(feature.kind, wait=0.0))
    return tuple(steps)


def _scatter(steps: list[Step], kinds: Kinds, chosen: random.Random) -> None:
    """Insert some steps of these kinds at random places."""
    names = sorted(kinds)
    for _ in range(chosen.randint(1, MOST_FAULTS)):
        step = kinds[chosen.choice(names)](chosen)
        at = chosen.randint(0, len(steps))
        steps.insert(at, replace(step, wait=chosen.choice((0.0, 0.05, 1.0))))
