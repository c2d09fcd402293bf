"""The table of known log messages.

Each row is for one name that Asterisk prints in its log lines: a source file of Asterisk (``acl.c``), or
``Ext.`` for ``Log()`` in the dialplan. A new format needs a module that parses it, and a row here.
"""

import re
from collections.abc import Callable

from attrs import frozen

from ringfence.model import SourceId
from ringfence.parse import (
    acl,
    asterisk_log_warnings,
    chan_sip,
    dialplan,
    iax2,
    manager,
    pjsip_notice,
    security_log,
)
from ringfence.parse.line_result import Parsed
from ringfence.parse.prefix import DIALPLAN

Parse = Callable[[bytes, SourceId, float], Parsed]
"""A function that parses a message.

Its arguments are the bytes after the prefix, the source, and the time of the line (seconds since the epoch).
"""


@frozen
class Format:
    """The parser of the messages of one Asterisk file, and the levels at which they are evidence.

    ``stateful``: two messages may report one attempt, so they are deduplicated. ``tail`` matches the end of a
    message whose address stands after the sender's text. It is None if the address stands before that text,
    or if the text cannot contain LF.
    """

    levels: frozenset[bytes]
    parse: Parse
    stateful: bool = False
    tail: re.Pattern[bytes] | None = None


def _at(*levels: bytes) -> frozenset[bytes]:
    return frozenset(levels)


FORMATS: dict[bytes, Format] = {
    b"res_security_log.c": Format(_at(b"SECURITY"), security_log.parse, tail=security_log.END),
    b"res_pjsip/pjsip_distributor.c": Format(_at(b"NOTICE"), pjsip_notice.parse_distributor),
    b"res_pjsip_session.c": Format(_at(b"NOTICE"), pjsip_notice.parse_session),
    b"res_pjsip_registrar.c": Format(
        _at(b"NOTICE", b"WARNING"), pjsip_notice.parse_registrar, tail=pjsip_notice.REGISTRAR_END
    ),
    b"res_pjsip_acl.c": Format(_at(b"NOTICE", b"WARNING"), pjsip_notice.parse_acl),
    b"chan_sip.c": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), chan_sip.parse),
    b"chan_iax2.c": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), iax2.parse, tail=iax2.END),
    b"manager.c": Format(_at(b"NOTICE"), manager.parse, stateful=True),
    b"acl.c": Format(_at(b"NOTICE"), acl.parse),
    DIALPLAN: Format(_at(b"NOTICE", b"WARNING", b"ERROR"), dialplan.parse, tail=dialplan.END),
    b"logger": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), asterisk_log_warnings.parse_logger),
    b"logger.c": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), asterisk_log_warnings.parse_logger),
    b"security_events.c": Format(_at(b"ERROR"), asterisk_log_warnings.parse_security_events),
}

SUSPICIOUS = re.compile(
    rb"fail|reject|den(?:y|ied)|authenticat|unauthori|forbid|refus|attack|invalid|mismatch|not match",
    re.IGNORECASE,
)
"""Words that make an unknown message look like evidence."""
