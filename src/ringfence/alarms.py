"""What an administrator has to know of, as values: said in the log once, and shown until it is over.

An alarm has a name (what kind), a subject (whom or what it is about) and a text (what to do). The same name
and subject is one alarm, however often it is raised: it is said again when its text changes, and counted in
between. It is over when whoever raised it says so, or has not raised it again for as long as he said it
lasts. At most ``MOST`` of a name are kept, more are counted in the last; the latest ``SHOWN`` of them are
shown, and so many new ones of a name are logged in a minute as ``MOST_LOGGED`` says.
"""

from collections.abc import Callable
from heapq import nlargest

import structlog
from attrs import define, frozen

from ringfence.model import printable, rfc3339

LASTS = 600.0  # seconds
MOST = 1_000
SHOWN = 20
MOST_LOGGED = 30
MINUTE = 60.0


@frozen
class Alarm:
    """One alarm: ``since`` and ``last`` are wall-clock seconds, ``times`` how often it was raised."""

    name: str
    subject: str
    text: str
    since: float
    last: float
    times: int

    def as_json(self) -> dict[str, object]:
        """Give it as commands are told of it: hostile text printable, times as every listing has them."""
        return {
            "name": self.name,
            "subject": printable(self.subject),
            "text": printable(self.text),
            "since": rfc3339(self.since),
            "last": rfc3339(self.last),
            "times": self.times,
        }


@define
class _State:
    text: str
    since: float
    last: float
    lasts: float
    times: int = 1


class Alarms:
    """The alarms that are up. ``clock`` gives wall-clock seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._up: dict[str, dict[str, _State]] = {}
        self._logged: dict[str, tuple[int, int]] = {}  # in which minute, how many lines
        self._log = structlog.get_logger()

    def sound(self, name: str, subject: str, text: str, lasts: float = LASTS) -> None:
        """Raise an alarm, or again; it stands for ``lasts`` seconds from now."""
        now = self._clock()
        of_name = self._up.setdefault(name, {})
        known = of_name.get(subject)
        if known is None or now - known.last >= known.lasts:
            self._expire(of_name, now)
        known = of_name.get(subject)
        if known is None:
            if len(of_name) >= MOST:
                next(reversed(of_name.values())).times += 1
                return
            of_name[subject] = _State(text, now, now, lasts)
        else:
            known.last = now
            known.times += 1
            known.lasts = lasts
        if known is None or known.text != text:
            of_name[subject].text = text
            if self._may_log(name, now):
                self._log.error(f"alarm.{name}", subject=subject, text=text)

    def _may_log(self, name: str, now: float) -> bool:
        """Say whether there is room for another line of this name in this minute."""
        minute, number = self._logged.get(name, (0, 0))
        if int(now / MINUTE) != minute:
            minute, number = int(now / MINUTE), 0
        self._logged[name] = minute, number + 1
        return number < MOST_LOGGED

    def over(self, name: str, subject: str) -> None:
        """Take an alarm back."""
        if self._up.get(name, {}).pop(subject, None) is not None:
            self._log.info(f"alarm.{name}.over", subject=subject)

    @property
    def up(self) -> list[Alarm]:
        """The alarms that are up, the latest of each name, the latest first."""
        now = self._clock()
        for of_name in self._up.values():
            self._expire(of_name, now)
        found = [
            Alarm(name, subject, state.text, state.since, state.last, state.times)
            for name, of_name in self._up.items()
            for subject, state in nlargest(SHOWN, of_name.items(), key=lambda one: one[1].last)
        ]
        return sorted(found, key=lambda alarm: -alarm.last)

    def _expire(self, of_name: dict[str, _State], now: float) -> None:
        for subject in [subject for subject, state in of_name.items() if now - state.last >= state.lasts]:
            del of_name[subject]
