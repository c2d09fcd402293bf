"""What friends ask for: a name of the PBX, or its bare address.

An administrator must know before the rule is enforced which phones it would ban at a new place. Bounds:
``MOST`` addresses; the one that asked longest ago is forgotten first. Times are seconds since the epoch.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from math import inf

from attrs import define

from ringfence.detect.sessions import remember
from ringfence.values.network import Address

DAY = 86_400.0
WATCH_FOR = 7 * DAY
"""Seconds for which every friend must have asked for a name, before ``ringfence check`` proposes the rule."""
MOST = 16_384
STEP = 3_600.0
"""Seconds until a later request changes what is recorded, so that few rows are written."""


@define
class Habit:
    """When an address asked last for a name of the PBX (``named``), and for something else (``bare``).

    ``host`` is what it asked for then. A time is ``-inf`` if there is none.
    """

    named: float = -inf
    bare: float = -inf
    host: str = ""


class Habits:
    """What each friend's address asks for. ``began`` is since when that is recorded."""

    def __init__(self, began: float, known: Iterable[tuple[Address, Habit]] = ()) -> None:
        self.began = began
        self._known: OrderedDict[Address, Habit] = OrderedDict(known)
        self._changed: dict[Address, Habit] = {}

    def record(self, address: Address, host: str, now: float, *, named: bool) -> bool:
        """Record that a friend asked for ``host`` at ``now``, which is a name of the PBX if it is ``named``.

        Return whether the friend asked for none for the first time within ``WATCH_FOR``.
        """
        habit = self._known.get(address, Habit())
        last = habit.named if named else habit.bare
        is_new = now - last >= WATCH_FOR
        if now - last >= STEP:
            if named:
                habit.named = now
            else:
                habit.bare, habit.host = now, host
            self._changed[address] = habit
            remember(self._known, address, habit, MOST)
        return is_new and not named

    def accept(self, hosts: Collection[str]) -> None:
        """Count earlier requests for one of ``hosts`` as requests for a name, because by now it is one."""
        for address, habit in self._known.items():
            if habit.host in hosts and habit.bare != -inf:
                habit.named, habit.bare = max(habit.named, habit.bare), -inf
                self._changed[address] = habit

    def lately(self, now: float) -> Iterator[tuple[Address, Habit]]:
        """Yield the addresses that asked within ``WATCH_FOR``, the latest last."""
        since = now - WATCH_FOR
        return (one for one in self._known.items() if one[1].named > since or one[1].bare > since)

    def without_name(self, now: float) -> list[tuple[Address, Habit]]:
        """Return the addresses that asked for something else than a name within ``WATCH_FOR``."""
        since = now - WATCH_FOR
        return [one for one in self._known.items() if one[1].bare > since]

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times, because the wall clock was set by as much."""
        self.began += seconds
        self._changed = {**self._known, **self._changed}
        for habit in self._changed.values():
            habit.named, habit.bare = habit.named + seconds, habit.bare + seconds

    def take_changed(self) -> Sequence[tuple[Address, Habit]]:
        """Return what has changed since the last call."""
        changed, self._changed = self._changed, {}
        return [*changed.items()]
