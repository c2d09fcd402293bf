"""Hints for mistyped commands."""

import pytest
from typer.testing import CliRunner

from ringfence.cli.app import app


def typed(*arguments: str) -> tuple[int, str]:
    """Run a command line; return its exit code and all its output, whitespace collapsed."""
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("allow", "192.0.2.4"), "allow add 192.0.2.4"),
        (("allow", "sip.carrier.example"), "allow add sip.carrier.example"),
        (("deny", "2001:db8::/48"), "deny add 2001:db8::/48"),
        (("deny", "DE"), "deny country DE"),
        (("192.0.2.4",), "ringfence why 192.0.2.4"),
        (("friends", "192.0.2.4"), "ringfence why 192.0.2.4"),
        (("help",), "--help"),
        (("allow", "help"), "allow --help"),
    ],
)
def test_a_hint_names_the_command(arguments: tuple[str, ...], meant: str) -> None:
    """An address or a country in place of a command gets a hint, with exit code 2."""
    code, said = typed(*arguments)

    assert code == 2
    assert "Did you mean: " in said
    assert said.endswith(f" {meant}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("alarms", "--config", "/b.toml", "dismiss", "3"),
        ("friends", "--config", "/b.toml", "forget", "192.0.2.7"),
        ("top", "--config", "/b.toml", "accounts"),
        ("web", "--login-socket", "/b", "login"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(arguments: tuple[str, ...]) -> None:
    """An option before a command is an error: the command would ask the default daemon."""
    code, said = typed(*arguments)

    assert code == 2
    assert f"Write {arguments[1]} after '{arguments[3]}'" in said


@pytest.mark.parametrize("arguments", [("dance",), ("allow", "dance"), ("DE",)])
def test_no_hint_for_an_unknown_word(arguments: tuple[str, ...]) -> None:
    """An unknown word gets the plain error without a hint."""
    code, said = typed(*arguments)

    assert code == 2
    assert said.endswith(f"No such command '{arguments[-1]}'.")


@pytest.mark.parametrize("arguments", [("-h",), ("ban", "-h"), ("allow", "-h"), ("allow", "add", "-h")])
def test_help_has_a_short_name(arguments: tuple[str, ...]) -> None:
    """``-h`` is ``--help`` everywhere."""
    code, said = typed(*arguments)

    assert code == 0
    assert said == typed(*arguments[:-1], "--help")[1]


def test_a_time_after_an_address() -> None:
    """``ban ADDRESS 2h`` gets a hint that names --for."""
    assert typed("ban", "192.0.2.4", "2h")[1].endswith("'2h' is a time; write it as: --for 2h")
