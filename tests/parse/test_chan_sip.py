"""Messages of chan_sip: the last address with a known reason (the corpus has chan_sip.txt)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.support.captures import FORGED

from ringfence.parse.chan_sip import parse_chan_sip
from ringfence.parse.line_result import OpenMessage
from ringfence.values.event import SecurityEvent

END = b"' rejected because extension not found in context 'c'."
PLANTS = st.sampled_from(
    [
        b"' failed for '203.0.113.9:5060' - Wrong password",
        b"' failed for '",
        b"' - ",
        b"' (203.0.113.9:5060) to extension '",
        b"' rejected because extension not found in context 'x'.",
        b"'",
        b"\x1b",
    ]
)
TEXT = st.lists(PLANTS | st.binary(max_size=3), max_size=6).map(b"".join)


@given(TEXT)
@settings(deadline=None, max_examples=5 * settings().max_examples)
def test_a_registration_names_its_sender(header: bytes) -> None:
    """The sender's address is found, whatever the To header holds."""
    result = parse_chan_sip(
        b"Registration from '%s' failed for '192.0.2.7:5060' - Wrong password" % header, SOURCE, 0.0
    )
    assert isinstance(result, SecurityEvent)
    assert str(result.remote.address) == "192.0.2.7"


@given(TEXT)
@settings(deadline=None, max_examples=5 * settings().max_examples)
def test_a_call_names_its_sender_or_none(extension: bytes) -> None:
    """The sender's address or none is found, whatever was dialled."""
    line = b"Call from '' (192.0.2.7:5060) to extension '" + extension + END
    result = parse_chan_sip(line, SOURCE, 0.0)
    event = result.result if isinstance(result, OpenMessage) else result
    assert not isinstance(event, SecurityEvent) or event.remote.address != FORGED


@pytest.mark.parametrize(
    ("reason", "forgeable"),
    [
        (b"Wrong password", False),
        (b"Peer is not supposed to register", False),
        (b"Device not configured to use this transport type", False),
        (b"Username/auth name mismatch", True),
        (b"No matching peer found", True),
        (b"Device does not match ACL", True),
        (b"Not a local domain", True),
    ],
)
def test_a_reason_with_an_m_can_be_forged(reason: bytes, *, forgeable: bool) -> None:
    """An ESC at the end of the To header removes the true address and all text up to that m."""
    result = parse_chan_sip(
        b"Registration from '<sip:bob@h>' failed for '192.0.2.7:5060' - " + reason, SOURCE, 0.0
    )
    assert isinstance(result, SecurityEvent)
    assert result.forgeable is forgeable
