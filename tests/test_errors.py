"""The exception tree, by which callers decide."""

import inspect

import pytest

from ringfence import errors
from ringfence.errors import (
    ConfigError,
    ControlError,
    DaemonUnreachableError,
    Exit,
    FirewallBusyError,
    NotRecordedError,
    RingfenceError,
    error_lines,
    report_defect,
)

EVERY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__ and issubclass(kind, BaseException)
]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_in_the_tree_and_has_a_docstring(kind: type[Exception]) -> None:
    """Every exception raised on purpose is a RingfenceError, with a docstring and a name in Error."""
    assert issubclass(kind, RingfenceError)
    assert kind.__name__.endswith("Error")
    assert kind.__doc__


def test_a_configuration_error_holds_every_problem() -> None:
    """ConfigError names the file and has the problems as a list and in its text."""
    error = ConfigError("ringfence.toml", ["a: wrong", "b: wrong too"])

    assert (error.where, error.problems) == ("ringfence.toml", ["a: wrong", "b: wrong too"])
    assert str(error) == "ringfence.toml: a: wrong; b: wrong too"


def test_an_absent_daemon_is_a_control_error() -> None:
    """Code that handles a refused command also handles an absent daemon."""
    assert issubclass(DaemonUnreachableError, ControlError)


def test_the_exit_codes_are_fixed() -> None:
    """Scripts compare these numbers."""
    numbers = {"DONE": 0, "PROBLEM": 1, "USAGE": 2, "UNREACHABLE": 3, "NOT_RECORDED": 4}
    assert {code.name: code.value for code in Exit} == numbers


@pytest.mark.parametrize(
    ("error", "lines", "code"),
    [
        (ConfigError("file", ["a: wrong", "b: wrong"]), ["file:", "  a: wrong", "  b: wrong"], Exit.USAGE),
        (DaemonUnreachableError("nobody there"), ["nobody there"], Exit.UNREACHABLE),
        (ControlError("refused"), ["refused"], Exit.PROBLEM),
        (NotRecordedError("disk full"), ["disk full"], Exit.NOT_RECORDED),
        (FirewallBusyError("taken"), ["taken"], Exit.PROBLEM),
        (RingfenceError("whatever"), ["whatever"], Exit.PROBLEM),
    ],
)
def test_each_error_has_its_lines_and_exit_code(error: RingfenceError, lines: list[str], code: Exit) -> None:
    """A wrong configuration is one line for each problem, any other error is its text."""
    assert error_lines(error) == (lines, code)


def test_a_defect_is_reported_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """An error message may quote hostile text: each line is escaped and indented."""
    report_defect(ValueError, ValueError("x\x1b[31m\u202e\nEVIL"), None)

    assert capsys.readouterr().err == "ValueError: x\\x1b[31m\\u202e\n  EVIL\n"
