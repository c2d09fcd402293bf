"""Fast parser of the most common log lines: SECURITY lines, and the refusals of PJSIP and chan_sip.

One pattern finds the parts of all lines in one call. It accepts only plain lines: a whole message on one
line, with nothing in it that could hide another message. The formats themselves
(:mod:`ringfence.parse.formats`) interpret the parts, once for all lines with the same part.

An event here is a row of its values, in the order of :class:`SecurityEvent`, because creating the object
takes longer than finding its values.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from functools import cache, partial
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from attrs import evolve, fields, frozen

from ringfence.model import Endpoint, EventKind, SecurityEvent, Service, SourceId
from ringfence.parse import chan_sip, pjsip_notice
from ringfence.parse.address import parse_endpoint
from ringfence.parse.dates import DateReader
from ringfence.parse.dump import DUMP_FILES
from ringfence.parse.formats import FORMATS
from ringfence.parse.line_result import Parsed, sip_user, text_of
from ringfence.parse.security import KINDS, USED, WITH_DETAILS, event_seconds

Values = tuple[Any, ...]
"""The values of an event: ``SecurityEvent(*values)`` is the event."""

Parts = tuple[bytes, ...]
"""The parts of a line that the pattern finds."""

_T = TypeVar("_T")
FIELDS = tuple(field.name for field in fields(SecurityEvent))
"""The names of the values."""

values_of: Callable[[SecurityEvent], Values] = attrgetter(*FIELDS)

_THREAD = rb" ?+\[\d{1,10}+\](?:\[C-[0-9a-fA-F]{1,16}+\])?:?+ {1,4}+"
_PLACE = rb"(?::\d{1,6}+ (?:in )?[A-Za-z0-9_.<>~@-]{1,80}+)?:[ \t]*+"
_HEADER = rb"[^'\n\x1b]{0,1000}+"
# An @ stands for a value. Its length is bounded, so that no line is as long as those that Asterisk cuts.
_SECURITY = (
    rb'SecurityEvent="(@)",EventTV="(@)",Severity="(?:Informational|Error)",Service="(PJSIP|SIP|AMI)",'
    rb'EventVersion="\d{1,3}+",AccountID="(@)",SessionID="(@)",LocalAddress="@",RemoteAddress="(@)"'
    rb'(?:,UsingPassword="(@)"|,ACLName="(@)"|,Challenge="(@)"(?:,Response="(@)",ExpectedResponse="@")?'
    rb'|,Challenge="@",ReceivedChallenge="(@)",ReceivedHash="(@)")?'
)
_REFUSED = (
    rb"Request (?:'[^' \n\x1b]{1,64}+' )?from '(" + _HEADER + rb")' failed for '([^'\n\x1b]{1,80}+)' "
    rb"\(callid: ([^')\n\x1b]{0,1000}+)\) - ([A-Za-z ]{1,64}+)"
)
_UNREGISTERED = (
    rb"Registration from '(" + _HEADER + rb")' failed for '([^'\n]{1,80}+)' - ([A-Za-z /()]{1,64}+)"
)
_EVIDENCE = b"|".join(re.escape(file) for file in sorted({*FORMATS, *DUMP_FILES}))


def _line(value: bytes) -> re.Pattern[bytes]:
    return re.compile(
        rb"(?:\[([^\[\]\n]{5,48}+)\] ?+)?(?:"
        rb"SECURITY" + _THREAD + rb"res_security_log\.c" + _PLACE + _SECURITY.replace(b"@", value) + rb"|"
        rb"NOTICE" + _THREAD + rb"res_pjsip/pjsip_distributor\.c" + _PLACE + _REFUSED + rb"|"
        rb"NOTICE" + _THREAD + rb"chan_sip\.c" + _PLACE + _UNREGISTERED + rb"|"
        # Lines that are never evidence.
        rb"[A-Z][A-Z0-9_]{2,15}+" + _THREAD + rb"(?!(?:" + _EVIDENCE + rb")[: ])"
        rb"[A-Za-z][A-Za-z0-9_./+-]{0,79}+" + _PLACE + rb"[^\n]{0,7000}+"
        rb")\n|([^\n]++\n?|\n)"
    )


# A search for one byte takes two thirds of the time of a search for one of two bytes.
_QUICK = _line(rb'[^"]{0,1000}+')
_strict = cache(partial(_line, rb'[^"\n]{0,1000}+'))
# The index of the part that shows the kind of line; all are empty if the line is never evidence.
KIND, _REFUSED_WHY, _UNREGISTERED_WHY, OTHER = 1, 16, 19, 20
# The indices of the other parts of a SECURITY line, in Asterisk's order.
TIME, SERVICE, _, SESSION, REMOTE = range(KIND + 1, KIND + 6)

other_of = itemgetter(OTHER)


def parts_of(lines: bytes) -> list[Parts]:
    """Return the parts of each line; for a line that is not ordinary, the line itself as ``OTHER``."""
    found: list[Parts] = _QUICK.findall(lines)
    if len(found) == lines.count(b"\n") + (lines[-1:] not in (b"\n", b"")):
        return found
    return _strict().findall(lines)  # a value continued after the end of its line


@frozen(eq=False)
class _Notice:
    """One kind of NOTICE, and how its format interprets one part of it: in a line without the rest.

    ``groups`` holds the indices of its date, header, address, session (-1: it has none) and reason. ``known``
    is one of its reasons.
    """

    parse: Callable[[bytes, SourceId, float], Parsed]
    line: bytes
    known: bytes
    groups: tuple[int, int, int, int, int]

    @property
    def shown(self) -> int:
        """The index of the part that is set exactly in lines of this kind."""
        return self.groups[-1]

    def meaning(self, reason: bytes) -> SecurityEvent | None:
        """Return an event with this reason, or None if the reason is unknown."""
        return self._event_of(_SOMEWHERE, reason)

    def sender(self, address: bytes) -> Endpoint | None:
        """Return the endpoint of an address, or None if it is no address."""
        parsed = self._event_of(address, self.known)
        return None if parsed is None else parsed.remote

    def _event_of(self, address: bytes, reason: bytes) -> SecurityEvent | None:
        parsed = self.parse(self.line % (address, reason), _NO_SOURCE, 0.0)
        return parsed if isinstance(parsed, SecurityEvent) else None


_NO_SOURCE = SourceId("", "")
_SOMEWHERE = b"192.0.2.1"
_SERVICES = {str(service).encode(): service for service in Service}
_BEHIND_SESSION, _BEHIND_RESPONSE = FIELDS.index("session") + 1, FIELDS.index("response") + 1
# The default values between the response and the password, which is the last.
_DEFAULTS = tuple(field.default for field in fields(SecurityEvent)[_BEHIND_RESPONSE:-1])
_of_meaning = attrgetter("kind", "service", *FIELDS[_BEHIND_SESSION:])
_NOTICES = (
    _Notice(
        parse=pjsip_notice.parse_distributor,
        line=b"Request from '' failed for '%s' (callid: ) - %s",
        known=b"Failed to authenticate",
        groups=(0, 13, 14, 15, _REFUSED_WHY),
    ),
    _Notice(
        parse=chan_sip.parse,
        line=b"Registration from '' failed for '%s' - %s",
        known=b"Wrong password",
        groups=(0, 17, 18, -1, _UNREGISTERED_WHY),
    ),
)


class Ordinary:
    """Creates the events of ordinary lines of one log, as their formats would."""

    def __init__(self, source: SourceId, timezone: tzinfo | None) -> None:
        self._security = evolve(source, name=source.name + "#security")
        self._notice = evolve(source, name=source.name + "#notice")
        self._dates = DateReader(timezone)

    def events(self, lines: Sequence[Parts], now: float) -> list[Values]:
        """Return the events of some lines, in order."""
        by_kind = {KIND: self._of_security([line for line in lines if line[KIND]])}
        for notice in _NOTICES:
            by_kind[notice.shown] = self._of_notices(
                notice, [line for line in lines if line[notice.shown]], now
            )
        found = [(shown, events) for shown, events in by_kind.items() if events]
        if len(found) == 1:
            return [event for event in found[0][1] if event is not None]
        nexts = [(shown, iter(events)) for shown, events in found]
        mixed = (next(events) for line in lines for shown, events in nexts if line[shown])
        return [event for event in mixed if event is not None]

    def _of_security(self, lines: Sequence[Parts]) -> Sequence[Values | None]:
        """Return an event for each line, or None if one of its values is impossible."""
        if not lines:
            return []
        _, names, times, services, accounts, sessions, addresses, used, acls, *details = zip(
            *lines, strict=True
        )
        kinds = [KINDS.get(name) for name in names]
        seconds = _each(event_seconds, times)
        remotes = _each(parse_endpoint, addresses)
        # A message has either the first two details or the others.
        kept: list[Sequence[bytes]] = [
            acls,
            *([*map(bytes.__add__, details[at], details[at + 2])] for at in (0, 1)),
        ]
        if not WITH_DETAILS.issuperset(kinds):
            detailed = [kind in WITH_DETAILS for kind in kinds]
            kept = [
                [value if one else b"" for value, one in zip(values, detailed, strict=True)]
                for values in kept
            ]
        acl_names, challenges, responses = kept
        passwords: Iterable[bool] = repeat(False)  # noqa: FBT003 - a column of them
        if EventKind.SUCCESSFUL_AUTH in kinds:
            pairs = zip(kinds, used, strict=True)
            passwords = [kind is EventKind.SUCCESSFUL_AUTH and one == USED for kind, one in pairs]
        return _where_all_are(
            zip(
                *(repeat(self._security), kinds, map(_SERVICES.__getitem__, services), remotes, seconds),
                *(_each(text_of, accounts), sessions, _each(text_of, acl_names), challenges, responses),
                *map(repeat, _DEFAULTS),
                passwords,
                strict=False,
            ),
            *(kinds, seconds, remotes),
        )

    def _of_notices(self, notice: _Notice, lines: Sequence[Parts], now: float) -> Sequence[Values | None]:
        if not lines:
            return []
        columns = [*zip(*lines, strict=True), (b"",) * len(lines)]  # the last one is of no group
        dates, headers, addresses, sessions, reasons = (columns[group] for group in notice.groups)
        meanings = _each(notice.meaning, reasons)
        remotes = _each(notice.sender, addresses)
        some = notice.meaning(notice.known)
        kinds, services, *further = zip(*(_of_meaning(one or some) for one in meanings), strict=True)
        return _where_all_are(
            zip(
                *(repeat(self._notice), kinds, services, remotes, _each(partial(self._time, now), dates)),
                *(_each(sip_user, headers), sessions, *further),
                strict=False,
            ),
            *(meanings, remotes),
        )

    def _time(self, now: float, date: bytes) -> float:
        time = self._dates.seconds(date, now) if date else None
        return now if time is None else time


def _each(read: Callable[[bytes], _T], values: Sequence[bytes]) -> list[_T]:
    """Parse each distinct value once."""
    known = {value: read(value) for value in {*values}}
    return [*map(known.__getitem__, values)]


def _where_all_are(events: Iterable[Values], *columns: Sequence[object]) -> list[Values | None]:
    """Return None in place of each event for which one of the columns has None."""
    if all(map(all, columns)):
        return [*events]
    return [
        event if all(value is not None for value in needed) else None
        for event, *needed in zip(events, *columns, strict=True)
    ]
