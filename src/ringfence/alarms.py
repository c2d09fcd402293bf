"""Active problems that an administrator must know. An alarm is logged once, and shown until it clears.

An alarm has a code, a subject (an address, an account, or a part of ringfence; "" if the code is enough), a
text and a time. The same code and subject are one alarm: repeats are counted, and a new text is logged again.
An alarm clears when the code that raised it clears it, or when it was not activated again within its
``lasts`` seconds. At most ``MOST`` alarms of one code are kept; further ones are counted in the latest. The
newest ``SHOWN`` of each code are shown. At most ``MOST_LOGGED`` new alarms of one code are logged per minute.
"""

from collections.abc import Callable
from heapq import nlargest

import structlog
from attrs import define, frozen

from ringfence.alarm_codes import AlarmCode
from ringfence.model import printable, rfc3339

LASTS = 600.0  # seconds
MOST = 1_000
SHOWN = 20
MOST_LOGGED = 30
MINUTE = 60.0


@frozen
class Alarm:
    """One alarm: ``since`` and ``last`` are wall-clock seconds, ``times`` is how often it was activated."""

    code: AlarmCode
    subject: str
    text: str
    since: float
    last: float
    times: int

    def as_json(self) -> dict[str, object]:
        """Return the alarm as commands receive it, with hostile text escaped."""
        return {
            "code": str(self.code),
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
        self._up: dict[AlarmCode, dict[str, _ActiveAlarm]] = {}
        self._logged: dict[AlarmCode, tuple[int, int]] = {}  # a minute, and the number of lines logged in it
        self._log = structlog.get_logger()

    def activate(self, code: AlarmCode, subject: str, text: str, lasts: float = LASTS) -> None:
        """Activate an alarm, or repeat an active one; it stays active for ``lasts`` seconds from now."""
        now = self._clock()
        of_code = self._up.setdefault(code, {})
        known = of_code.get(subject)
        if known is None or now - known.last >= known.lasts:
            self._expire(of_code, now)
        known = of_code.get(subject)
        if known is None:
            if len(of_code) >= MOST:
                next(reversed(of_code.values())).times += 1
                return
            of_code[subject] = _ActiveAlarm(text, now, now, lasts)
        else:
            known.last = now
            known.times += 1
            known.lasts = lasts
        if known is None or known.text != text:
            of_code[subject].text = text
            if self._may_log(code, now):
                self._log.error(f"alarm.{code}", subject=subject, text=text)

    def _may_log(self, code: AlarmCode, now: float) -> bool:
        """Whether another line of this code may be logged in this minute."""
        minute, number = self._logged.get(code, (0, 0))
        if int(now / MINUTE) != minute:
            minute, number = int(now / MINUTE), 0
        self._logged[code] = minute, number + 1
        return number < MOST_LOGGED

    def clear(self, code: AlarmCode, subject: str) -> None:
        """Clear an alarm."""
        if self._up.get(code, {}).pop(subject, None) is not None:
            self._log.info(f"alarm.{code}.cleared", subject=subject)

    @property
    def active(self) -> list[Alarm]:
        """The active alarms, newest first; at most ``SHOWN`` of each code."""
        now = self._clock()
        for of_code in self._up.values():
            self._expire(of_code, now)
        found = [
            Alarm(code, subject, state.text, state.since, state.last, state.times)
            for code, of_code in self._up.items()
            for subject, state in nlargest(SHOWN, of_code.items(), key=lambda one: one[1].last)
        ]
        return sorted(found, key=lambda alarm: -alarm.last)

    def _expire(self, of_code: dict[str, _ActiveAlarm], now: float) -> None:
        for subject in [subject for subject, state in of_code.items() if now - state.last >= state.lasts]:
            del of_code[subject]
