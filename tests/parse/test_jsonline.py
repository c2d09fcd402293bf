"""Lines that are JSON: a message, a wrapped line, or neither (the corpus has json.txt)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.worst import is_linear

from ringfence.parse.wrappers import JsonMessage, Piece, unwrap


def test_the_formatter_of_asterisk() -> None:
    """Date, level, file and message, without its last LF."""
    logmsg = {
        "location": {"filename": "a.c", "function": "f", "line": 1},
        "level": "NOTICE",
        "message": "m\nn\n",
    }
    line = json.dumps({"hostname": "", "timestamp": "t", "identifiers": {}, "logmsg": logmsg}).encode()
    assert unwrap(line) == JsonMessage(b"t", b"NOTICE", b"a.c", b"m\nn")


def test_a_line_in_a_container_log() -> None:
    """The line itself is returned, without the line end that was part of it."""
    line = json.dumps({"log": "a\tb \u00e4\n", "stream": "stdout"}).encode()
    assert unwrap(line) == Piece("a\tb \u00e4".encode(), b"stdout", is_open=False)


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
def test_other_objects_are_ignored(line: bytes) -> None:
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
    """Any values give a message, a line, or None."""
    assert isinstance(unwrap(json.dumps(value).encode()), JsonMessage | Piece | None)


def test_surrogates_stay_bytes() -> None:
    """A text that UTF-8 cannot encode is a line all the same."""
    assert unwrap(b'{"log": "\\ud800"}') == Piece(b"\xed\xa0\x80", b"", is_open=False)


@pytest.mark.parametrize("filler", [b"[", b'{"a":', b'"\\u0041', b"\\", b"1"])
def test_it_takes_linear_time(filler: bytes) -> None:
    """No text makes parsing slower than its length."""
    assert is_linear(unwrap, b"{", filler)
