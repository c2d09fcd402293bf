"""Which messages are read by whom: one row a file of Asterisk's. A new format is a file and a row."""

import re
from collections.abc import Callable

from attrs import frozen

from ringfence.model import SourceId
from ringfence.parse import (
    acl,
    chan_sip,
    dialplan,
    iax2,
    manager,
    own,
    pjsip_notice,
    security_log,
)
from ringfence.parse.prefix import DIALPLAN
from ringfence.parse.reading import Said

Read = Callable[[bytes, SourceId, float], Said]
"""Reads a message: the bytes behind the prefix, the witness, and the line's time (since the epoch)."""


@frozen
class Format:
    """How the messages of one file are read, and at which levels they are evidence.

    ``stateful``: two of its messages may tell of one attempt. ``tail``: what ends a message whose address
    stands behind the sender's text; None where no address does, or the text holds no LF.
    """

    levels: frozenset[bytes]
    read: Read
    stateful: bool = False
    tail: re.Pattern[bytes] | None = None


def _at(*levels: bytes) -> frozenset[bytes]:
    return frozenset(levels)


FORMATS: dict[bytes, Format] = {
    b"res_security_log.c": Format(_at(b"SECURITY"), security_log.read, tail=security_log.END),
    b"res_pjsip/pjsip_distributor.c": Format(_at(b"NOTICE"), pjsip_notice.read_distributor),
    b"res_pjsip_session.c": Format(_at(b"NOTICE"), pjsip_notice.read_session),
    b"res_pjsip_registrar.c": Format(
        _at(b"NOTICE", b"WARNING"), pjsip_notice.read_registrar, tail=pjsip_notice.REGISTRAR_END
    ),
    b"res_pjsip_acl.c": Format(_at(b"NOTICE", b"WARNING"), pjsip_notice.read_acl),
    b"chan_sip.c": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), chan_sip.read),
    b"chan_iax2.c": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), iax2.read, tail=iax2.END),
    b"manager.c": Format(_at(b"NOTICE"), manager.read, stateful=True),
    b"acl.c": Format(_at(b"NOTICE"), acl.read),
    DIALPLAN: Format(_at(b"NOTICE", b"WARNING", b"ERROR"), dialplan.read, tail=dialplan.END),
    b"logger": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), own.read_logger),
    b"logger.c": Format(_at(b"NOTICE", b"WARNING", b"ERROR"), own.read_logger),
    b"security_events.c": Format(_at(b"ERROR"), own.read_security_events),
}

SUSPICIOUS = re.compile(
    rb"fail|reject|den(?:y|ied)|authenticat|unauthori|forbid|refus|attack|invalid|mismatch|not match",
    re.IGNORECASE,
)
"""Words of a line that may be evidence in a wording that is not known."""
