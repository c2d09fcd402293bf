"""The text before a message in a log: date, level, thread, call, file (``main/logger.c``).

A file has ``[<date>] LEVEL[<thread>][C-<call>] <file>: <message>``; the console, ``[plain]`` and syslog have
``LEVEL[<thread>][C-<call>]: <file>:<line> <func>: <message>`` (syslog ``in <func>``). A dialplan's own lines
(``Log()``, ``apps/app_verbose.c``) have ``Ext. <extension>`` in place of a file, and the extension is what
the caller dialled. A syslog daemon, the journal or a container's log may add text before all that. Colour
codes may stand between the parts.

The added text names the program that wrote the line. Names of Asterisk and of container engines are accepted
as they are. Any other name counts only if it contains a word such as ``pbx``, and if Asterisk's own date
follows: another program may log text of strangers. The month of an added date may be in any language.

All patterns are anchored, and every part has a maximum length. So only the first few hundred bytes of a line
are examined.
"""

import re

from attrs import frozen

_COLOUR = rb"(?:(?:\x1b|#033|\^\[)\[[0-9;]{0,16}+m){0,8}"
_PARTS: tuple[bytes, ...] = (
    rb"(?:\[([^\[\]\n]{5,48}+)\] {0,4}+)?",
    rb"([A-Z][A-Z0-9_]{2,15}+)",
    rb" ?+\[(\d{1,10}+)\](?:\[C-[0-9a-fA-F]{1,16}+\])?(:?+) {1,4}+",
    rb"(?:(Ext\.) |([A-Za-z][A-Za-z0-9_./+-]{0,79}+)",
    rb"(?::",
    rb"\d{1,6}+",
    rb" (in )?",
    rb"[A-Za-z0-9_.<>~@-]{1,80}+",
    rb")?:[ \t]*+)",
)
PLAIN = re.compile(b"".join(_PARTS))
"""Matches the prefix of a log line (date, level, file) without added text or colours.

Its groups are the date, the level, the thread, a console's colon, ``Ext.``, the file, and syslog's ``in``.
``Ext.`` or the file is None.
"""
_COLOURED = re.compile(_COLOUR + _COLOUR.join(_PARTS))
_COLOUR_CODE = re.compile(rb"(?:\x1b|#033|\^\[)\[[0-9;]{0,16}+m")
ANOTHER = re.compile(rb"\] {0,4}+" + _COLOUR + rb"[A-Z][A-Z0-9_]{2,15}+" + _COLOUR + rb" ?+\[\d")
"""Matches within another prefix on the same line: a sender wrote it, or Asterisk lost the LF before it."""

_CLOCK = rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9}+)?"
_STAMP = (
    rb"(?:[A-Z][a-z]{2} )?(?:[A-Z][a-z]{2} {1,2}\d{1,2}|\d{4}-\d\d-\d\d)[ T]"
    + _CLOCK
    + rb" ?+(?:Z|[+-]\d\d:?\d\d|UTC)?|\d{9,11}\.\d{3,6}"
)
_ISO = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9}+)?(?:Z|[+-]\d\d:\d\d)"
CRI = re.compile(_ISO + rb" (std(?:out|err)) ([FP]) ")
"""Matches what containerd and podman write before a line (``F``), or before a piece that does not end it."""
_PROCESS = rb"(?:/[\w.-]{1,64}+)?(?:\[\d{1,10}+\])?"
_FIELDS_5424 = rb" (?:\d{1,10}+|-) [\w.-]{1,128}+ (?:-|\[[^\]\n]{0,256}+\]) (?:\xef\xbb\xbf)?"
# A blank without a colon may follow the name, but not the name of a program: that is then behind the host's.
_BLANK = (
    rb" (?:(?=[A-Z][A-Z0-9_]{2,15}+\[)|(?![\w.@/-]{1,128}+(?:(?:\[\d{1,10}+\])?: |" + _FIELDS_5424 + rb")))"
)
_IDENT = rb"(?:safe_)?asterisk(?:[-.][\w.-]{1,40}+)?|docker|podman|conmon|[0-9a-f]{12}"
_OUTER = re.compile(
    # docker compose logs, docker service logs
    _COLOUR
    + rb"[\w.@-]{1,128}+ {1,40}+\| "
    + _COLOUR
    + rb"(?:("
    + _ISO
    + rb") )?"
    # syslog, the journal; RFC 5424 has more fields after the name
    + rb"|(?:<\d{1,3}>(?:1 )?)?(?:("
    + _STAMP
    + rb") {0,2}+)?(?:[\w.-]{1,255}+ )?(?P<ident>"
    + _IDENT
    + rb")"
    + _PROCESS
    + rb"(?:"
    + _FIELDS_5424
    + rb"|: |"
    + _BLANK
    + rb")"
    # the prefix of containerd, and of docker logs -t
    + rb"|(?P<bare>"
    + _ISO
    + rb") (?:std(?:out|err) [FP] )?"
)

# Added text of other programs, or of a container with any name; the dates of every language. Between the
# first word and the clock are at most a weekday, a month and a day of the month.
_WORD = rb"[^\s\[\]|\"'<>{}=:]{1,40}+"  # with a colon it would be a program's name
_ANY_STAMP = rb"(?:" + _WORD + rb" {1,2}){0,3}" + _CLOCK + rb"(?: ?+(?:Z|[+-]\d\d:?\d\d|[A-Z]{2,5}))?"
_ANY_OUTER = re.compile(
    rb"(?:<\d{1,3}>(?:1 )?)?(?:"
    + _ANY_STAMP
    + rb"|\d{4}-\d\d-\d\d[T_]"
    + _CLOCK
    + rb"(?:Z|[+-]\d\d:?\d\d)?|\d{9,11}\.\d{3,6}|\[ {0,8}\d{1,10}\.\d{3,6}\]|@[0-9a-f]{24})"
    + rb"(?: (?:[\w.-]{1,255}+ )?(?P<name>[\w.@/-]{1,128}+)(?:"
    + _FIELDS_5424
    + rb"|(?:\[\d{1,10}+\])?: )| )"
    + rb"|(?P<alone>[\w.@/-]{1,128}+)(?:\[\d{1,10}+\])?: "
    + rb"|\[(?:pod|container)/[\w./-]{1,255}+\] "
)
_ASTERISKS_NAME = re.compile(rb"[\w.@/-]{0,120}?(?:asterisk|pbx|pabx|voip|issabel)", re.IGNORECASE)
"""Matches the program names of Asterisk and its containers; other programs may log strangers' text."""


@frozen
class Prefix:
    """The text of a log line before its message: date, level, thread and Asterisk's source file.

    ``end`` is the position at which the message begins. A dialplan's line has ``Ext.`` as ``file``. ``date``
    is None if the line has none. ``start`` is where Asterisk's own text begins, after the added text.
    ``is_of_console``: it has the form of a console, which also writes lines without a prefix.
    ``is_of_syslog``: it has the form that Asterisk sends to a syslog daemon.
    """

    date: bytes | None
    level: bytes
    thread: bytes
    file: bytes
    end: int
    start: int = 0
    is_of_console: bool = False
    is_of_syslog: bool = False


DIALPLAN = b"Ext."


def own_prefix(line: bytes) -> Prefix | None:
    """Parse the prefix of a log line to which no program added text; None if it has none."""
    found = PLAIN.match(line)
    return None if found is None else _prefix_of(found)


def _prefix_of(found: re.Match[bytes], stamp: bytes | None = None) -> Prefix:
    date, level, thread, colon, dialplan, file, syslog = found.groups()
    date = date or (stamp.rstrip() if stamp else None)
    forms = bool(colon), bool(syslog)
    return Prefix(date, level, thread, dialplan or file, found.end(), found.start(), *forms)


def parse_prefix(line: bytes) -> Prefix | None:
    """Parse a log line's prefix; return None if it has none, and so begins no message."""
    found, stamp, start = PLAIN.match(line), None, 0
    if found is None:
        outer = _OUTER.match(line)
        if outer is not None:
            start = outer.end()
            stamp = outer[1] or outer[2] or outer["bare"]
        found = PLAIN.match(line, start) or _COLOURED.match(line, start)
    if found is None:
        start = _end_of_added(line)
        found = (PLAIN.match(line, start) or _COLOURED.match(line, start)) if start else None
        if found is None or found[1] is None:
            return None
    return _prefix_of(found, stamp)


def names_program(line: bytes) -> bool:
    """Whether the text that another program added to ``line`` names the program that wrote the line."""
    found, other = _OUTER.match(line), _ANY_OUTER.match(line)
    return (found is not None and bool(found["ident"])) or (
        other is not None and bool(other["name"] or other["alone"])
    )


def strip_added(line: bytes, *, named: bool = False) -> tuple[bytes, bool]:
    """Remove text that another program added to a line without a prefix; return also if the line is foreign.

    A foreign line is one of another program than Asterisk. Such a line is unchanged, as is one that may be
    Asterisk's. ``named``: the messages of this log name their program, so a date alone is no added text.
    """
    found = _OUTER.match(line)
    if found is not None and not (named and found["bare"]):
        return line[found.end() :], False
    found = _ANY_OUTER.match(line)
    return line, found is not None and found["name"] is not None and not _may_be_asterisk(found)


MOST_REPEATED = 100
"""The maximum number of times that a repeated message counts: more than any rule needs of a stranger."""
_REPEATED = re.compile(rb"message repeated (\d{1,9}+) times: \[ ?")


def unrepeated(line: bytes) -> tuple[bytes, int]:
    """Return the message that rsyslog repeats, with its prefix, and how often; else ``line`` and 1."""
    outer = _OUTER.match(line) if b": message repeated " in line else None
    found = _REPEATED.match(line, outer.end()) if outer is not None else None
    if found is None or not line.endswith(b"]"):
        return line, 1
    return line[: found.start()] + line[found.end() : -1], min(int(found[1]), MOST_REPEATED)


def _end_of_added(line: bytes) -> int:
    """Return the end of the text that a program such as syslog added before a log line; 0 without such text.

    Text of a program that is not known to log for Asterisk counts as a part of the line: return 0.
    """
    found = _ANY_OUTER.match(line)
    return found.end() if found is not None and _may_be_asterisk(found) else 0


def _may_be_asterisk(added: re.Match[bytes]) -> bool:
    name = added["name"] or added["alone"]
    return name is None or _ASTERISKS_NAME.match(name) is not None


_MOST_BRACKETS = 1  # of a prefix without date, call and colours


def without_added(line: bytes) -> bytes | None:
    """Return a line as Asterisk's log file has it: the date first, without added text and colours.

    Return None if the line does not begin a message.
    """
    if PLAIN.match(line):
        return line
    prefix = parse_prefix(line)
    if prefix is None:
        return None
    own = line[prefix.start : prefix.end]
    if own.count(b"[") > _MOST_BRACKETS:
        own = _COLOUR_CODE.sub(b"", own)
    date = b"" if own.startswith(b"[") or prefix.date is None else b"[" + prefix.date + b"] "
    return date + own + line[prefix.end :]
