"""The command line: ``ringfence COMMAND``, one file a group of commands.

Only typer is loaded here; what a command needs is loaded when it runs, so that ``--help`` is quick.

Exit codes: 0 done, 1 a problem was found, 2 usage or configuration, 3 the daemon is needed and not reachable.
"""

from typing import Annotated

import typer

import ringfence
from ringfence.cli import (
    bans,
    check,
    daemon,
    friends,
    import_fail2ban,
    lists,
    parse,
    replay,
    status,
    switch,
    why,
)

app = typer.Typer(
    name="ringfence",
    help="Guards an Asterisk PBX: from its security events to bans in the kernel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (daemon, bans, lists, friends, switch, status, why, check, parse, replay, import_fail2ban):
    group.register(app)


def _say_whole(commands: typer.Typer) -> None:
    """Have ``--help`` list whole sentences: what is no short help is cut to the width of a terminal."""
    for command in commands.registered_commands:
        command.short_help = command.callback.__doc__ if command.callback else None
    for group in commands.registered_groups:
        group.short_help = group.help
        if group.typer_instance is not None:
            _say_whole(group.typer_instance)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ringfence {ringfence.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which version this is, and end.", is_eager=True, callback=_say_version
        ),
    ] = False,
) -> None:
    """Take what is no command."""


_say_whole(app)


def main() -> None:
    """Run the command line."""
    app()
