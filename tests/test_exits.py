"""What a process of ringfence's says in the end, and with which exit code."""

import pytest

from ringfence.errors import (
    ConfigError,
    ControlError,
    DaemonUnreachableError,
    FirewallBusyError,
    RingfenceError,
)
from ringfence.exits import Exit, explained


def test_the_codes_are_promised() -> None:
    """Scripts compare these numbers."""
    assert {code.name: code.value for code in Exit} == {"DONE": 0, "PROBLEM": 1, "USAGE": 2, "UNREACHABLE": 3}


@pytest.mark.parametrize(
    ("error", "lines", "code"),
    [
        (ConfigError("file", ["a: wrong", "b: wrong"]), ["file:", "  a: wrong", "  b: wrong"], Exit.USAGE),
        (DaemonUnreachableError("nobody there"), ["nobody there"], Exit.UNREACHABLE),
        (ControlError("refused"), ["refused"], Exit.PROBLEM),
        (FirewallBusyError("taken"), ["taken"], Exit.PROBLEM),
        (RingfenceError("whatever"), ["whatever"], Exit.PROBLEM),
    ],
)
def test_each_error_is_told_in_its_way(error: RingfenceError, lines: list[str], code: Exit) -> None:
    """A wrong configuration a line for each problem, all else its text."""
    assert explained(error) == (lines, code)
