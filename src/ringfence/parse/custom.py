"""Patterns of the administrator: a level, a file, and a text with one ``{address}`` and perhaps ``{any}``.

A pattern describes the whole message. ``{address}`` is an address, perhaps with a port. ``{any}`` is any
text, also an empty one. Everything else is literal: patterns are no regular expressions. The parts before the
address are found from the left and the parts after it from the right, so each message is scanned once,
whatever it holds. If more than one address fits, a sender may have written one of them, and no address is
returned.

The file is the one that Asterisk prints in the line: ``app_verbose.c``, or ``Ext. s`` for ``Log()`` in a
dialplan. ``Ext.`` means any extension. A ``: `` ends the extension. But callers choose the extension, so it
may contain a ``: `` itself. So each of the first ``_MOST_STARTS`` positions after a ``: `` is tried as the
beginning of the message.
"""

import re
from collections.abc import Iterator

from attrs import frozen

from ringfence.parse.address import parse_source
from ringfence.parse.line_result import Reason
from ringfence.parse.prefix import DIALPLAN
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, SourceId

_ADDRESS = re.compile(rb"[0-9A-Fa-f:.\[\]%]{2,80}+")
_MARK = re.compile(r"\{(address|any)\}")
_CONTEXT = re.compile(rb":\d{1,6}+ (?:in )?@ [^:\n]{0,80}+")
_MOST_STARTS = 16


@frozen
class Custom:
    """An administrator's pattern for log lines of the dialplan. ``name`` becomes the event's ACL name.

    ``before`` and ``after`` are the literal texts on both sides of ``{address}``, split at each ``{any}``. An
    empty ``level`` matches lines of every level, and an empty ``file`` lines of every source file of
    Asterisk. Leave them empty only to try a pattern, and not for bans: a sender may write the same words into
    a line of another part of Asterisk.
    """

    name: str
    level: bytes
    file: bytes
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]

    @classmethod
    def compile(
        cls, pattern: str, *, level: str = "NOTICE", file: str = "Ext.", name: str = "custom"
    ) -> "Custom":
        """Compile the text ``pattern`` with one ``{address}`` and perhaps ``{any}``, which is any text.

        A line must also have the log ``level``, and come from the source ``file`` of Asterisk; ``Ext.`` is
        ``Log()`` at any extension. "" matches any. ``name`` becomes the ACL name of the pattern's events.
        Raise ValueError, which names the mistake in the pattern.
        """
        left, address, right = pattern.partition("{address}")
        if not address or "{address}" in right:
            raise ValueError("the pattern needs {address} exactly once")
        if left.endswith("{any}") or right.startswith("{any}"):
            raise ValueError("{any} cannot touch {address}: put the words between them")
        if "\n" in pattern:
            raise ValueError("the pattern is one line")
        before, after = ([part.encode() for part in half.split("{any}")] for half in (left, right))
        return cls(name, level.encode(), file.encode(), tuple(before), tuple(after))

    def parse(
        self,
        level: bytes,
        file: bytes,
        text: bytes,
        source: SourceId,
        time: float,
        *,
        may_be_cut: bool = False,
    ) -> SecurityEvent | Reason:
        """Return the event, at ``time`` (epoch), of a log message with this level and source file.

        The ``text`` of a dialplan begins with the extension. ``may_be_cut``: an address after an
        ``{any}`` may be a part of that text, so the event is forgeable. (An extension is too short for that.)

        Return NOT_EVIDENCE if the message does not match the pattern, and AMBIGUOUS if several addresses fit.
        """
        if self.level and level != self.level:
            return Reason.NOT_EVIDENCE
        found = {end for message in self._messages(file, text) for end in self._ends(message)}
        if not found:
            return Reason.NOT_EVIDENCE
        if len(found) > 1:
            return Reason.AMBIGUOUS
        return SecurityEvent(
            source,
            EventKind.FAILED_ACL,
            Service.DIALPLAN,
            found.pop(),
            time,
            "",
            b"",
            self.name,
            forgeable=self.forgeable or (may_be_cut and len(self.before) > 1),
        )

    @property
    def forgeable(self) -> bool:
        """Whether a sender could make a matching line name a false address instead of the true one.

        An ESC in the sender's text makes the log leave out everything up to the next ``m``. The true address
        is left out if all of these hold:

        - The sender's text (an ``{any}`` or an extension) stands before the address.
        - The pattern has no ``m`` between that text and the address.
        - An ``m`` or an ``{any}`` follows the address.
        """
        escaped = len(self.before) > 1 or self.file.startswith(DIALPLAN) or not self.file
        ended_before = b"m" in self.before[-1]
        return escaped and not ended_before and (len(self.after) > 1 or b"m" in self.after[0])

    def _messages(self, file: bytes, text: bytes) -> Iterator[bytes]:
        """Yield the messages that ``text`` may have: all of it, or what follows a dialplan's extension."""
        if file != DIALPLAN:
            if not self.file or file == self.file:
                yield _unquoted(text)
            return
        wanted = self.file.removeprefix(DIALPLAN).lstrip()
        if (self.file and not self.file.startswith(DIALPLAN)) or not text.startswith(wanted):
            return
        at = len(wanted)
        context = _CONTEXT.match(text, at)
        if wanted:
            at = context.end() if context else at
            if text.startswith(b": ", at):
                yield _unquoted(text[at + 2 :])
            return
        for _ in range(_MOST_STARTS):
            at = text.find(b": ", at)
            if at < 0:
                return
            at += 2
            yield _unquoted(text[at:])

    def _ends(self, message: bytes) -> Iterator[Endpoint]:
        """Yield each address in the message with which the whole message matches the pattern."""
        first, last = _from_left(message, self.before), _from_right(message, self.after)
        if first is None or last is None:
            return
        words, tail = self.before[-1], self.after[0]
        at = first if len(self.before) == 1 else message.find(words, first)
        while first <= at <= last:
            start = at + len(words)
            found = _ADDRESS.match(message, start)
            if found is not None:
                # Also try without the last byte: a colon or full stop may be a part of the pattern instead.
                for end in range(found.end(), max(start, found.end() - 2), -1):
                    fits = end + len(tail) == last if len(self.after) == 1 else end + len(tail) <= last
                    remote = (
                        parse_source(message[start:end]) if fits and message.startswith(tail, end) else None
                    )
                    if remote is not None:
                        yield remote
            if len(self.before) == 1 or not words:
                return
            at = message.find(words, at + 1)


def _from_left(message: bytes, parts: tuple[bytes, ...]) -> int | None:
    """Match all ``parts`` but the last; return the first position at which the last part may begin.

    ``parts`` are the pattern's literal texts before the address. The first part must be at the start of the
    message, and the others must follow in this order, with any text between them. Return None if a part is
    missing. The caller searches for the last part. A single part must be at the start: return 0.
    """
    if not message.startswith(parts[0]):
        return None
    at = len(parts[0]) if len(parts) > 1 else 0
    for part in parts[1:-1]:
        found = message.find(part, at)
        if found < 0:
            return None
        at = found + len(part)
    return at


def _from_right(message: bytes, parts: tuple[bytes, ...]) -> int | None:
    """Match all ``parts`` but the first; return the last position at which the first part may end.

    ``parts`` are the pattern's literal texts after the address. The last part must be at the end of the
    message, and the others before it in this order, with any text between them. Return None if a part is
    missing. The caller searches for the first part. A single part must be at the end: return the length of
    the message.
    """
    if not message.endswith(parts[-1]):
        return None
    at = len(message) - (len(parts[-1]) if len(parts) > 1 else 0)
    for part in parts[-2:0:-1]:
        found = message.rfind(part, 0, at)
        if found < 0:
            return None
        at = found
    return at


def _unquoted(message: bytes) -> bytes:
    """Return a message without the quotes that dialplans put around it; unchanged if it has none."""
    quoted = len(message) > 1 and message[:1] == message[-1:] == b'"'
    return message[1:-1] if quoted else message
