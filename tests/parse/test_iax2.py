"""Messages of chan_iax2: names of any text, and no digests (the corpus has iax2.txt)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE

from ringfence.parse.line_result import OpenMessage
from ringfence.parse.notices import parse_iax2
from ringfence.values.event import SecurityEvent

LINES = (
    b"No registration for peer '%s' (from 192.0.2.7)",
    b"Host 192.0.2.7 denied access to register peer '%s'",
    b"Host 192.0.2.7 did not provide proper plaintext password for '%s'",
    b"Rejected connect attempt from 192.0.2.7, who was trying to reach '%s@c'",
    b"Host 192.0.2.7 failed MD5 authentication for '%s' (0123456789abcdef != fedcba9876543210)",
)
PLANTS = st.sampled_from([b"' (from 203.0.113.9)", b"'", b"Host 203.0.113.9", b"' (a != b)", b"\n", b"("])


@pytest.mark.parametrize("line", LINES)
@given(name=st.lists(PLANTS | st.binary(max_size=3), max_size=6).map(b"".join))
@settings(deadline=None)
def test_any_name_is_parsed(line: bytes, name: bytes) -> None:
    """The sender's address is found for any name, and no digest is kept."""
    result = parse_iax2(line % name, SOURCE, 0.0)
    event = result.result if isinstance(result, OpenMessage) else result
    assert isinstance(event, SecurityEvent)
    assert str(event.remote.address) == "192.0.2.7"
    assert "fedcba9876543210" not in repr(event)
