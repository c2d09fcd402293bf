"""docs/cli.md, made from the commands themselves: their help texts, arguments and options."""

import textwrap
from collections.abc import Iterator
from typing import Any

import typer
import typer.main
from debian import manual
from tests.docs.pages import FOLDER

from ringfence.cli.app import app
from ringfence.errors import Exit

PAGE = FOLDER / "cli.md"

_HEAD = """\
<!-- Written by `make docs` from the commands. Change their help texts, not this page. -->

# Commands

Run the commands as root, or as a user that [`admins`](configuration.md#control) names. Other users in the
group `ringfence` [may only read](operating.md#who-may-do-what). While the daemon is down, every command that
uses its database or the kernel needs root.

- Every command has `--help`. `ringfence --version` prints the version.
- `--config FILE` names another configuration file. The environment variable `RINGFENCE_CONFIG` does the same.
  Other variables [set keys](configuration.md#environment-variables).
{with_json}
- Times in the output are UTC. `--local`, or `times = "local"` in `[display]`, shows the times in lists for
  people in the time zone of the terminal. JSON is always UTC.

[Operating](operating.md) explains the output of the commands for daily use. Back to the
[README](../README.md).
"""
_EXITS = {
    Exit.DONE: "Everything is as it should be, or the command did what you asked for.",
    Exit.PROBLEM: "A problem was found, or the daemon or the kernel refused. Standard error names it.",
    Exit.USAGE: "The command line or the configuration has mistakes. Standard error names all of them.",
    Exit.UNREACHABLE: (
        "The daemon does not answer. Standard error says whether the change is recorded, and takes effect "
        "when the daemon starts."
    ),
    Exit.NOT_RECORDED: "The change is in force, but not recorded. Standard error has the reason.",
}
_CONFIG = "Configuration file."
"""The help text of ``--config`` where the head of the page explains the option."""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name; a group comes before the commands in it."""
    yield from _within("", typer.main.get_group(app))


def _within(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's own copy of click
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield f"{prefix}{name}", command
        if hasattr(command, "commands"):
            yield from _within(f"{prefix}{name} ", command)


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD.format(with_json=_with_json()), *_overview(), ""]
    for name, command in commands():
        parts += [f"{'##' if ' ' not in name else '###'} {name}", "", command.help, ""]
        parts += ["```text", _usage(name, command), "```", "", *_parameters(command), *_without(command)]
    rows = [f"| {int(code)} | {code.name.lower()} | {meaning} |" for code, meaning in _EXITS.items()]
    parts += ["## Exit codes", "", "| code | name | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(parts)


def _with_json() -> str:
    """Return the entry of the list that names the commands with JSON output."""
    found = [
        f"`{name}`"
        for name, command in commands()
        if any("--json" in parameter.opts for parameter in command.params)
    ]
    text = (
        f"- {', '.join(found[:-1])} and {found[-1]} have `--json`, for scripts. "
        "New versions only add keys to this output."
    )
    return textwrap.fill(text, 110, subsequent_indent="  ")


def _overview() -> Iterator[str]:
    yield from ("| command | what it does |", "|---|---|")
    for name, command in commands():
        if " " not in name:
            yield f"| [`{name}`](#{name}) | {command.help} |"


def _usage(name: str, command: Any) -> str:  # noqa: ANN401 - as above
    pieces = command.collect_usage_pieces(command.make_context(name, [], resilient_parsing=True))
    return " ".join(["ringfence", name, *(piece.replace("{", "").replace("}", "") for piece in pieces)])


def _parameters(command: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    rows = [
        f"| {_written(parameter)} | {parameter.help}{_default(parameter)} |"
        for parameter in command.params
        if parameter.name != "help" and parameter.help != _CONFIG
    ]
    if rows:
        yield from ("| argument or option | meaning |", "|---|---|", *rows, "")


def _without(command: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    """Yield a sentence if a command has no ``--config``; a group that only groups has no options at all."""
    options = {
        option for parameter in command.params if parameter.name != "help" for option in parameter.opts
    }
    if "--config" not in options and (options or not hasattr(command, "commands")):
        yield from (manual.NO_CONFIG, "")


def _written(parameter: Any) -> str:  # noqa: ANN401 - as above
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`".replace("|", "\\|")
    metavar = f" {parameter.metavar}" if parameter.metavar and not parameter.is_flag else ""
    return ", ".join(f"`{name}{metavar}`" for name in parameter.opts)


def _default(parameter: Any) -> str:  # noqa: ANN401 - as above
    value = parameter.default
    if value in {None, "", False} or parameter.required or not getattr(parameter, "show_default", True):
        return ""
    return f" Default: `{value}`."
