"""The table of formats: each reads its messages only, never raises, and takes linear time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.parse.worst import FILLERS, HEADS, is_linear

from ringfence.model import SecurityEvent
from ringfence.parse.formats import FORMATS, SUSPICIOUS
from ringfence.parse.reading import Alarm, Open, Why

PIECES = st.sampled_from([*HEADS, *FILLERS, b"192.0.2.7", b"[2001:db8::7]:5060", b"Wrong password", b"' - "])


@pytest.mark.parametrize("file", FORMATS, ids=str)
def test_the_worst_text_takes_linear_time(file: bytes) -> None:
    """One megabyte of any one text, behind any head, is read in time that grows with its length."""
    read = FORMATS[file].read
    slow = [
        (head, filler)
        for head in HEADS
        for filler in FILLERS
        if not is_linear(lambda text: read(text, SOURCE, 0.0), head, filler)
    ]
    assert slow == []


@given(st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join))
@settings(deadline=None)
def test_no_bytes_raise(text: bytes) -> None:
    """Every format makes of any bytes an event, a reason, an alarm, or waits for an end."""
    for form in FORMATS.values():
        assert isinstance(form.read(text, SOURCE, 0.0), SecurityEvent | Why | Alarm | Open)


@pytest.mark.parametrize("filler", FILLERS)
def test_the_search_for_suspicious_words_is_linear(filler: bytes) -> None:
    """What nobody knows is searched once."""
    assert is_linear(SUSPICIOUS.search, b"", filler)
