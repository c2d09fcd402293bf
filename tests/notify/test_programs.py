"""Programs as children: their input, their output and their end."""

import os
import sys

import pytest

from ringfence.notify.programs import MAX_OUTPUT, run


def test_a_program_gets_its_input_and_environment() -> None:
    """A large input does not block, also if the program reads none of it."""
    text = b"x" * 1_000_000

    assert run(["wc", "-c"], text) == "1000000"
    assert run(["true"], text) == ""
    assert run(["sh", "-c", "echo $RINGFENCE_X"], b"", {**os.environ, "RINGFENCE_X": "y"}) == "y"


def test_the_output_is_bounded() -> None:
    """The end of a long output is kept."""
    found = run([sys.executable, "-c", "print('x' * 10_000_000 + 'end')"], b"")

    assert len(found) < MAX_OUTPUT + 1
    assert found.endswith("xend")


def test_a_program_that_fails_is_an_error() -> None:
    """The error has the code and the reason."""
    with pytest.raises(ValueError, match=r"^sh ended with 3: no$"):
        run(["sh", "-c", "echo no >&2; exit 3"], b"")
    with pytest.raises(ValueError, match=r"^sh ended with -9: no reason given$"):
        run(["sh", "-c", "kill -9 $$"], b"")


def test_a_program_that_is_missing_is_an_error() -> None:
    """The error names it."""
    with pytest.raises(ValueError, match=r"^/nonexistent/x cannot be run: No such file or directory$"):
        run(["/nonexistent/x"], b"")
