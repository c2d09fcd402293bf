"""The date of a log line → seconds since the epoch (``main/logger.c``, ``dateformat`` in logger.conf).

Asterisk writes any strftime format. These are known: the default (``%b %e %T``, without year and zone), ISO
in all its forms, US and European orders, the form of ctime, seconds since the epoch, and a time without a
date. Fractions, AM or PM, and a zone as an offset may be added. Any other text is no date, and the line gets
the current time.

A date without a year is the latest one that is at most a day ahead of now. ``11/12/2026`` is month/day or
day/month, whichever is nearer to now. An hour that a clock change repeats is the one nearer to now that is
not ahead of it. Names of time zones other than UTC are ambiguous and are ignored. The log's own time zone is
used instead.

Bounds: a date has at most 48 bytes, and at most 512 parsed dates are cached.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from ringfence.values.text import LAST

_AHEAD = 86_400.0  # seconds that a date may be ahead of now, because clocks and time zones differ
_YEARS_BACK = 8  # years back that a missing year is searched: two 29ths of February may be so far apart
_REMEMBERED = 512
_LONGEST = 48
_STALE = 600.0  # seconds for which parsed dates stay cached: a date without a year or a zone depends on now
_CLOCKS = 300.0  # seconds that a line may be ahead of now, because it is written before it is read
_REPEATED = 3_600.0  # seconds that a clock change repeats
_NOON = 12

_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
_TIME = (
    rb"(?P<h>\d{1,2}):(?P<m>\d\d)(?::(?P<s>\d\d)(?:[.,](?P<f>\d{1,9}))?)?"
    rb"(?: ?(?P<half>[AaPp])[Mm])?(?: ?(?P<zone>[+-]\d\d:?\d\d|[A-Z]{1,5}))?"
)
_DAYS = (
    rb"(?P<Y>\d{4})[-/.](?P<M>\d\d)[-/.](?P<D>\d\d)",
    rb"(?P<M>\d{1,2})/(?P<D>\d{1,2})/(?P<Y>\d{4}|\d\d)",
    rb"(?P<D>\d{1,2})[.-](?P<M>\d{1,2})[.-](?P<Y>\d{4}|\d\d)",
    rb"(?P<B>[A-Z][a-z]{2})[a-z]{0,6} {1,2}(?P<D>\d{1,2})(?:,? (?P<Y>\d{4}))?",
    rb"(?P<D>\d{1,2})[ /-](?P<B>[A-Z][a-z]{2})[a-z]{0,6}(?:[ /-](?P<Y>\d{4}))?",
)
_WEEKDAY = rb"(?:[A-Z][a-z]{2,8},? )?"
_FORMS = (
    *(re.compile(_WEEKDAY + day + rb"(?:[T:]|,? {1,2})" + _TIME) for day in _DAYS),
    re.compile(rb"[A-Z][a-z]{2} (?P<B>[A-Z][a-z]{2}) {1,2}(?P<D>\d{1,2}) " + _TIME + rb" (?P<Y>\d{4})"),
    re.compile(_TIME),
)
_SLASHED = 1  # the index of month/day/year in _FORMS; it is also read as day/month/year
_EPOCH = re.compile(rb"\d{9,11}(?:\.\d{1,9})?")


class DateReader:
    """Parses the dates of one log's lines. ``zone`` is the log's time zone, None for this host's."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._known: dict[bytes, float] = {}
        self._as_of = 0.0

    def seconds(self, text: bytes, now: float) -> float | None:
        """Return a date as seconds since the epoch; None if ``text`` is not a date.

        ``now``, in the same unit, decides what the text leaves open, such as the year.
        """
        if abs(now - self._as_of) > _STALE or len(self._known) > _REMEMBERED:
            self._known.clear()
            self._as_of = now
        # In ISO dates and in Asterisk's default format, often only the seconds differ from line to line. So
        # the date with the seconds 00 is cached.
        cut = 17 if text[4:5] == b"-" else 13
        whole, _, fraction = text[cut:].partition(b".")
        simple = len(whole) == 2 and whole.isdigit() and text[cut - 1 : cut] == b":"  # noqa: PLR2004
        if simple and (not fraction or (fraction.isdigit() and len(text) <= _LONGEST)):
            minute = self._remembered(text[:cut] + b"00", now)
            if minute is not None:
                found = minute + int(whole) + (int(fraction) / 10 ** len(fraction) if fraction else 0)
                return found if found < LAST else None
        return self._remembered(text, now)

    def _remembered(self, text: bytes, now: float) -> float | None:
        seconds = self._known.get(text)
        if seconds is None and len(text) <= _LONGEST:
            seconds = self._parse(text, now)
            if seconds is not None:
                self._known[text] = seconds
        return seconds

    def _parse(self, text: bytes, now: float) -> float | None:
        if _EPOCH.fullmatch(text):
            return float(text)
        for index, form in enumerate(_FORMS):
            found = form.fullmatch(text)
            if found is not None:
                fields = {name: value for name, value in found.groupdict().items() if value}
                candidates = self._candidates(fields, now)
                if index == _SLASHED:
                    candidates += self._candidates(fields | {"M": fields["D"], "D": fields["M"]}, now)
                return min(candidates, key=lambda seconds: _distance(seconds, now), default=None)
        return None

    def _candidates(self, fields: dict[str, bytes], now: float) -> list[float]:
        """Return the possible moments of a date (seconds since the epoch).

        Usually one is returned, and two if a clock change repeats the hour. A time without a date gives the
        moments of yesterday, today and tomorrow. A date that does not exist gives none. ``fields`` are the
        groups of the pattern that matched.
        """
        today = datetime.fromtimestamp(now, self._zone)
        if "Y" in fields:
            years = [int(fields["Y"]) + (2000 if len(fields["Y"]) == 2 else 0)]  # noqa: PLR2004 - two digits
        else:
            years = [today.year + 1 - back for back in range(_YEARS_BACK + 2)]
        if "D" not in fields:
            return [
                seconds
                for back in (-1, 0, 1)
                for day in [today - timedelta(days=back)]
                for seconds in self._moments(day.year, day.month, day.day, fields)
            ]
        month = _MONTHS.get(fields["B"].lower(), 0) if "B" in fields else int(fields["M"])
        for year in years:
            moments = self._moments(year, month, int(fields["D"]), fields)
            if moments and ("Y" in fields or min(moments) <= now + _AHEAD):
                return moments
        return []

    def _moments(self, year: int, month: int, day: int, fields: dict[str, bytes]) -> list[float]:
        hour = int(fields["h"])
        if "half" in fields:
            hour = hour % _NOON + (_NOON if fields["half"] in b"Pp" else 0)
        fraction = fields.get("f", b"").ljust(6, b"0")[:6]
        try:
            zone = self._zone_of(fields.get("zone"))
            moment = datetime(year, month, day, hour, int(fields["m"]), tzinfo=zone)
            both = {moment.replace(fold=fold).timestamp() for fold in (0, 1)}
        except (ValueError, OverflowError):
            return []
        # A leap second (60) becomes the first second of the next minute.
        second = int(fields.get("s", 0)) + int(fraction) / 1e6
        # A time zone may lead out of the years that can be written.
        return [seconds + second for seconds in sorted(both) if 0.0 <= seconds + second < LAST]

    def _zone_of(self, written: bytes | None) -> tzinfo | None:
        if written in (b"Z", b"UTC", b"GMT"):
            return UTC
        if written and written[:1] in b"+-":
            minutes = int(written[1:3]) * 60 + int(written[-2:])
            return timezone(timedelta(minutes=-minutes if written[:1] == b"-" else minutes))
        return self._zone


def _distance(seconds: float, now: float) -> float:
    """Return how unlikely ``seconds`` is as the time of a line read at ``now`` (both since the epoch).

    It is the distance of the two; a time ahead of ``now`` counts more.
    """
    ahead = seconds - now
    return ahead + _REPEATED if ahead > _CLOCKS else abs(ahead)
