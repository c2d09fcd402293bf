r"""Parser of SIP answers in IP packets that leave this host.

Of UDP it parses all answers, and those of a TCP connection or WebSocket that was copied from its beginning.
Of other connections it parses the refusals 401, 403 and 407.

This host wrote the packet, but much of it is the sender's own text: Asterisk copies Via, From, To, Call-ID
and CSeq from the request, and PJSIP copies Record-Route. Tested on Asterisk 22.10.1 and 16.28 (PJSIP and
chan_sip) with CR, LF, CR LF and folded lines in each of them:

- LF, and with it CR LF, never comes back. PJSIP refuses the request or ends the value there. chan_sip ends
  the line there and parses the rest as another header of the request. If that is a Call-ID, Asterisk's events
  have the same Call-ID.
- A folded line is refused or comes back unfolded.
- A bare CR comes back from PJSIP within a quoted string (``To: "a\rCall-ID: forged" <sip:...>``); chan_sip
  leaves it out. So a line ends with CR LF and with nothing else, and no header can be forged.
- NUL, ESC and bytes that are not UTF-8 come back unchanged.

PJSIP copies Vias of 60 kB before the Call-ID. If packets were cut at 2 kB, the sender could hide the Call-ID.
So packets are read whole. Every step of the parser takes linear time, in searches that run in C.

PJSIP's 401 and 407 are recognized by their nonce, which Asterisk makes: the time, a slash and 32 hexadecimal
digits (``res/res_pjsip_authenticator_digest.c``). A 403 or 404 has no nonce. There the order of the lines
decides: PJSIP writes Call-ID before From (``pjsip/src/pjsip/sip_util.c:pjsip_endpt_create_response``), and
chan_sip writes From before Call-ID (``channels/chan_sip.c:respprep``). No sender can add or move a line. The
form of the topmost Via would prove nothing: chan_sip copies the sender's text after the first comma, so a
sender can make this Via end like one of PJSIP.

These things in a request hide it from Asterisk's events, and no phone sends them:

- a Call-ID that is not UTF-8: Asterisk raises no security event
- control characters, above all ESC: the log leaves text out
- the words ``' failed for '``, which stand before the address of a notice: the address becomes ambiguous
- a Call-ID so long that the log cuts the notice

A display name that is not UTF-8 hides nothing, and old phones send such names.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address

from ringfence.parse.address import unmapped
from ringfence.parse.answer_stream import AnswerStreams
from ringfence.parse.line_result import text_of
from ringfence.parse.packet import (
    TCP,
    UDP,
    Segment,
    ends_of,
    ip_payload,
    packed_address,
    segment_in,
    tcp_segment,
    udp_datagram,
)
from ringfence.values.event import (
    MOST_ACCOUNT,
    MOST_KEPT,
    MOST_SESSION,
    Service,
    Transport,
    short_account,
    short_session,
)
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer

# -- the Vias of Asterisk's own answer: which address sent the request, and whether the answer is relayed
#
# PJSIP and chan_sip send their answer to the address in a Via ``maddr`` (chan_sip only without ``rport``).
# But both write the source address of the request into the topmost Via, as its parameter ``received``.
#
# PJSIP writes ``…;received=ADDRESS;branch=…``, followed by the sender's other parameters
# (``pjsip/src/pjsip/sip_msg.c:pjsip_via_hdr_print``). The sender may have placed another ``received``
# before it: a host in brackets may contain anything, and PJSIP prints it without the brackets. After it,
# the sender can place a ``received`` only inside a quoted string, because PJSIP escapes everything else. So
# the Via is parsed from its end, parameter by parameter, and the first ``received`` is PJSIP's own. Tested
# on 16.28 and 22.10.1 with 60 000 Vias.
#
# chan_sip writes ``…;received=ADDRESS``, sometimes with ``;rport=PORT``, at the end of the text before the
# first comma (even a comma within quotes), and cuts the whole at 511 bytes
# (``channels/chan_sip.c:copy_via_headers``). Tested with 8 900 Vias. A Via that may have been cut yields no
# address, because its answer may have gone to another host.
#
# An answer with more than one Via continues to another host if its receiver is a proxy (RFC 3261 §16.7).
# Proxies differ in what they accept as a second Via. So an answer counts as relayed unless every reading of
# it has one Via: one header line, no folded line and no bare CR or LF anywhere (some parsers end a line
# there), and no comma outside plain quoted values of parameters.


# A whole head with one Via, as its first header. Asterisk writes no other header that begins with "v". The
# Via has sent-protocol and sent-by, then parameters. Quotes may only enclose the whole value of a parameter.
# Such a value has no quote or backslash inside, because parsers treat these differently.
_ONE_VIA = re.compile(
    rb"[^\r\n]*+\r\n[vV](?:[iI][aA])?[ \t]*+:"
    rb'[^",;\\\r\n]*+(?>(?:;[^",;\\=\r\n]*+(?:=(?:"[^"\\\r\n]*+"|[^",;\\\r\n]*+))?)*)\r\n'
    rb"(?>(?:[^\r\nvV \t][^\r\n]*+\r\n)*)\r\n"
)
_RECEIVED = b"received="
_CHAN_SIP_RECEIVED = re.compile(rb";received=([0-9a-fA-F.:]{2,45}+)(?:;rport=[0-9]{1,5}+)?")
_CHAN_SIP_CUT = 511
_QUOTE = b'"'


def received_by_pjsip(via: bytes) -> Address | None:
    """Return the sender's address that PJSIP wrote into a Via: its last ``received``, outside quotes.

    Return None without this parameter, or if its value is not an address.
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
    """Return the sender's address that chan_sip wrote into a Via (``received``); None if it may be cut."""
    first, comma, _ = via.partition(b",")
    if not comma and len(via) >= _CHAN_SIP_CUT:
        return None
    start = first.rfind(b";received=")
    found = _CHAN_SIP_RECEIVED.fullmatch(first, start) if start >= 0 else None
    return _address_in(found[1]) if found is not None else None


def is_relayed(message: bytes) -> bool:
    """Whether a SIP answer may have more than one Via; True if the answer's head is not complete."""
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


# -- the parser of an answer


_EOL = b"\r\n"
_WHITE = (b" ", b"\t")
# Repetitions of characters are possessive, so that hostile text cannot make a search slow.
_CALL_ID = re.compile(rb"\r\n(?:call-id|i)[ \t]*+:", re.IGNORECASE)
# For the first bytes of an answer: its status, and the header with its nonce (None: it has no nonce).
_STATUSES: dict[bytes, tuple[int, re.Pattern[bytes] | None]] = {
    b"SIP/2.0 401 ": (401, re.compile(rb"\r\nwww-authenticate[ \t]*+:", re.IGNORECASE)),
    b"SIP/2.0 403 ": (403, None),
    b"SIP/2.0 404 ": (404, None),
    b"SIP/2.0 407 ": (407, re.compile(rb"\r\nproxy-authenticate[ \t]*+:", re.IGNORECASE)),
}
_REFUSED = b"SIP/2.0 401 "
_STATUS = len(_REFUSED)
# One item of a header with a challenge: the name of a scheme, or a parameter with its value.
_ITEM = re.compile(
    rb'[ \t,]*+([^ \t,="]++)(?:[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*)"|([^ \t,"]++)))?', re.DOTALL
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PJSIP_NONCE = re.compile(rb"[0-9]{1,20}+/[0-9a-f]{32}")
_VIA = re.compile(rb"\r\n(?:Via|v): ")
_FROM = re.compile(rb"\r\n(?:From|f): ")
# A From as PJSIP writes it, up to the user that it looks up. What follows may contain other URIs.
_CALLER = re.compile(rb'(?:"(?>(?:[^"\\]|\\.)*)" ?)?<sips?:([^@<>;\s]*+)@', re.DOTALL)
# The form of nearly every answer of PJSIP: PJSIP's headers in PJSIP's order, one line each, printable ASCII,
# one Via with one ``received``, one user in the From. A 401 has challenges with one nonce, one or several.
# One match of these patterns is much faster than the steps that parse all other answers.
_COPIED = (
    rb"Via: SIP/2\.0/(?:UDP|TCP|TLS|WSS?) [!#-+\--:<-\[\]-~]{1,128}+(?:;rport=[0-9]{1,5}+)?"
    rb";received=([0-9a-fA-F.:]{2,45}+);branch=[!#-+\--:<-\[\]-~]{1,256}+\r\n"
    rb"Call-ID: ([!-~]{1,256}+)\r\n"
    rb'From: (?:"[ !#-9<-~]{0,64}+" ?)?<sips?:([!-9=?A-~]{0,64}+)@[!-;=?A-~]{1,128}+>'
    rb";tag=[!-?A-~]{1,128}+\r\n"
    rb"To: [ -~]{1,512}+\r\n"
    rb"CSeq: ([0-9]{1,10}+)[ -~]{1,64}+\r\n"
)
_OFFERED = rb'WWW-Authenticate: Digest realm="[ !#-\[\]-~]{0,256}+",nonce="%b"[ -~]{0,384}+\r\n'
_ORDINARY = re.compile(
    rb"SIP/2\.0 (401) Unauthorized\r\n"
    + _COPIED
    + _OFFERED % rb"([0-9]{1,20}+/[0-9a-f]{32})"
    + rb"(?>(?:"
    + _OFFERED % rb"\6"
    + rb"){0,4})"
    + rb"(?:Server: [ -~]{0,256}+\r\n)?Content-Length:  0\r\n\r\n"
)
_UNCHALLENGED = re.compile(
    rb"SIP/2\.0 ((?!40[137])[1-6][0-9][0-9]) [ -~]{0,64}+\r\n"
    + _COPIED
    + rb"()(?>(?:[!-UW-uw-~][ -~]*+\r\n)*)\r\n"
)
_FORGED_NOTICE = b"' failed for '"
_ANY_STATUS = re.compile(rb"SIP/2\.0 ([1-6][0-9][0-9]) ")
_CSEQ = re.compile(rb"\r\nCSeq[ \t]*+:[ \t]*+([0-9]{1,10}+)[ \t]", re.IGNORECASE)
_STALE = b"stale=true"
_POLICY = b"SIP/2.0 403 Forbidden (policy)"
_DIGEST = 16  # bytes of the hash of an answer without a nonce
_LONGEST_CALL_ID = 512  # bytes; phones' have some 40
_PRINTABLE = bytes(byte for byte in range(256) if byte >= 0x20 and byte != 0x7F) + b"\t\r\n"  # noqa: PLR2004 - ASCII


def parse_answers(packet: bytes, streams: AnswerStreams) -> list[CopiedAnswer]:
    """Parse the SIP answers in a packet of this host, from its IP header on.

    Of TCP, other answers than the refusals 401, 403 and 407 are parsed only if ``streams`` has read the
    connection from its beginning.

    A packet may be cut off, be a first fragment, or end in the middle of an answer. Fields that are not
    complete are left empty. ``streams`` puts the segments of a connection together: an answer is returned
    with the segment that completes it, or by :func:`parse_cut`.
    """
    whole = ip_payload(packet)
    if whole is None:
        return []
    protocol, source, target, payload, may_be_cut = whole
    if protocol == UDP:
        datagram = udp_datagram(payload, may_be_cut=may_be_cut)
        if datagram is None:
            return []
        source_port, target_port, message = datagram
        remote, local = packed_address(target), packed_address(source)
        answer = parse_message(message, remote, target_port, local, source_port, Transport.UDP)
        return [] if answer is None else [answer]
    segment = tcp_segment(source, target, payload) if protocol == TCP else None
    return [] if segment is None else _parse_segment(segment, streams)


def parse_cut(streams: AnswerStreams) -> list[CopiedAnswer]:
    """Parse the SIP answers of which TCP has carried only a part; return each only once.

    Call this when no packet waits. A sender can read the status line of an answer, and keep the rest from
    leaving. So the part that has left counts.
    """
    return [
        answer
        for connection, message in streams.cut()
        if (answer := _parse_of_stream(connection, message)) is not None
    ]


def continues(packet: bytes, streams: AnswerStreams) -> bool:
    """Whether a packet belongs to a TCP connection of which ``streams`` has read data, or begins one."""
    segment = segment_in(packet)
    return segment is not None and (segment.begins or segment.connection in streams)


def _parse_segment(segment: Segment, streams: AnswerStreams) -> list[CopiedAnswer]:
    connection = segment.connection
    if segment.begins:
        streams.begin(connection, segment.sequence)
        return []
    messages = streams.read(connection, segment.sequence, segment.data)
    found = (_parse_of_stream(connection, message) for message in messages)
    return [answer for answer in found if answer is not None]


def _parse_of_stream(connection: bytes, message: bytes) -> CopiedAnswer | None:
    local, remote, local_port, port = ends_of(connection)
    # Even the status may be incomplete: "SIP/2.0 4". A sender that keeps the rest from leaving was refused.
    whole = message if len(message) >= _STATUS else (message + _REFUSED[len(message) :])
    ends = packed_address(remote), int.from_bytes(port), packed_address(local), int.from_bytes(local_port)
    return parse_message(whole, *ends, Transport.TCP)


def parse_message(
    message: bytes, remote: Address, target_port: int, local: Address, source_port: int, transport: Transport
) -> CopiedAnswer | None:
    """Parse a SIP answer that this host sent from ``local`` to ``remote``; return None for other messages."""
    ordinary = _ORDINARY.fullmatch(message) or _UNCHALLENGED.match(message)
    if ordinary is not None and message.find(_FORGED_NOTICE, 0, ordinary.end()) < 0:
        number, received, call_id, user, sequence, nonce = ordinary.groups()
        head = message[: ordinary.end() - len(_EOL)]
        return CopiedAnswer(
            *(remote, target_port, local, source_port, call_id, nonce, received_address(received)),
            account=user[:MOST_ACCOUNT].decode(),
            status=int(number),
            transport=transport,
            digest=b"" if nonce else blake2b(head, digest_size=_DIGEST).digest(),
            sequence=int(sequence),
            accepted=_is_accepted(head, nonce),
        )
    known = _STATUSES.get(message[:_STATUS]) or _other_status(message)
    if known is None:
        return None
    status, authenticate = known
    end = message.find(_EOL + _EOL)
    head = message[: end + len(_EOL)] if end >= 0 else message
    call_id, nonce = _read_head(head, authenticate)
    account, evasive, service = "", False, Service.PJSIP
    cut = end < 0 and transport is not Transport.UDP
    if cut and not call_id:
        # The receiver keeps the rest from leaving. No phone does that, and no report can be matched with it.
        sender, evasive = None, True
    elif _is_by_pjsip(head, nonce, cut=cut, challenge=authenticate is not None):
        sender, account, evasive = _request_of_pjsip(head, call_id)
        evasive = evasive or (cut and _is_evasive(head, call_id))
    else:
        sender, service = _sender_by_chan_sip(head, challenge=authenticate is not None), Service.SIP
    accepted = _is_accepted(head, nonce)
    call_id = call_id if len(call_id) <= MOST_SESSION else short_session(call_id)
    nonce = nonce[:MOST_KEPT]
    account = account if len(account) <= MOST_ACCOUNT and account.isascii() else short_account(account)
    return CopiedAnswer(
        *(remote, target_port, local, source_port, call_id, nonce, sender, evasive, account, service),
        *(status, transport, is_relayed(message)),
        digest=b"" if authenticate is not None else blake2b(head, digest_size=_DIGEST).digest(),
        sequence=_sequence_in(head),
        accepted=accepted,
    )


def _other_status(message: bytes) -> tuple[int, None] | None:
    """Return (status, None) for a SIP answer by its first line; None for any other message."""
    found = _ANY_STATUS.match(message)
    return (int(found[1]), None) if found is not None else None


def _sequence_in(head: bytes) -> int | None:
    """Return the number in a SIP answer's CSeq header, the same as the request's; None without one."""
    found = _CSEQ.search(head)
    return int(found[1]) if found is not None else None


def _is_accepted(head: bytes, nonce: bytes) -> bool:
    """Whether a refusal shows that the password was right: only the nonce was old, or a policy forbids.

    Only what follows the last occurrence of ``nonce`` counts: there, nothing is the sender's text.
    """
    if nonce:
        return head.find(_STALE, head.rfind(nonce) + len(nonce)) >= 0
    return head.startswith(_POLICY)


def _is_by_pjsip(head: bytes, nonce: bytes, *, cut: bool, challenge: bool) -> bool:
    """Whether PJSIP wrote the SIP answer with this ``head``, and not chan_sip or another server.

    The nonce of a ``challenge`` (401 or 407) shows the server. An answer without a nonce, or that is ``cut``
    before the nonce, shows it by the order of its lines.
    """
    if challenge and (nonce or not cut):
        return _PJSIP_NONCE.fullmatch(nonce) is not None
    call_id = _CALL_ID.search(head)
    if call_id is None:
        return False
    if cut:
        return _FROM.search(head, 0, call_id.start() + len(_EOL)) is None
    return _FROM.search(head, call_id.end()) is not None


def _request_of_pjsip(head: bytes, call_id: bytes) -> tuple[Address | None, str, bool]:
    """Return the request's sender (None if unknown), its account, and whether it suppresses events.

    The account is the user in the From, or all of the From if it has none there. ``head`` is that of PJSIP's
    answer. If ``head`` is cut off before its Via or From, return None, "" and False. :func:`_is_evasive`
    decides the last one.
    """
    via, asked_for = _VIA.search(head), _FROM.search(head)
    if via is None or asked_for is None:  # the head is cut off
        return None, "", False
    sender, value = received_by_pjsip(_unfolded(head, via.end())), _unfolded(head, asked_for.end())
    caller = _CALLER.match(value)
    return sender, text_of(caller[1] if caller is not None else value), _is_evasive(head, call_id)


def _sender_by_chan_sip(head: bytes, *, challenge: bool) -> Address | None:
    """Return the sender of the request from the head of an answer that PJSIP did not write; None if unknown.

    Return None also for an answer without a ``challenge`` that is cut off before its From. Such an answer may
    be PJSIP's, whose Via has another form.
    """
    via = _VIA.search(head)
    if via is None or (not challenge and _FROM.search(head) is None):
        return None
    return received_by_chan_sip(_unfolded(head, via.end()))


def _is_evasive(head: bytes, call_id: bytes) -> bool:
    """Whether a SIP answer quotes text of its request that hides it from Asterisk's events, or forges lines.

    ``head`` is the answer's head, and ``call_id`` its Call-ID.
    """
    if head.translate(None, _PRINTABLE) or head.count(b"\r") != head.count(_EOL):
        return True
    if _FORGED_NOTICE in head or len(call_id) > _LONGEST_CALL_ID:
        return True
    if call_id.isascii():
        return False
    try:
        call_id.decode()
    except UnicodeDecodeError:
        return True
    return False


def _read_head(head: bytes, authenticate: re.Pattern[bytes] | None) -> tuple[bytes, bytes]:
    """Return the first Call-ID, and the nonce of the first Digest challenge; each is b"" if it is missing.

    ``authenticate`` matches the name of the header with the challenge; None for an answer without a nonce.
    """
    found = _CALL_ID.search(head)
    call_id = _unfolded(head, found.end()) if found is not None else b""
    for header in authenticate.finditer(head) if authenticate is not None else ():
        if nonce := _nonce_in(_unfolded(head, header.end())):
            return call_id, nonce
    return call_id, b""


def _unfolded(head: bytes, start: int) -> bytes:
    """Return the header value at ``start`` with its continuation lines; b"" if its end was cut off.

    White space before the value is left out. White space after it stays, because Asterisk reports it too.
    """
    parts = []
    while True:
        end = head.find(_EOL, start)
        if end < 0:
            return b""
        parts.append(head[start:end].lstrip(b" \t"))
        start = end + len(_EOL)
        if head[start : start + 1] not in _WHITE:
            return b" ".join(parts)


def _nonce_in(value: bytes) -> bytes:
    """Return the nonce of the first Digest challenge in a header's value, without its quotes; b"" if none."""
    digest = False
    position = 0
    while (item := _ITEM.match(value, position)) is not None:
        name, quoted, token = item.groups()
        if quoted is None and token is None:
            digest = name.lower() == b"digest"
        elif digest and name.lower() == b"nonce":
            return token if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        position = item.end()
    return b""
