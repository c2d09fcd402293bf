"""Messages of res_pjsip: the sender's text around the address (the corpus has pjsip.txt)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.support.captures import FORGED

from ringfence.model import SecurityEvent
from ringfence.parse.line_result import OpenMessage
from ringfence.parse.pjsip_notice import parse_distributor, parse_session

PLANTS = st.sampled_from(
    [
        b"' failed for '203.0.113.9:5060' (callid: ",
        b"' failed for '",
        b"' (callid: ",
        b") - Failed to authenticate",
        b"' from '",
        b"203.0.113.9:5060",
        b"'",
        b"(UDP:203.0.113.9:5060) to extension '",
        b": Call ",
    ]
)
TEXT = st.lists(PLANTS | st.binary(max_size=3), max_size=6).map(b"".join)


@given(TEXT, TEXT, TEXT)
@settings(deadline=None, max_examples=500)
def test_a_request_names_its_sender_or_none(method: bytes, header: bytes, session: bytes) -> None:
    """The sender's address or none is found for any method, From and Call-ID."""
    line = b"Request '%s' from '%s' failed for '192.0.2.7:5060' (callid: %s) - No matching endpoint found"
    result = parse_distributor(line % (method, header, session), SOURCE, 0.0)
    assert not isinstance(result, SecurityEvent) or result.remote.address != FORGED


@given(TEXT)
@settings(deadline=None)
def test_a_call_names_its_sender(extension: bytes) -> None:
    """The sender's address is found, whatever was dialled."""
    end = b"' rejected because extension not found in context 'c'."
    result = parse_session(b"a: Call (UDP:192.0.2.7:5060) to extension '" + extension + end, SOURCE, 0.0)
    event = result.result if isinstance(result, OpenMessage) else result
    assert isinstance(event, SecurityEvent)
    assert str(event.remote.address) == "192.0.2.7"
