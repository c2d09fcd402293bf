"""The exception tree: decided on by type."""

import inspect

import pytest

from ringfence import errors
from ringfence.errors import ConfigError, ControlError, DaemonUnreachableError, RingfenceError

EVERY = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_in_the_tree_and_says_what_it_means(kind: type[Exception]) -> None:
    """Whatever is raised on purpose is a RingfenceError, with a docstring and a name that says it is one."""
    assert issubclass(kind, RingfenceError)
    assert kind.__name__.endswith("Error")
    assert kind.__doc__


def test_a_configuration_error_holds_every_problem() -> None:
    """ConfigError names the file and gives the problems as a list, and in one line as text."""
    error = ConfigError("ringfence.toml", ["a: wrong", "b: wrong too"])

    assert (error.where, error.problems) == ("ringfence.toml", ["a: wrong", "b: wrong too"])
    assert str(error) == "ringfence.toml: a: wrong; b: wrong too"


def test_an_absent_daemon_is_a_control_error() -> None:
    """Whoever handles a refused command handles an absent daemon too."""
    assert issubclass(DaemonUnreachableError, ControlError)
