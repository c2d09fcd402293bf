"""The text before a message in a log: date, level, thread, call, file (``main/logger.c``).

A file has ``[<date>] LEVEL[<thread>][C-<call>] <file>: <message>``; the console, ``[plain]`` and syslog have
``LEVEL[<thread>][C-<call>]: <file>:<line> <func>: <message>`` (syslog ``in <func>``). A dialplan's own lines
(``Log()``, ``apps/app_verbose.c``) have ``Ext. <extension>`` in place of a file, and the extension is what
the caller dialled. A syslog daemon, the journal or a container's log may add text before all that. Colour
codes may stand between the parts.

All patterns are anchored, and every part has a maximum length. So only the first few hundred bytes of a line
are examined.
"""

import re

from attrs import frozen

_COLOUR = rb"(?:(?:\x1b|#033|\^\[)\[[0-9;]{0,16}+m){0,8}"
_PARTS: tuple[bytes, ...] = (
    rb"(?:\[([^\[\]\n]{5,48}+)\] ?+)?",
    rb"([A-Z][A-Z0-9_]{2,15}+)",
    rb" ?+\[(\d{1,10}+)\](?:\[C-[0-9a-fA-F]{1,16}+\])?:?+ {1,4}+",
    rb"(?:(Ext\.) |([A-Za-z][A-Za-z0-9_./+-]{0,79}+)",
    rb"(?::",
    rb"\d{1,6}+",
    rb" (?:in )?",
    rb"[A-Za-z0-9_.<>~@-]{1,80}+",
    rb")?:[ \t]*+)",
)
PLAIN = re.compile(b"".join(_PARTS))
"""Matches a prefix without added text or colours.

Its groups are the date, the level, the thread, ``Ext.`` and the file. One of the last two is None.
"""
_COLOURED = re.compile(_COLOUR + _COLOUR.join(_PARTS))

_STAMP = (
    rb"(?:[A-Z][a-z]{2} )?(?:[A-Z][a-z]{2} {1,2}\d{1,2}|\d{4}-\d\d-\d\d)[ T]"
    rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9}+)? ?+(?:Z|[+-]\d\d:?\d\d|UTC)?|\d{9,11}\.\d{3,6}"
)
_ISO = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9}+)?(?:Z|[+-]\d\d:\d\d)"
# Only names of Asterisk and of container engines are accepted: other programs may write any text of a sender.
_IDENT = rb"(?:safe_)?asterisk(?:-[\w.-]{1,40}+)?|docker|podman|conmon|[0-9a-f]{12}"
_OUTER = re.compile(
    # docker compose logs
    rb"[\w.-]{1,64}+ {1,40}+\| (?:(" + _ISO + rb") )?"
    rb"|(?:<\d{1,3}>(?:1 )?)?(?:(" + _STAMP + rb") {0,2}+)?"
    rb"(?:[\w.-]{1,255}+ )?(?:" + _IDENT + rb")(?:/[\w.-]{1,64}+)?(?:\[\d{1,10}+\])?:? "
    # the prefix of containerd, and of docker logs -t
    rb"|(" + _ISO + rb") (?:std(?:out|err) [FP] )?"
)


@frozen
class Prefix:
    """The text of a line before its message.

    ``end`` is the position at which the message begins. A dialplan's line has ``Ext.`` as ``file``. ``date``
    is None if the line has none.
    """

    date: bytes | None
    level: bytes
    thread: bytes
    file: bytes
    end: int


DIALPLAN = b"Ext."


def parse_prefix(line: bytes) -> Prefix | None:
    """Parse a line's prefix. Return None if it has none: then the line does not begin a message."""
    found, stamp = PLAIN.match(line), None
    if found is None:
        start = 0
        outer = _OUTER.match(line)
        if outer is not None:
            start = outer.end()
            stamp = outer[1] or outer[2] or outer[3]
        found = PLAIN.match(line, start) or _COLOURED.match(line, start)
    if found is None:
        return None
    date, level, thread, dialplan, file = found.groups()
    return Prefix(date or (stamp.rstrip() if stamp else None), level, thread, dialplan or file, found.end())
