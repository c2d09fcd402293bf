r"""Parser of the nonces and Call-IDs in SIP requests of suspects, which the kernel copied from UDP.

Suspects are addresses that ringfence has asked the kernel to observe for some time. The sender wrote the
whole request. If a nonce occurs anywhere in it, the sender knows that nonce. So the whole request is searched
for nonces. It is read twice, as PJSIP and as chan_sip read it. Tested with a right password on Asterisk 16.28
(chan_sip) and 22.10.1 (PJSIP):

- Both find the parameter ``nonce`` in upper or lower case, and end a quoted value at the next quote. They
  undo no escapes, so a nonce with backslashes or ``%XX`` is invalid. Of several nonces in a header the last
  one counts.
- PJSIP allows white space and folds around ``=``. Its nonces contain a slash, so they are always quoted.
- chan_sip first removes every CR, joins folded lines and shortens white space
  (``channels/chan_sip.c:lws2sws``). It accepts an unquoted nonce, one without a closing quote, and one that a
  NUL ends, and it ignores case. Asterisk's own nonces are in lower case, so nonces are returned in lower
  case.
- Both answer with the first Call-ID or i header, and keep white space after its value. PJSIP ends a line at
  CR LF, LF, CR, and at ``&`` after a number; chan_sip at LF. chan_sip leaves out all bytes up to 0x20 before
  the value, and ends it at a NUL.

Limits: a sender can hide the true nonce or Call-ID by writing more of them than are kept. If a request is
fragmented, the kernel copies only the first fragment, unless connection tracking reassembles the request.
"""

import re
from collections.abc import Iterator
from itertools import islice

from ringfence.model import ObservedRequest
from ringfence.parse.packet import UDP, ip_payload, packed_address, udp_datagram

MOST_NONCES = 64
MOST_CALL_IDS = 4

# The maximum number of occurrences of "nonce" that are examined, which bounds the time. The true one may lie
# in what looks like the value of an earlier one (``x="nonce=", nonce="…"``). So values are searched too.
_MOST_LOOKED_AT = 512
_NONCE = re.compile(rb"(?<![-.!%*_+`'~0-9a-z])nonce[ \t\r\n]*+=[ \t\r\n]*+", re.IGNORECASE)
_VALUE = re.compile(rb'"([^"\0\r\n]{1,256}+)(?=["\0\r\n]|\Z)|([^\s",;\0]{1,256}+)(?![^\s",;\0])')
_CALL_ID = re.compile(
    rb"[\r\n&](?:call-id|i)(?:[ \t]|[\r\n]++[ \t])*+:(?:[ \t]|\r?+\n[ \t])*+([^\r\n\0]*+)", re.IGNORECASE
)
_CALL_ID_OF_CHAN_SIP = re.compile(
    rb"\n(?:call-id|i)(?:[\x01-\t\x0b-\x20]|\n[ \t])*+:([^\n\0]*+(?:\n[ \t][^\n\0]*+)*)", re.IGNORECASE
)
_BLANK = bytes(range(1, 0x21))
_WHITE = re.compile(rb"([ \t])[ \t]++")
_MOST_SHORTENED = 1024  # bytes; the white space inside a longer Call-ID stays as it is


def parse_observed(packet: bytes) -> ObservedRequest | None:
    """Parse a packet from its IP header on; None for a later fragment, or if it is not valid UDP."""
    whole = ip_payload(packet)
    if whole is None or whole[0] != UDP:
        return None
    _, source, _, payload, may_be_cut = whole
    datagram = udp_datagram(payload, may_be_cut=may_be_cut)
    if datagram is None:
        return None
    port, _, request = datagram
    by_chan_sip = request.replace(b"\r", b"")
    return ObservedRequest(
        packed_address(source),
        port,
        _first(_nonces(request, by_chan_sip), MOST_NONCES),
        _first(_call_ids(request, by_chan_sip), MOST_CALL_IDS),
    )


def _first(values: Iterator[bytes], most: int) -> tuple[bytes, ...]:
    """Return the first ``most`` distinct values."""
    found: dict[bytes, None] = {}
    for value in values:
        found[value] = None
        if len(found) == most:
            break
    return tuple(found)


def _nonces(*readings: bytes) -> Iterator[bytes]:
    for text in readings:
        for name in islice(_NONCE.finditer(text), _MOST_LOOKED_AT):
            value = _VALUE.match(text, name.end())
            if value is not None:
                yield (value[1] or value[2]).lower()


def _call_ids(request: bytes, by_chan_sip: bytes) -> Iterator[bytes]:
    """Yield the Call-ID that chan_sip uses, and then each that PJSIP may use.

    ``by_chan_sip`` is the request as chan_sip reads it: without CR.
    """
    match = _CALL_ID_OF_CHAN_SIP.search(by_chan_sip)
    if match is not None:
        value = match[1].replace(b"\n", b"")
        yield (_WHITE.sub(rb"\1", value) if len(value) <= _MOST_SHORTENED else value).lstrip(_BLANK)
    for match in islice(_CALL_ID.finditer(request), _MOST_LOOKED_AT):
        yield match[1]
