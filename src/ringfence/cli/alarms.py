"""``ringfence alarms``: list alarms with their history, and dismiss them."""

import os
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    alarm_text,
    ask_daemon,
    ask_or_read,
    duration_from,
)
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.screen import Screen
from ringfence.control import MOST_PAST
from ringfence.errors import Exit

_INDENT = 7  # columns before the text of an alarm

Rows = list[dict[str, Any]]
NumbersArgument = Annotated[
    list[str], typer.Argument(metavar="NUMBER", help="Numbers as `ringfence alarms` shows them, or `all`.")
]
ByOption = Annotated[
    str, typer.Option("--by", metavar="NAME", help="Your name, if it is not that of the user.")
]

alarms = typer.Typer(cls=HintingGroup, invoke_without_command=True, add_completion=False)


@alarms.callback()
def alarms_list(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    past: Annotated[bool, typer.Option("--past", help="List alarms that cleared, the latest first.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="With --past: how long ago, such as 7d.")
    ] = "",
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the active alarms, or with --past those that cleared. Do nothing if a subcommand was given."""
    if context.invoked_subcommand is not None:
        return
    if since and not past:
        raise typer.BadParameter("--since needs --past")
    output.choose(local=local)
    seconds = duration_from("--since", since) if since else None
    with errors_reported():
        period: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
        rows, absent = ask_or_read(config, "alarms", past=past, **period)
    if as_json:
        echo_json(rows)
    else:
        _print(rows, Screen(), past=past)
    if past and len(rows) >= MOST_PAST:
        echo_stderr(f"Only the latest {MOST_PAST} are listed.")
    if absent:
        echo_stderr("The daemon does not answer: its database is read.")


@alarms.command("dismiss")
def alarms_dismiss(
    numbers: NumbersArgument, config: ConfigOption = DEFAULT_CONFIG, by: ByOption = ""
) -> None:
    """Hide an alarm until it happens again."""
    if numbers != ["all"] and not all(text.isascii() and text.isdecimal() for text in numbers):
        raise typer.BadParameter("name numbers of alarms, or `all`")
    which: dict[str, Any] = (
        {"all": True} if numbers == ["all"] else {"numbers": [int(text) for text in numbers]}
    )
    with errors_reported():
        answer = ask_daemon(config, "alarms_dismiss", by=by or os.environ.get("SUDO_USER", ""), **which)
    for row in answer["done"]:
        echo(f"dismissed: {row['number']} {alarm_text(row)}", indent=2)
    echo_stderr(*(f"no active alarm has the number {number}" for number in answer["unknown"]))
    if answer["unknown"]:
        raise typer.Exit(Exit.PROBLEM)


def _print(rows: Rows, to: Screen, *, past: bool) -> None:
    if not rows:
        none = "There are no alarms. To check everything: ringfence check"
        to.show("No alarm cleared in this time." if past else none)
    for row in rows:
        style = "" if past or row["dismissed"] else "bold red"
        to.show(f"{row['number']:5}  {alarm_text(row)}", style=style, indent=_INDENT)
        to.show(f"{'':{_INDENT}}{_history(row)}", indent=_INDENT)


def _history(row: dict[str, Any]) -> str:
    parts = [f"since {short_time(row['since'])}"]
    if row["times"] > 1:
        parts.append(f"{row['times']} times, last {short_time(row['last'])}")
    if row["dismissed"]:
        parts.append(f"dismissed {short_time(row['dismissed'])} by {row['dismissed_by']}")
    if row["cleared"]:
        parts.append(f"cleared {short_time(row['cleared'])}")
    return "; ".join(parts) + f" ({output.zone()})"
