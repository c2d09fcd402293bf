"""Messages of chan_sip: the last address with a known reason (the corpus has chan_sip.txt)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.support.captures import FORGED

from ringfence.model import SecurityEvent
from ringfence.parse.chan_sip import read
from ringfence.parse.reading import Open

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
@settings(deadline=None, max_examples=500)
def test_a_registration_names_its_sender(header: bytes) -> None:
    """Whatever the To header holds."""
    said = read(b"Registration from '%s' failed for '192.0.2.7:5060' - Wrong password" % header, SOURCE, 0.0)
    assert isinstance(said, SecurityEvent)
    assert str(said.remote.address) == "192.0.2.7"


@given(TEXT)
@settings(deadline=None, max_examples=500)
def test_a_call_names_its_sender_or_nobody(extension: bytes) -> None:
    """Whatever was dialled."""
    line = b"Call from '' (192.0.2.7:5060) to extension '" + extension + END
    said = read(line, SOURCE, 0.0)
    event = said.said if isinstance(said, Open) else said
    assert not isinstance(event, SecurityEvent) or event.remote.address != FORGED


@pytest.mark.parametrize(
    ("reason", "hearsay"),
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
def test_a_reason_with_an_m_can_be_forged(reason: bytes, *, hearsay: bool) -> None:
    """An ESC at the end of the To header leaves out the true address and all up to that m."""
    said = read(b"Registration from '<sip:bob@h>' failed for '192.0.2.7:5060' - " + reason, SOURCE, 0.0)
    assert isinstance(said, SecurityEvent)
    assert said.hearsay is hearsay
