"""The table of known log messages.

Each row is for one name that Asterisk prints in its log lines: a source file of Asterisk (``acl.c``), or
``Ext.`` for ``Log()`` in the dialplan. A new format needs a module that parses it, and a row here.
"""

import re
from collections.abc import Callable

from attrs import frozen

from ringfence.parse import chan_sip, notices, security
from ringfence.parse.line_result import Parsed
from ringfence.parse.prefix import DIALPLAN
from ringfence.values.event import SourceId

Parse = Callable[[bytes, SourceId, float], Parsed]
"""A function that parses a log message.

Its arguments are the bytes after the prefix, the source, and the time of the line (seconds since the epoch).
"""


@frozen
class Format:
    """The parser of the log messages of one Asterisk source file, and the levels at which they count.

    ``stateful``: two messages may report one attempt, so they are deduplicated. ``tail`` matches the end of a
    message whose address stands after the sender's text. It is None if the address stands before that text,
    or if the text cannot contain LF. ``ends`` match the ends of other messages with text that can contain LF.
    ``after_text``: the first words of the messages whose address stands after a long text of the sender. If
    such a message was cut within this text, the sender may have written the address.
    """

    levels: frozenset[bytes]
    parse: Parse
    stateful: bool = False
    tail: re.Pattern[bytes] | None = None
    ends: tuple[re.Pattern[bytes], ...] = ()
    after_text: tuple[bytes, ...] = ()


def _at(*levels: bytes) -> frozenset[bytes]:
    return frozenset(levels)


FORMATS: dict[bytes, Format] = {
    b"res_security_log.c": Format(
        _at(b"SECURITY"), security.parse_line, tail=security.LINE_END, after_text=(b"SecurityEvent=",)
    ),
    b"res_pjsip/pjsip_distributor.c": Format(_at(b"NOTICE"), notices.parse_distributor),
    b"res_pjsip_session.c": Format(_at(b"NOTICE"), notices.parse_session, ends=(notices.PJSIP_CALL_END,)),
    b"res_pjsip_registrar.c": Format(
        _at(b"NOTICE", b"WARNING"),
        notices.parse_registrar,
        tail=notices.REGISTRAR_END,
        after_text=(b"AOR '",),
    ),
    b"res_pjsip_acl.c": Format(_at(b"NOTICE", b"WARNING"), notices.parse_pjsip_acl),
    b"chan_sip.c": Format(
        _at(b"NOTICE", b"WARNING", b"ERROR"),
        chan_sip.parse_chan_sip,
        ends=(chan_sip.CALL_END,),
        after_text=(b"Registration from '",),
    ),
    b"chan_iax2.c": Format(
        _at(b"NOTICE", b"WARNING", b"ERROR"),
        notices.parse_iax2,
        tail=notices.IAX2_END,
        ends=notices.IAX2_ENDS,
        after_text=(b"No registration for peer '", b"Peer '"),
    ),
    b"manager.c": Format(_at(b"NOTICE"), notices.parse_manager, stateful=True, ends=(notices.LOGIN_END,)),
    b"acl.c": Format(_at(b"NOTICE"), notices.parse_acl),
    DIALPLAN: Format(_at(b"NOTICE", b"WARNING", b"ERROR"), notices.parse_dialplan, tail=notices.DIALPLAN_END),
    b"logger": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), notices.parse_logger),
    b"logger.c": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), notices.parse_logger),
    b"security_events.c": Format(_at(b"ERROR"), notices.parse_security_events),
}

SUSPICIOUS = re.compile(
    rb"fail|reject|den(?:y|ied)|authenticat|unauthori|forbid|refus|attack|invalid|mismatch|not match",
    re.IGNORECASE,
)
"""Words by which an unknown log message seems to report an attempt."""
_ADDRESS_LIKE = re.compile(rb"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|[0-9a-f]{1,4}:[0-9a-f]{0,4}:")
_EXAMINED = 2048  # bytes of an unknown message that are searched


def looks_like_evidence(text: bytes, *, known: bool) -> bool:
    """Whether a message that no parser knows has suspicious words.

    ``known``: a parser knows its source file. Otherwise the message must also contain an address.
    """
    text = text[:_EXAMINED]
    return bool(known or _ADDRESS_LIKE.search(text)) and SUSPICIOUS.search(text) is not None
