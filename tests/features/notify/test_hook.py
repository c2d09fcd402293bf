"""The command hook: JSON on standard input, and variables that are safe in a careless script."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.features.notify.samples import HOSTILE, WALL, alarm, ban, content, hostile_content
from tests.support.programs import program_service

from ringfence.config.environment import overridden
from ringfence.features.notify import notifications, programs
from ringfence.features.notify.hook_variables import HOOK_VARIABLES

CONTENT = content(notifications.of_ban(ban(7), WALL))


@pytest.fixture(autouse=True)
def _service(tmp_path: Path) -> Iterator[None]:
    """Run the service for programs."""
    with program_service(tmp_path):
        yield


def script(folder: Path, text: str) -> dict[str, Any]:
    """Return the channel of a shell script."""
    program = folder / "hook"
    program.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    program.chmod(0o755)
    return {
        "command": [str(program), "an argument"],
        "socket": str(folder / "notify.socket"),
        "timeout": 20.0,
    }


def test_the_command_gets_the_message(tmp_path: Path) -> None:
    """The document has the whole message, the variables its only event."""
    channel = script(tmp_path, f'cat > {tmp_path}/in; env > {tmp_path}/env; echo "$1" > {tmp_path}/argument')

    assert programs.run_hook(channel, CONTENT, "pbx1") == f"{tmp_path}/hook ended with 0"
    document = json.loads((tmp_path / "in").read_text("utf-8"))
    assert (document["host"], document["title"]) == ("pbx1", "[ringfence pbx1] 198.18.0.7 banned (guess)")
    assert document["events"] == CONTENT["events"]
    assert (tmp_path / "argument").read_text("utf-8") == "an argument\n"
    variables = set((tmp_path / "env").read_text("utf-8").split("\n"))
    assert {
        "RINGFENCE_EVENT=ban",
        "RINGFENCE_NAME=guess",
        "RINGFENCE_SUBJECT=198.18.0.7",
        "RINGFENCE_SECONDS=3600",
        "RINGFENCE_SEVERITY=info",
        "RINGFENCE_TOTAL=1",
    } <= variables


def test_several_events_are_a_digest() -> None:
    """The variables of one event are empty then."""
    found = programs.variables(content(*[notifications.of_ban(ban(at), WALL) for at in range(3)]), "h", "t")

    assert (found["RINGFENCE_EVENT"], found["RINGFENCE_TOTAL"], found["RINGFENCE_SUBJECT"]) == (
        "digest",
        "3",
        "",
    )


def test_the_variables_are_those_that_the_configuration_ignores() -> None:
    """A command of ringfence inside a hook does not take them for keys of the configuration."""
    found = programs.variables(CONTENT, "h", "t")

    assert tuple(found) == HOOK_VARIABLES
    assert overridden({}, found).problems == ()


def test_a_variable_without_quotes_is_one_argument_and_no_option(tmp_path: Path) -> None:
    """A blank and a leading dash are encoded."""
    channel = script(tmp_path, f'printf "%s|" $RINGFENCE_SUBJECT > {tmp_path}/out')
    programs.run_hook(channel, content(notifications.of_alarm(alarm(subject="--to root -x"))), "h")

    assert (tmp_path / "out").read_text("utf-8") == "%2D-to%20root%20-x|"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_careless_script_runs_no_command_of_a_sender(tmp_path: Path, name: str) -> None:
    """Even a script that passes a variable to ``eval`` executes no hostile text."""
    channel = script(tmp_path, f'cd {tmp_path}; eval "echo $RINGFENCE_SUBJECT $RINGFENCE_TEXT" > out 2>&1')
    before = {path.name for path in tmp_path.iterdir()} | {"out"}
    found = content(notifications.of_alarm(alarm(subject=name, text=name)))

    programs.run_hook(channel, found, "h")

    assert {path.name for path in tmp_path.iterdir()} == before
    assert not Path("/tmp/pwned").exists()  # noqa: S108 - the name in the hostile text


def test_the_document_is_ascii_without_control_characters(tmp_path: Path) -> None:
    """A script that prints the document changes no terminal."""
    programs.run_hook(script(tmp_path, f"cat > {tmp_path}/in"), hostile_content(*HOSTILE), "h")
    text = (tmp_path / "in").read_text("ascii")

    assert text.rstrip("\n").isprintable()
    assert json.loads(text)["total"] == 2 * len(HOSTILE)


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    """The error has the end of its output."""
    with pytest.raises(ValueError, match="ended with 4: broken"):
        programs.run_hook(script(tmp_path, "echo broken; exit 4"), CONTENT, "h")
