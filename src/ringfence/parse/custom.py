"""The administrator's own lines: a level, a file, and a pattern with one ``{address}`` and any ``{any}``.

A pattern is the whole message. ``{address}`` is an address, perhaps with a port; ``{any}`` is any text, also
none; all else is meant literally. It is no regular expression: the parts before the address are found from
the left, those behind it from the right, so a message is gone over once, whatever is in it. Where more than
one address would fit, somebody may have written one of them, and nobody is named.

The file is as Asterisk prints it, ``app_verbose.c`` or, for ``Log()`` in a dialplan, ``Ext. s``. With
``Ext.`` any extension is meant: callers choose it, so every place is tried where the message may begin.
"""

import re
from collections.abc import Iterator

from attrs import frozen

from ringfence.model import Endpoint, EventKind, SecurityEvent, Service, SourceId
from ringfence.parse.address import parse_source
from ringfence.parse.prefix import DIALPLAN
from ringfence.parse.reading import Why

_ADDRESS = re.compile(rb"[0-9A-Fa-f:.\[\]%]{2,80}+")
_MARK = re.compile(r"\{(address|any)\}")
_CONTEXT = re.compile(rb":\d{1,6}+ (?:in )?@ [^:\n]{0,80}+")
_MOST_STARTS = 16


@frozen
class Custom:
    """One such pattern; make it with :meth:`compile`. ``name`` becomes the event's ACL name.

    An empty level or file is any: to try a pattern, not to ban by it.
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
        """Make a pattern; ValueError says what is wrong with it."""
        left, address, right = pattern.partition("{address}")
        if not address or "{address}" in right:
            raise ValueError("the pattern needs {address} exactly once")
        if left.endswith("{any}") or right.startswith("{any}"):
            raise ValueError("{any} cannot touch {address}: put the words between them")
        if "\n" in pattern:
            raise ValueError("the pattern is one line")
        before, after = ([part.encode() for part in half.split("{any}")] for half in (left, right))
        return cls(name, level.encode(), file.encode(), tuple(before), tuple(after))

    def read(
        self, level: bytes, file: bytes, text: bytes, source: SourceId, time: float
    ) -> SecurityEvent | Why:
        """Read a message; ``text`` of a dialplan's begins with the extension."""
        if self.level and level != self.level:
            return Why.NOT_EVIDENCE
        found = {end for message in self._messages(file, text) for end in self._ends(message)}
        if not found:
            return Why.NOT_EVIDENCE
        if len(found) > 1:
            return Why.AMBIGUOUS
        return SecurityEvent(
            source,
            EventKind.FAILED_ACL,
            Service.DIALPLAN,
            found.pop(),
            time,
            "",
            b"",
            self.name,
            hearsay=self.forgeable,
        )

    @property
    def forgeable(self) -> bool:
        """Whether a sender could hide the address, and have written another before it.

        He can where an ESC of his may stand before the address (in an ``{any}`` or an extension), and the
        first ``m`` that follows for sure, which ends what the log leaves out, stands behind the address.
        """
        escaped = len(self.before) > 1 or self.file.startswith(DIALPLAN) or not self.file
        ended_before = b"m" in self.before[-1]
        return escaped and not ended_before and (len(self.after) > 1 or b"m" in self.after[0])

    def _messages(self, file: bytes, text: bytes) -> Iterator[bytes]:
        """Give what may be the message: all of it, or what stands behind a dialplan's extension."""
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
        """Give every address that fits."""
        first, last = _from_left(message, self.before), _from_right(message, self.after)
        if first is None or last is None:
            return
        words, tail = self.before[-1], self.after[0]
        at = first if len(self.before) == 1 else message.find(words, first)
        while first <= at <= last:
            start = at + len(words)
            found = _ADDRESS.match(message, start)
            if found is not None:
                # A colon or a full stop may belong to the words behind it.
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
    """Give where the last of ``parts`` may begin at the earliest."""
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
    """Give where the first of ``parts`` must end at the latest."""
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
    """Give what stands between the quotes that dialplans put around a message."""
    quoted = len(message) > 1 and message[:1] == message[-1:] == b'"'
    return message[1:-1] if quoted else message
