"""Line wrapping for terminals."""

import os
import pty
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st

from ringfence.cli.output import width_of, wrapped

WORDS = st.lists(st.text("abc/-:;.", min_size=1, max_size=30), min_size=1, max_size=30)


def test_a_line_is_broken_between_words() -> None:
    """Continuation lines are indented, hyphens and paths stay whole, and leading blanks are kept."""
    text = "source    asterisk/log:/var/log/ringfence/ringfence: waiting  it may-not be read"

    assert wrapped(text, 60, 10).splitlines() == [
        "source    asterisk/log:/var/log/ringfence/ringfence: waiting",
        "          it may-not be read",
    ]
    assert wrapped("  a b", 4, 2) == "  a\n  b"


def test_a_fix_begins_a_line() -> None:
    """A fix begins a new line, so that its command can be copied; a short line stays one line."""
    text = "NO  secret: everybody may read /a/file; fix: chmod o= /a/file"

    assert wrapped(text, 45, 4).splitlines() == [
        "NO  secret: everybody may read /a/file",
        "    fix: chmod o= /a/file",
    ]
    assert wrapped(text, 80, 4) == text


def test_a_word_that_is_too_long_stays_whole() -> None:
    """A word longer than the width gets a line of its own."""
    assert wrapped("see " + "x" * 30, 20, 2).splitlines() == ["see", "  " + "x" * 30]


@given(WORDS, st.integers(20, 100), st.integers(0, 10))
def test_no_word_is_lost(words: list[str], width: int, indent: int) -> None:
    """At any width the words and their order are the same, and every breakable line fits."""
    lines = wrapped(" ".join(words), width, indent).splitlines()

    assert " ".join(lines).split() == words
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)


def test_a_pipe_has_no_width() -> None:
    """A terminal has its columns; in a pipe no line is too long."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "w") as terminal:
        assert width_of(terminal) < 1_000
    assert width_of(StringIO()) == 1_000_000
