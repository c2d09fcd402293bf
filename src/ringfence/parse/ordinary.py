"""The commonest lines of a log, cut out of many at once: SECURITY, and PJSIP's and chan_sip's refusals.

One pattern finds the parts of all lines in one call. It takes only what is plain: a whole message on a line
of its own, with nothing in it that could hide another. What the parts mean is asked of the formats themselves
(:mod:`ringfence.parse.formats`), once for all lines that say the same.

An event here is a row of its values, in the order of :class:`SecurityEvent`: to make the event of it takes
longer than to find its values.
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
from ringfence.parse.formats import FORMATS
from ringfence.parse.log import DUMP_FILES
from ringfence.parse.reading import Said, sip_user, text_of
from ringfence.parse.security import KINDS, TELLING, USED, event_seconds

Values = tuple[Any, ...]
"""The values of an event: ``SecurityEvent(*values)`` is the event."""

Parts = tuple[bytes, ...]
"""What the pattern finds of a line."""

_T = TypeVar("_T")
FIELDS = tuple(field.name for field in fields(SecurityEvent))
"""The names of the values."""

values_of: Callable[[SecurityEvent], Values] = attrgetter(*FIELDS)

_THREAD = rb" ?+\[\d{1,10}+\](?:\[C-[0-9a-fA-F]{1,16}+\])?:?+ {1,4}+"
_PLACE = rb"(?::\d{1,6}+ (?:in )?[A-Za-z0-9_.<>~@-]{1,80}+)?:[ \t]*+"
_HEADER = rb"[^'\n\x1b]{0,1000}+"
# An @ is a value. It has a greatest length, so that no line is as long as those that Asterisk cuts.
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
        # What is never evidence.
        rb"[A-Z][A-Z0-9_]{2,15}+" + _THREAD + rb"(?!(?:" + _EVIDENCE + rb")[: ])"
        rb"[A-Za-z][A-Za-z0-9_./+-]{0,79}+" + _PLACE + rb"[^\n]{0,7000}+"
        rb")\n|([^\n]++\n?|\n)"
    )


# To look for one byte takes two thirds of the time that it takes to look for one of two.
_QUICK = _line(rb'[^"]{0,1000}+')
_strict = cache(partial(_line, rb'[^"\n]{0,1000}+'))
# Where among the parts stands what shows which line it is; all are empty where it is never evidence.
KIND, _REFUSED_WHY, _UNREGISTERED_WHY, OTHER = 1, 16, 19, 20
# And the other parts of a SECURITY line, as Asterisk wrote them.
TIME, SERVICE, _, SESSION, REMOTE = range(KIND + 1, KIND + 6)

other_of = itemgetter(OTHER)


def parts_of(lines: bytes) -> list[Parts]:
    """Give the parts of each line; of one that is not ordinary, the line itself as ``OTHER``."""
    found: list[Parts] = _QUICK.findall(lines)
    if len(found) == lines.count(b"\n") + (lines[-1:] not in (b"\n", b"")):
        return found
    return _strict().findall(lines)  # a value went on over the end of its line


@frozen(eq=False)
class _Notice:
    """One kind of NOTICE, and how its format is asked about a part of it: by a line without the rest.

    ``groups`` says where among the parts its date, header, address, session (-1: it has none) and reason
    stand. ``known`` is a reason that it has.
    """

    read: Callable[[bytes, SourceId, float], Said]
    line: bytes
    known: bytes
    groups: tuple[int, int, int, int, int]

    @property
    def shown(self) -> int:
        """Where something stands exactly if it is such a line."""
        return self.groups[-1]

    def meaning(self, reason: bytes) -> SecurityEvent | None:
        """Give an event with this reason, if that is one."""
        return self._said(_SOMEWHERE, reason)

    def sender(self, address: bytes) -> Endpoint | None:
        """Give who is meant by an address, if it is one."""
        said = self._said(address, self.known)
        return None if said is None else said.remote

    def _said(self, address: bytes, reason: bytes) -> SecurityEvent | None:
        said = self.read(self.line % (address, reason), _NOBODY, 0.0)
        return said if isinstance(said, SecurityEvent) else None


_NOBODY = SourceId("", "")
_SOMEWHERE = b"192.0.2.1"
_SERVICES = {str(service).encode(): service for service in Service}
_BEHIND_SESSION, _BEHIND_RESPONSE = FIELDS.index("session") + 1, FIELDS.index("response") + 1
# What stands between the response and the password, which is the last.
_DEFAULTS = tuple(field.default for field in fields(SecurityEvent)[_BEHIND_RESPONSE:-1])
_of_meaning = attrgetter("kind", "service", *FIELDS[_BEHIND_SESSION:])
_NOTICES = (
    _Notice(
        read=pjsip_notice.read_distributor,
        line=b"Request from '' failed for '%s' (callid: ) - %s",
        known=b"Failed to authenticate",
        groups=(0, 13, 14, 15, _REFUSED_WHY),
    ),
    _Notice(
        read=chan_sip.read,
        line=b"Registration from '' failed for '%s' - %s",
        known=b"Wrong password",
        groups=(0, 17, 18, -1, _UNREGISTERED_WHY),
    ),
)


class Ordinary:
    """Makes the events of ordinary lines of one log: those that their formats would make."""

    def __init__(self, source: SourceId, timezone: tzinfo | None) -> None:
        self._security = evolve(source, witness=source.witness + "#security")
        self._notice = evolve(source, witness=source.witness + "#notice")
        self._dates = DateReader(timezone)

    def events(self, lines: Sequence[Parts], now: float) -> list[Values]:
        """Give the events of some lines, in order."""
        told = {KIND: self._of_security([line for line in lines if line[KIND]])}
        for notice in _NOTICES:
            told[notice.shown] = self._of_notices(notice, [line for line in lines if line[notice.shown]], now)
        stories = [(shown, events) for shown, events in told.items() if events]
        if len(stories) == 1:
            return [event for event in stories[0][1] if event is not None]
        nexts = [(shown, iter(events)) for shown, events in stories]
        mixed = (next(events) for line in lines for shown, events in nexts if line[shown])
        return [event for event in mixed if event is not None]

    def _of_security(self, lines: Sequence[Parts]) -> Sequence[Values | None]:
        """Give an event for each line, or None where a value of it is not possible."""
        if not lines:
            return []
        _, names, times, services, accounts, sessions, addresses, used, acls, *details = zip(
            *lines, strict=True
        )
        kinds = [KINDS.get(name) for name in names]
        seconds = _each(event_seconds, times)
        remotes = _each(parse_endpoint, addresses)
        # A message has either the first two of them or the others.
        told: list[Sequence[bytes]] = [
            acls,
            *([*map(bytes.__add__, details[at], details[at + 2])] for at in (0, 1)),
        ]
        if not TELLING.issuperset(kinds):
            tells = [kind in TELLING for kind in kinds]
            told = [
                [value if tell else b"" for value, tell in zip(values, tells, strict=True)] for values in told
            ]
        acl_names, challenges, responses = told
        passwords: Iterable[bool] = repeat(False)  # noqa: FBT003 - a column of them
        if EventKind.SUCCESSFUL_AUTH in kinds:
            said = zip(kinds, used, strict=True)
            passwords = [kind is EventKind.SUCCESSFUL_AUTH and one == USED for kind, one in said]
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
    """Read each value, and what comes again only once."""
    known = {value: read(value) for value in {*values}}
    return [*map(known.__getitem__, values)]


def _where_all_are(events: Iterable[Values], *columns: Sequence[object]) -> list[Values | None]:
    """Give None in place of the events for which one of the columns has None."""
    if all(map(all, columns)):
        return [*events]
    return [
        event if all(value is not None for value in needed) else None
        for event, *needed in zip(events, *columns, strict=True)
    ]
