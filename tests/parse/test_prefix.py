"""Prefixes: date, level, thread, file, and the text around them (the corpus has prefixes.txt)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.worst import is_linear

from ringfence.parse.prefix import parse_prefix


@pytest.mark.parametrize(
    ("line", "date", "level", "thread", "file", "message"),
    [
        (b"[d a t e] NOTICE[17] chan_sip.c: m", b"d a t e", b"NOTICE", b"17", b"chan_sip.c", b"m"),
        (b"[d a t e] ERROR[1][C-0000abcd] a/b.c: m", b"d a t e", b"ERROR", b"1", b"a/b.c", b"m"),
        (b"SECURITY[1]: a.c:12 in f: m: n", None, b"SECURITY", b"1", b"a.c", b"m: n"),
        (b"[d a t e] WARNING[1] Ext. s: m", b"d a t e", b"WARNING", b"1", b"Ext.", b"s: m"),
        (
            b"Nov 20 06:05:22 h asterisk[1]: NOTICE[1]: a.c:1 in f: m",
            b"Nov 20 06:05:22",
            b"NOTICE",
            b"1",
            b"a.c",
            b"m",
        ),
    ],
)
def test_the_parts_of_a_prefix(
    line: bytes, date: bytes | None, level: bytes, thread: bytes, file: bytes, message: bytes
) -> None:
    """Each part is Asterisk's value, and the rest is the message."""
    prefix = parse_prefix(line)
    assert prefix is not None
    assert (prefix.date, prefix.level, prefix.thread, prefix.file) == (date, level, thread, file)
    assert line[prefix.end :] == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"NOTICE",
        b"NOTICE[x] a.c: m",
        b"NOTICE[1]a.c: m",
        b"notice[1] a.c: m",
        b"[d a t e]NOTICE",
        b" [d a t e] NOTICE[1] a.c: m",
        b"x NOTICE[1] a.c: m",
        b"Nov 20 06:05:22 h sshd[1]: NOTICE[1]: a.c:1 in f: m",
    ],
)
def test_other_text_is_no_prefix(line: bytes) -> None:
    """A prefix stands at the very beginning, or after known text."""
    assert parse_prefix(line) is None


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_raise(line: bytes) -> None:
    """A line has a prefix that ends within it, or has none."""
    prefix = parse_prefix(line)
    assert prefix is None or 0 < prefix.end <= len(line)


@pytest.mark.parametrize("filler", [b"[", b"A", b"1", b" ", b"\x1b[0m", b"asterisk: ", b"Nov 20 ", b"x | "])
def test_it_takes_linear_time(filler: bytes) -> None:
    """Only the beginning of a long line is examined."""
    assert is_linear(parse_prefix, b"", filler)
