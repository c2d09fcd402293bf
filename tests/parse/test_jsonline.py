"""Lines that are JSON: a message, a wrapped line, or neither (the corpus has json.txt)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.worst import is_linear

from ringfence.parse.jsonline import Entry, unwrap


def test_the_formatter_of_asterisk() -> None:
    """Date, level, file and message, without its last LF."""
    logmsg = {
        "location": {"filename": "a.c", "function": "f", "line": 1},
        "level": "NOTICE",
        "message": "m\nn\n",
    }
    line = json.dumps({"hostname": "", "timestamp": "t", "identifiers": {}, "logmsg": logmsg}).encode()
    assert unwrap(line) == Entry(b"t", b"NOTICE", b"a.c", b"m\nn")


def test_what_a_container_wraps() -> None:
    """The line itself, without the end of line that was part of it."""
    assert (
        unwrap(json.dumps({"log": "a\tb \u00e4\r\n", "stream": "stdout"}).encode()) == "a\tb \u00e4".encode()
    )


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"{}",
        b"[]",
        b"1",
        b'{"log": 1}',
        b'{"logmsg": {"location": 1}}',
        b'{"logmsg": {"location": {}, "level": "NOTICE"}}',
        b'{"MESSAGE": "x"}',
        b'{"MESSAGE": [999], "SYSLOG_IDENTIFIER": "asterisk"}',
        b"\xff",
        b'{"a":' * 100_000,
    ],
)
def test_what_is_neither(line: bytes) -> None:
    """Any other object, or none, is no message."""
    assert unwrap(line) is None


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "log",
                        "MESSAGE",
                        "SYSLOG_IDENTIFIER",
                        "logmsg",
                        "location",
                        "level",
                        "filename",
                        "message",
                    ]
                ),
                inner,
            )
        ),
    )
)
@settings(deadline=None)
def test_no_object_raises(value: object) -> None:
    """Whatever the values are, there is a message, a line, or nothing."""
    assert isinstance(unwrap(json.dumps(value).encode()), Entry | bytes | None)


def test_surrogates_stay_bytes() -> None:
    """A text that no UTF-8 can hold makes a line all the same."""
    assert unwrap(b'{"log": "\\ud800"}') == b"\xed\xa0\x80"


@pytest.mark.parametrize("filler", [b"[", b'{"a":', b'"\\u0041', b"\\", b"1"])
def test_it_takes_linear_time(filler: bytes) -> None:
    """Nothing in a line makes reading it slower than its length."""
    assert is_linear(unwrap, b"{", filler)
