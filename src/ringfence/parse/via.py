r"""The Vias of Asterisk's own answer: which address sent the request, and whether the answer is relayed.

PJSIP and chan_sip send their answer to the address in a Via ``maddr`` (chan_sip only without ``rport``). But
both write the source address of the request into the topmost Via, as its parameter ``received``.

PJSIP writes ``…;received=ADDRESS;branch=…``, followed by the sender's other parameters
(``pjsip/src/pjsip/sip_msg.c:pjsip_via_hdr_print``). The sender may have placed another ``received`` before
it: a host in brackets may contain anything, and PJSIP prints it without the brackets. After it, the sender
can place a ``received`` only inside a quoted string, because PJSIP escapes everything else. So the Via is
parsed from its end, parameter by parameter, and the first ``received`` is PJSIP's own. Tested on 16.28 and
22.10.1 with 60 000 Vias.

chan_sip writes ``…;received=ADDRESS``, sometimes with ``;rport=PORT``, at the end of the text before the
first comma (even a comma within quotes), and cuts the whole at 511 bytes
(``channels/chan_sip.c:copy_via_headers``). Tested with 8 900 Vias. A Via that may have been cut yields no
address, because its answer may have gone to another host.

An answer with more than one Via continues to another host if its receiver is a proxy (RFC 3261 §16.7).
Proxies differ in what they accept as a second Via. So an answer counts as relayed unless every reading of it
has one Via: one header line, no folded line and no bare CR or LF anywhere (some parsers end a line there),
and no comma outside plain quoted values of parameters.
"""

import re
from functools import lru_cache
from ipaddress import ip_address

from ringfence.model import Address
from ringfence.parse.address import unmapped

# A whole head with one Via, as its first header. Asterisk writes no other header that begins with "v". The
# Via has sent-protocol and sent-by, then parameters. Quotes may only enclose the whole value of a parameter.
# Such a value has no quote or backslash inside, because parsers treat these differently.
_ONE_VIA = re.compile(
    rb"[^\r\n]*+\r\n[vV](?:[iI][aA])?[ \t]*+:"
    rb'[^",;\\\r\n]*+(?:;[^",;\\=\r\n]*+(?:=(?:"[^"\\\r\n]*+"|[^",;\\\r\n]*+))?+)*+\r\n'
    rb"(?:[^\r\nvV \t][^\r\n]*+\r\n)*+\r\n"
)
_RECEIVED = b"received="
_CHAN_SIP_RECEIVED = re.compile(rb";received=([0-9a-fA-F.:]{2,45}+)(?:;rport=[0-9]{1,5}+)?")
_CHAN_SIP_CUT = 511
_QUOTE = b'"'


def received_by_pjsip(via: bytes) -> Address | None:
    """Return PJSIP's ``received`` address: the last parameter of that name in the Via, outside quotes.

    Return None if there is none, or if its value is not an address.
    """
    end = len(via)
    while end > 0:
        start = end
        if via.endswith(_QUOTE, 0, end):  # a quoted value: back to the quote that opens it
            start = via.rfind(_QUOTE, 0, end - 1)
            while start > 0 and via[start - 1 : start] == b"\\":
                start = via.rfind(_QUOTE, 0, start)
        start = via.rfind(b";", 0, max(start, 0))
        parameter = via[start + 1 : end]
        if start >= 0 and parameter.startswith(_RECEIVED):
            return _address_in(parameter[len(_RECEIVED) :])
        end = start
    return None


def received_by_chan_sip(via: bytes) -> Address | None:
    """Return chan_sip's ``received`` address, before the first comma; None if it may be cut off."""
    first, comma, _ = via.partition(b",")
    if not comma and len(via) >= _CHAN_SIP_CUT:
        return None
    start = first.rfind(b";received=")
    found = _CHAN_SIP_RECEIVED.fullmatch(first, start) if start >= 0 else None
    return _address_in(found[1]) if found is not None else None


def is_relayed(message: bytes) -> bool:
    """Whether an answer may have more than one Via; true if its head is not complete."""
    return _ONE_VIA.match(message) is None


def _address_in(text: bytes) -> Address | None:
    try:
        return unmapped(ip_address(text.decode("ascii")))
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def received_address(text: bytes) -> Address | None:
    """Return the address that ``text`` is; None if it is not an address.

    Cached, because an attacker's address repeats. Callers pass at most 45 bytes, the longest IPv6 address, so
    the cache stays small.
    """
    return _address_in(text)
