"""Active problems that an administrator must know of: logged once, and shown until they clear.

An alarm has a name (its kind), a subject (the address, account or part that it is about) and a text (what to
do). The same name and subject are one alarm: repeats are counted, and a new text is logged again. An alarm
clears when its origin clears it, or when it was not activated again within its ``lasts`` seconds. At most
``MOST`` alarms of a name are kept; further ones are counted in the latest. The newest ``SHOWN`` of each name
are shown. At most ``MOST_LOGGED`` new ones of a name are logged per minute.
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
    """One alarm: ``since`` and ``last`` are wall-clock seconds, ``times`` is how often it was activated."""

    name: str
    subject: str
    text: str
    since: float
    last: float
    times: int

    def as_json(self) -> dict[str, object]:
        """Return the alarm as commands receive it, with hostile text escaped."""
        return {
            "name": self.name,
            "subject": printable(self.subject),
            "text": printable(self.text),
            "since": rfc3339(self.since),
            "last": rfc3339(self.last),
            "times": self.times,
        }


@define
class _ActiveAlarm:
    text: str
    since: float
    last: float
    lasts: float
    times: int = 1


class Alarms:
    """The active alarms. ``clock`` returns wall-clock seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._up: dict[str, dict[str, _ActiveAlarm]] = {}
        self._logged: dict[str, tuple[int, int]] = {}  # the minute, and the number of lines logged in it
        self._log = structlog.get_logger()

    def activate(self, name: str, subject: str, text: str, lasts: float = LASTS) -> None:
        """Activate an alarm, or repeat an active one; it stays active for ``lasts`` seconds from now."""
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
            of_name[subject] = _ActiveAlarm(text, now, now, lasts)
        else:
            known.last = now
            known.times += 1
            known.lasts = lasts
        if known is None or known.text != text:
            of_name[subject].text = text
            if self._may_log(name, now):
                self._log.error(f"alarm.{name}", subject=subject, text=text)

    def _may_log(self, name: str, now: float) -> bool:
        """Whether another line of this name may be logged in this minute."""
        minute, number = self._logged.get(name, (0, 0))
        if int(now / MINUTE) != minute:
            minute, number = int(now / MINUTE), 0
        self._logged[name] = minute, number + 1
        return number < MOST_LOGGED

    def clear(self, name: str, subject: str) -> None:
        """Clear an alarm."""
        if self._up.get(name, {}).pop(subject, None) is not None:
            self._log.info(f"alarm.{name}.cleared", subject=subject)

    @property
    def active(self) -> list[Alarm]:
        """The active alarms, newest first; at most ``SHOWN`` of each name."""
        now = self._clock()
        for of_name in self._up.values():
            self._expire(of_name, now)
        found = [
            Alarm(name, subject, state.text, state.since, state.last, state.times)
            for name, of_name in self._up.items()
            for subject, state in nlargest(SHOWN, of_name.items(), key=lambda one: one[1].last)
        ]
        return sorted(found, key=lambda alarm: -alarm.last)

    def _expire(self, of_name: dict[str, _ActiveAlarm], now: float) -> None:
        for subject in [subject for subject, state in of_name.items() if now - state.last >= state.lasts]:
            del of_name[subject]
