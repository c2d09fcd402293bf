r"""An IP packet with a SIP 401 or 407 over UDP → whom this host challenged, and what by.

The packet was written by this host, but much of it is the sender's own text: Asterisk gives back Via, From,
To, Call-ID and CSeq, and PJSIP Record-Route. Tried on Asterisk 22.10.1 and 16.28 (PJSIP and chan_sip) with
CR, LF, CR LF and folded lines in each of them:

- LF, and with it CR LF, is never given back. PJSIP refuses the request or ends the value there; chan_sip
  ends the line there and takes what follows as a header of the *request* (so such a Call-ID is the request's,
  in the events too).
- A folded line is refused or comes back unfolded.
- A bare CR comes back from PJSIP within a quoted string (``To: "a\rCall-ID: forged" <sip:...>``); chan_sip
  leaves it out. So a line ends with CR LF and with nothing else, and no header can be forged.
- NUL, ESC and bytes that are not UTF-8 come back as they are.

PJSIP gives back Vias of 60 kB before the Call-ID, so whoever cuts packets off at 2 kB lets the sender hide
it: the reader takes packets whole, and every step here is linear and done by searches that run in C.

Either sends its challenge where a Via ``maddr`` says (chan_sip only without ``rport``). But both note in the
topmost Via where the request came from. PJSIP writes ``…;received=ADDRESS;branch=…``, and then whatever else
the sender wrote (``pjsip/src/pjsip/sip_msg.c:pjsip_via_hdr_print``). Before that note the sender may
have another: in brackets a host may hold anything, and PJSIP prints it without them. Behind it he may have
one in a quoted string only, since all else is escaped. So the Via is read from its end, parameter by
parameter, and the first ``received`` is PJSIP's own: so it was on 16.28 and 22.10.1 with 60 000 Vias.

chan_sip writes ``…;received=ADDRESS``, perhaps with ``;rport=PORT``, at the end of what stands before the
first comma, quoted or not, and cuts the whole at 511 bytes (``channels/chan_sip.c:copy_via_headers``): so it
was with 8 900 Vias. A Via that may have been cut tells nothing: where its answer went may be a stranger's.

PJSIP's answers are known by their nonce, which is Asterisk's own: the time, a slash and 32 hexadecimal digits
(``res/res_pjsip_authenticator_digest.c``).

What no phone sends and what hides a request from what Asterisk tells of it: a Call-ID that is not UTF-8 (no
security event is raised), control characters, ESC above all (the log leaves text out), the words before the
address in a notice (which address is it then?), and a Call-ID so long that the log cuts the notice. A display
name in some other alphabet's encoding hides nothing, and old phones send it.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import evolve

from ringfence.model import Address, Challenge, Service
from ringfence.parse.address import unmapped
from ringfence.parse.reading import sip_user

_UDP = 17
_UDP_HEADER = 8
_IPV4_HEADER = 20
_IPV6_HEADER = 40
_MORE_FRAGMENTS = 0x2000
_FRAGMENT_OFFSET = 0x1FFF
_EOL = b"\r\n"
_WHITE = (b" ", b"\t")
# Possessive throughout: nothing is ever tried again, however the bytes are chosen.
_CALL_ID = re.compile(rb"\r\n(?:call-id|i)[ \t]*+:", re.IGNORECASE)
_AUTHENTICATE = {
    b"SIP/2.0 401 ": re.compile(rb"\r\nwww-authenticate[ \t]*+:", re.IGNORECASE),
    b"SIP/2.0 407 ": re.compile(rb"\r\nproxy-authenticate[ \t]*+:", re.IGNORECASE),
}
_STATUS = len(b"SIP/2.0 401 ")
# A scheme's name, or a parameter with its value.
_ITEM = re.compile(
    rb'[ \t,]*+([^ \t,="]++)(?:[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*)"|([^ \t,"]++)))?', re.DOTALL
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PJSIP_NONCE = re.compile(rb"[0-9]{1,20}+/[0-9a-f]{32}")
_VIA = re.compile(rb"\r\n(?:Via|v): ")
_RECEIVED = b"received="
_CHAN_SIP_NOTE = re.compile(rb";received=([0-9a-fA-F.:]{2,45}+)(?:;rport=[0-9]{1,5}+)?")
_CHAN_SIP_CUT = 511
_QUOTE = b'"'
_FROM = re.compile(rb"\r\n(?:From|f): ")
# What nearly every answer of PJSIP's is, read at once (4 µs in place of 18): its headers in its order, a line
# each and printable ASCII only, one note in the Via and one user in the From. Anything else is read in steps.
_ORDINARY = re.compile(
    rb"SIP/2\.0 401 Unauthorized\r\n"
    rb"Via: SIP/2\.0/UDP [!#-:<-~]{1,128}+(?:;rport=[0-9]{1,5}+)?"
    rb";received=([0-9a-fA-F.:]{2,45}+);branch=[!#-:<-~]{1,256}+\r\n"
    rb"Call-ID: ([!-~]{1,256}+)\r\n"
    rb'From: (?:"[ !#-9<-~]{0,64}+" ?)?<sips?:([!-9=?A-~]{0,64}+)@[!-;=?A-~]{1,128}+>'
    rb";tag=[!-?A-~]{1,128}+\r\n"
    rb"To: [ -~]{1,512}+\r\n"
    rb"CSeq: [ -~]{1,64}+\r\n"
    rb'WWW-Authenticate: Digest realm="[ !#-\[\]-~]{0,256}+",'
    rb'nonce="([0-9]{1,20}+/[0-9a-f]{32})"[ -~]{0,256}+\r\n'
    rb"(?:Server: [ -~]{0,256}+\r\n)?"
    rb"Content-Length:  0\r\n\r\n"
)
_BLAMING = b"' failed for '"
_LONGEST_CALL_ID = 512  # bytes; phones' have some 40
_PRINTABLE = bytes(byte for byte in range(256) if byte >= 0x20 and byte != 0x7F) + b"\t\r\n"  # noqa: PLR2004 - ASCII


def parse_challenge(packet: bytes) -> Challenge | None:
    """Read a packet from its IP header on; None where it is not a 401 or 407 over UDP.

    A packet may be cut off, or a first fragment: what it does not hold whole is left empty.
    """
    addressed = _ipv4(packet) or _ipv6(packet)
    if addressed is None:
        return None
    source, target, payload, may_be_cut = addressed
    datagram = _udp(payload, may_be_cut=may_be_cut)
    if datagram is None:
        return None
    source_port, target_port, message = datagram
    here, there = _address(source), _address(target)
    ordinary = _ORDINARY.fullmatch(message)
    if ordinary is not None:
        noted, call_id, user, nonce = ordinary.groups()
        account = user.decode()
        return Challenge(
            there, target_port, here, source_port, call_id, nonce, _noted(noted), account=account
        )
    authenticate = _AUTHENTICATE.get(message[:_STATUS])
    if authenticate is None:
        return None
    end = message.find(_EOL + _EOL)
    head = message[: end + len(_EOL)] if end >= 0 else message
    call_id, nonce = _read_head(head, authenticate)
    challenge = Challenge(there, target_port, here, source_port, call_id, nonce)
    if _PJSIP_NONCE.fullmatch(nonce):
        return _of_pjsip(challenge, head)
    return evolve(challenge, service=Service.SIP, sender=_noted_by_chan_sip(head))


def _ipv4(packet: bytes) -> tuple[bytes, bytes, bytes, bool] | None:
    """Give source, target, payload, and whether the payload may be a part only."""
    if len(packet) < _IPV4_HEADER or packet[0] >> 4 != 4 or packet[9] != _UDP:  # noqa: PLR2004 - IPv4
        return None
    header = (packet[0] & 0x0F) * 4
    total = int.from_bytes(packet[2:4], "big")
    fragment = int.from_bytes(packet[6:8], "big")
    if not _IPV4_HEADER <= header <= total or fragment & _FRAGMENT_OFFSET:
        return None
    may_be_cut = bool(fragment & _MORE_FRAGMENTS) or total > len(packet)
    return packet[12:16], packet[16:20], packet[header:total], may_be_cut


def _ipv6(packet: bytes) -> tuple[bytes, bytes, bytes, bool] | None:
    """Give source, target, payload, and whether the payload may be a part only; no extension headers."""
    if len(packet) < _IPV6_HEADER or packet[0] >> 4 != 6 or packet[6] != _UDP:  # noqa: PLR2004 - IPv6
        return None
    total = _IPV6_HEADER + int.from_bytes(packet[4:6], "big")
    return packet[8:24], packet[24:40], packet[_IPV6_HEADER:total], total > len(packet)


def _udp(payload: bytes, *, may_be_cut: bool) -> tuple[int, int, bytes] | None:
    """Give source port, target port and what the datagram carries."""
    length = int.from_bytes(payload[4:6], "big")
    if len(payload) < _UDP_HEADER or length < _UDP_HEADER:
        return None
    if length > len(payload) and not may_be_cut:
        return None
    ports = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    return *ports, payload[_UDP_HEADER:length]


@lru_cache(maxsize=4096)
def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004 - bytes of IPv4


def _of_pjsip(challenge: Challenge, head: bytes) -> Challenge:
    """Add what an answer of PJSIP's tells of the request that it answers."""
    via, asked_for = _VIA.search(head), _FROM.search(head)
    if via is None or asked_for is None:  # cut off
        return challenge
    return evolve(
        challenge,
        sender=_received(_unfolded(head, via.end())),
        veiled=_is_veiled(head, challenge.call_id),
        account=sip_user(_unfolded(head, asked_for.end())),
    )


def _received(via: bytes) -> Address | None:
    """Give the address that PJSIP noted: the last parameter of that name, from the end of the Via."""
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


def _noted_by_chan_sip(head: bytes) -> Address | None:
    """Give the address at the end of what stands before the first comma, unless that may be cut off."""
    via = _VIA.search(head)
    value = _unfolded(head, via.end()) if via is not None else b""
    first, comma, _ = value.partition(b",")
    if not comma and len(value) >= _CHAN_SIP_CUT:
        return None
    note = first.rfind(b";received=")
    noted = _CHAN_SIP_NOTE.fullmatch(first, note) if note >= 0 else None
    return _address_in(noted[1]) if noted is not None else None


def _address_in(text: bytes) -> Address | None:
    try:
        return unmapped(ip_address(text.decode("ascii")))
    except ValueError:
        return None


# An attacker's address comes again and again; the pattern bounds what is kept of it.
_noted = lru_cache(maxsize=4096)(_address_in)


def _is_veiled(head: bytes, call_id: bytes) -> bool:
    """Say whether the request held what silences Asterisk's events or makes its log lie."""
    if head.translate(None, _PRINTABLE) or head.count(b"\r") != head.count(_EOL):
        return True
    if _BLAMING in head or len(call_id) > _LONGEST_CALL_ID:
        return True
    if call_id.isascii():
        return False
    try:
        call_id.decode()
    except UnicodeDecodeError:
        return True
    return False


def _read_head(head: bytes, authenticate: re.Pattern[bytes]) -> tuple[bytes, bytes]:
    """Give the first Call-ID and the nonce of the first Digest, each empty where it is not there."""
    found = _CALL_ID.search(head)
    call_id = _unfolded(head, found.end()) if found is not None else b""
    for header in authenticate.finditer(head):
        if nonce := _nonce_in(_unfolded(head, header.end())):
            return call_id, nonce
    return call_id, b""


def _unfolded(head: bytes, start: int) -> bytes:
    """Give a header's value with its continuation lines; empty where its end was cut off.

    White space before it is no part of it. Behind it, it is: Asterisk tells it too.
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
    """Give the nonce of the first Digest challenge in a header's value, its quotes taken off."""
    digest = False
    place = 0
    while (item := _ITEM.match(value, place)) is not None:
        name, quoted, token = item.groups()
        if quoted is None and token is None:
            digest = name.lower() == b"digest"
        elif digest and name.lower() == b"nonce":
            return token if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        place = item.end()
    return b""
