"""SIP packets in a log: pjproject writes them at ERROR, ``sip set debug`` at VERBOSE."""

import re
from collections.abc import Sequence

from ringfence.parse.prefix import Prefix, own_prefix
from ringfence.parse.wrappers import CleanLine, JsonMessage, Line

FILES = frozenset({b"pjproject", b"res_pjsip_logger.c", b"chan_sip.c"})
START = re.compile(
    rb"(?:[\w.]{1,40}+ {1,8}+)?Error processing [^\n]{0,40}packet from "
    rb"|<--- SIP read from |<--- Received SIP \w{1,16}+ \((?P<size>\d{1,6}+) bytes\)"
)
"""The beginning of a log message that contains a SIP packet, with the packet's size if stated."""
END = re.compile(rb"-- end of packet\.\r?|<-{5,40}>\r?")
SHOWN = re.compile(
    rb"<--- (?:SIP read from [\w.:\[\]]{3,80}+"
    rb"|Received SIP (?:request|response) \((?P<size>\d{1,5}+) bytes\) from [\w.:\[\]]{3,80}+) --->"
)
"""The line that Asterisk's console writes above a SIP packet."""
SHOWN_START = re.compile(
    rb"[A-Z]{3,20}+ (?:sips?|tel|urn):[^ \n]{0,8192}+ SIP/2\.0|SIP/2\.0 \d{3} [^\n]{0,512}+"
)
SHOWN_HEADER = re.compile(rb"[A-Za-z][\w-]{0,40}+[ \t]{0,8}+:")


def begins_dump(line: bytes, first: Prefix) -> bool:
    """Whether ``line`` begins a logged SIP packet of the same thread and source file as the previous one.

    ``first`` is the prefix of the previous packet's first line. A sender cannot forge such a line, because
    the sender does not know the number of the thread.
    """
    prefix = own_prefix(line)
    same = prefix is not None and (prefix.thread, prefix.file) == (first.thread, first.file)
    return same and prefix is not None and START.match(line, prefix.end) is not None


def _lost(line: Line) -> int:
    return line.lost if isinstance(line, CleanLine) else 0


def end_of_dump(
    lines: Sequence[bytes | JsonMessage], at: int, first: Prefix, stated: int, most: int, *, final: bool
) -> int | None:
    """Return the index of the first line after the logged SIP packet that begins at line ``at``.

    Return None if the lines so far do not show where the packet ends. ``first`` is the prefix of the packet's
    first line. ``stated`` is the packet's size if Asterisk states it, else 0. ``most`` is the maximum length
    of a message, both in bytes. ``final``: no more lines follow.
    """
    size, end = 0, None
    added = min(_lost(lines[at]), 1)  # a terminal adds a CR to each line
    for index in range(at + 1, len(lines)):
        line = lines[index]
        if stated and size >= stated:  # the packet's last line may have no LF
            return index
        size += len(line) + 1 + max(0, _lost(line) - added) if isinstance(line, bytes) else most
        if size > most:
            return (end or index) if not stated else index
        if stated or not isinstance(line, bytes):
            continue
        if END.fullmatch(line):
            end = index + 1
        elif end is not None and begins_dump(line, first):
            return end
    return (end or len(lines)) if final else None
