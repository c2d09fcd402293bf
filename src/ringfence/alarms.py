"""Active problems that an administrator must know. An alarm is logged once, and shown until it clears.

An alarm has a code, a subject (an address, an account, or a part of ringfence; "" if the code is enough), a
text and a time. The same code and subject are one alarm: repeats are counted, and a new text is logged again.
An alarm clears when the code that raised it clears it, or when it was not activated again within its
``lasts`` seconds. At most ``MOST`` alarms of one code are kept; further ones are counted in the latest. The
newest ``SHOWN`` of each code are shown. At most ``MOST_LOGGED`` new alarms of one code are logged per minute.

An alarm about the state of a part is *held*: it lasts as long as the part reports it, counts no repeats, and
only its begin and its end are logged, the begin as a warning.
"""

from collections.abc import Callable, Iterable
from heapq import nlargest
from math import inf

import structlog
from attrs import define, frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.model import printable, rfc3339

LASTS = 600.0  # seconds
MOST = 1_000
SHOWN = 20
MOST_LOGGED = 30
MINUTE = 60.0


@frozen
class ActiveAlarm:
    """An active alarm: ``since`` and ``last`` are wall-clock seconds, ``times`` counts its activations."""

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
class _State:
    text: str
    since: float
    last: float
    lasts: float
    times: int = 1


class Alarms:
    """The active alarms. ``clock`` returns wall-clock seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._up: dict[AlarmCode, dict[str, _State]] = {}
        self._logged: dict[AlarmCode, tuple[int, int]] = {}  # the minute, and its number of lines
        self._held: set[tuple[AlarmCode, str]] = set()
        self._log = structlog.get_logger()

    def activate(self, code: AlarmCode, subject: str, text: str, lasts: float = LASTS) -> None:
        """Activate an alarm, or repeat an active one; it stays active for ``lasts`` seconds from now."""
        if self._record(code, subject, text, lasts) and self._may_log(code, self._clock()):
            self._log.error(f"alarm.{code}", subject=subject, text=text)

    def _record(self, code: AlarmCode, subject: str, text: str, lasts: float) -> bool:
        """Activate or repeat an alarm; return whether it is new, or has a new text."""
        now = self._clock()
        of_code = self._up.setdefault(code, {})
        known = of_code.get(subject)
        if known is None or now - known.last >= known.lasts:
            self._expire(of_code, now)
        known = of_code.get(subject)
        if known is None:
            if len(of_code) >= MOST:
                next(reversed(of_code.values())).times += 1
                return False
            of_code[subject] = _State(text, now, now, lasts)
        else:
            known.last = now
            known.times += 1
            known.lasts = lasts
        is_news = known is None or known.text != text
        of_code[subject].text = text
        return is_news

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

    def hold(self, alarms: Iterable[Alarm]) -> None:
        """Hold exactly these alarms: begin those that are new, and clear those held before that are gone."""
        held = {(alarm.code, alarm.subject): alarm.text for alarm in alarms}
        for code, subject in self._held - held.keys():
            self.clear(code, subject)
        for (code, subject), text in held.items():
            state = self._up.get(code, {}).get(subject)
            if state is not None and (code, subject) in self._held:
                state.text = text
            elif len(self._up.get(code, {})) < MOST:
                self._record(code, subject, text, inf)
                if self._may_log(code, self._clock()):
                    self._log.warning(f"alarm.{code}", subject=subject, text=text)
        self._held = set(held)

    def count(self) -> dict[AlarmCode, int]:
        """Return the number of active alarms by code."""
        self._expire_all()
        return {code: len(of_code) for code, of_code in self._up.items() if of_code}

    @property
    def active(self) -> list[ActiveAlarm]:
        """The active alarms, newest first; at most ``SHOWN`` of each code."""
        self._expire_all()
        found = [
            ActiveAlarm(code, subject, state.text, state.since, state.last, state.times)
            for code, of_code in self._up.items()
            for subject, state in nlargest(SHOWN, of_code.items(), key=lambda one: one[1].last)
        ]
        return sorted(found, key=lambda alarm: -alarm.last)

    def _expire_all(self) -> None:
        now = self._clock()
        for of_code in self._up.values():
            self._expire(of_code, now)

    def _expire(self, of_code: dict[str, _State], now: float) -> None:
        for subject in [subject for subject, state in of_code.items() if now - state.last >= state.lasts]:
            del of_code[subject]
