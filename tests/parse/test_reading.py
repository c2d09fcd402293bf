"""Readings: their words, and what is taken from a header."""

import pytest
from tests.parse.corpus import SOURCE

from ringfence.model import EventKind, SecurityEvent, Service
from ringfence.parse.reading import NOT_UNDERSTOOD, Why, notice, sip_user, text_of


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
    """The user of the last address, or the header's beginning where it has none."""
    assert sip_user(header) == user


def test_text_for_people() -> None:
    """What is not UTF-8 becomes readable."""
    assert text_of(b"\xc3\xa4\xff") == "\u00e4\\xff"


def test_a_line_without_an_address_names_nobody() -> None:
    """A host's name is no address, and nothing is resolved."""
    said = notice(SOURCE, Service.SIP, EventKind.INVALID_PASSWORD, b"localhost", 1.0)
    assert said is Why.NOT_AN_ADDRESS
    assert isinstance(notice(SOURCE, Service.SIP, EventKind.INVALID_PASSWORD, b"::1", 1.0), SecurityEvent)


def test_what_was_not_understood_is_no_quiet_reason() -> None:
    """What is no evidence, or is known to name nobody, is understood."""
    understood = {Why.NOT_EVIDENCE, Why.NO_ATTEMPT, Why.NO_PREFIX, Why.CONTINUATION, Why.NO_SOURCE}
    understood |= {Why.SENDERS_TEXT, Why.RAW_DUMP, Why.TOLD_TWICE}
    assert set(Why) - NOT_UNDERSTOOD == understood
