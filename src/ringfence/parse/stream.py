"""SIP messages in one segment of TCP: bare, or each in a text frame of a WebSocket.

Asterisk writes each message with one call, so a segment usually begins with one. Under load one segment holds
several, and its last one may continue in the next segment (tested with 20 requests in one segment on 16.28).
A server's frame is not masked: 0x81, then a length of 7 bits or 0x7e and a length of 16 bits (RFC 6455 §5.2).
A frame holds one message (RFC 7118 §5).

A segment may also begin in the middle of a message, above all if it is retransmitted. If Asterisk forwards a
user's text (MESSAGE), that text may begin such a segment. So only the destination of a parsed answer is
certain, not its contents.
"""

import re
from collections.abc import Iterator

MOST_MESSAGES = 64
"""At most this many messages of one segment are read."""

_EOL = b"\r\n"
_START = b"SIP/2.0 "
_LONG = 0x7E
# chan_sip writes the full name, PJSIP either name.
_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*+:[ \t]*+([0-9]{1,9}+)[ \t]*+(?=\r\n)", re.IGNORECASE)
_ANY_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*+:", re.IGNORECASE)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the bytes of each message; the last one may be incomplete.

    Yield nothing if the segment does not begin with a SIP answer. The generator stops after a message whose
    end is uncertain.
    """
    offset = 0
    for _ in range(MOST_MESSAGES):
        if offset >= len(data):
            return
        start, end = _frame(data, offset) if data[offset : offset + 1] == b"\x81" else (offset, -1)
        if offset == 0 and not data.startswith(_START, start):
            return
        if end < 0:
            end = _end_of(data, start)
        if end < 0 or end > len(data):
            yield offset, data[start:]
            return
        yield offset, data[start:end]
        offset = end


def _frame(data: bytes, offset: int) -> tuple[int, int]:
    """Return the start and end of a text frame's content.

    The start is beyond the data if there is no such frame.
    """
    length = data[offset + 1] if offset + 1 < len(data) else _LONG + 1
    if length < _LONG:
        return offset + 2, offset + 2 + length
    if length == _LONG:
        start = offset + 4
        return start, start + int.from_bytes(data[offset + 2 : start], "big")
    return len(data), len(data)


def _end_of(data: bytes, start: int) -> int:
    """Return where the message that begins at ``start`` ends, -1 if that is uncertain."""
    head = data.find(_EOL + _EOL, start)
    if head < 0:
        return -1
    lengths = _ANY_LENGTH.findall(data, start, head + len(_EOL))
    length = _LENGTH.search(data, start, head + len(_EOL))
    if length is None or len(lengths) > 1:
        return -1
    return head + 2 * len(_EOL) + int(length[1])
