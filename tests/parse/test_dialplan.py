"""Lines of dialplans: the extension before them is the caller's (the corpus has dialplan.txt)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE

from ringfence.parse.notices import parse_dialplan
from ringfence.values.event import SecurityEvent

MESSAGES = (
    b': "Rejecting unknown SIP connection from %s"',
    b": Incoming SIP connection from unknown peer failed for %s - Unknown connection from peer",
    b": hacking attempt detected '%s'",
)
PLANTS = st.sampled_from([message % b"203.0.113.9" for message in MESSAGES] + [b": ", b'"', b"203.0.113.9"])


@pytest.mark.parametrize("message", MESSAGES)
@given(extension=st.lists(PLANTS | st.binary(max_size=3), max_size=5).map(b"".join))
@settings(deadline=None)
def test_any_extension_may_precede_the_words(message: bytes, extension: bytes) -> None:
    """The last occurrence of the words counts, whatever was dialled."""
    result = parse_dialplan(extension + message % b"192.0.2.7", SOURCE, 0.0)
    assert isinstance(result, SecurityEvent)
    assert str(result.remote.address) == "192.0.2.7"
