"""Results of lines: their texts, and the user of a header."""

import pytest
from tests.parse.corpus import SOURCE

from ringfence.model import EventKind, SecurityEvent, Service
from ringfence.parse.line_result import NOT_UNDERSTOOD, Reason, make_event, sip_user, text_of


@pytest.mark.parametrize(
    ("header", "user"),
    [
        (b"<sip:alice@h>", "alice"),
        (b'"sip:x@y" <sips:alice@h;transport=tls>;tag=1', "alice"),
        (b'"100"sip:100@h', "100"),
        (b"<sip:h>", "<sip:h>"),
        (b"", ""),
        (b"<sip:a\xff@h>", "a\\xff"),
        (b"<sip:" + b"a" * 1_000_000, "<sip:" + "a" * 507),
    ],
)
def test_the_user_of_a_header(header: bytes, user: str) -> None:
    """The user of the last address is returned, or the header's beginning if it has none."""
    assert sip_user(header) == user


def test_text_for_people() -> None:
    """Bytes that are not UTF-8 become readable."""
    assert text_of(b"\xc3\xa4\xff") == "\u00e4\\xff"


def test_a_line_without_an_address_gives_no_event() -> None:
    """A host name is no address, and nothing is resolved."""
    result = make_event(SOURCE, Service.SIP, EventKind.INVALID_PASSWORD, b"localhost", 1.0)
    assert result is Reason.NOT_AN_ADDRESS
    assert isinstance(make_event(SOURCE, Service.SIP, EventKind.INVALID_PASSWORD, b"::1", 1.0), SecurityEvent)


def test_understood_reasons_are_not_reported() -> None:
    """Lines without evidence, or known to name no source, count as understood."""
    understood = {
        Reason.NOT_EVIDENCE,
        Reason.NO_ATTEMPT,
        Reason.NO_PREFIX,
        Reason.CONTINUATION,
        Reason.NO_SOURCE,
    }
    understood |= {Reason.SENDERS_TEXT, Reason.RAW_DUMP, Reason.DUPLICATE, Reason.STANDBY}
    assert set(Reason) - NOT_UNDERSTOOD == understood
