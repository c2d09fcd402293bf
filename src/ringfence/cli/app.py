"""The command line application: its commands and exit codes.

A command imports most of its libraries only when it runs, so that ``--help`` is fast.

Exit codes: 0 success, 1 a problem was found, 2 wrong usage or configuration, 3 the daemon is needed but not
reachable.
"""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

import ringfence
from ringfence.cli import (
    alarms,
    bans,
    check,
    config,
    daemon,
    events,
    friends,
    history,
    import_fail2ban,
    lists,
    notify,
    parse,
    replay,
    report,
    setup,
    status,
    switch,
    top,
    web,
    why,
)
from ringfence.cli.hints import HintingGroup
from ringfence.cli.output import echo, echo_stderr
from ringfence.errors import Exit, report_defect

app = typer.Typer(
    name="ringfence",
    cls=HintingGroup,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Guard an Asterisk PBX: ban password guessers and extension scanners in the kernel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (
    setup,
    daemon,
    bans,
    lists,
    friends,
    switch,
    status,
    history,
    report,
    events,
    top,
    alarms,
    why,
    check,
    notify,
    web,
    config,
    parse,
    replay,
    import_fail2ban,
):
    group.register(app)


def _show_whole_help(commands: typer.Typer) -> None:
    """Let ``--help`` list the whole docstring of each command. Typer would cut it to the terminal's width."""
    for command in commands.registered_commands:
        command.short_help = command.callback.__doc__ if command.callback else None
    for group in commands.registered_groups:
        group.short_help = group.help
        if group.typer_instance is not None:
            _show_whole_help(group.typer_instance)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"ringfence {ringfence.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version, and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Define the options of ``ringfence`` itself, such as ``--version``. They stand before the command."""


_show_whole_help(app)


def main() -> None:
    """Run the command line.

    An argument with an invisible character was probably pasted by mistake. It is refused before typer parses
    it, because typer's error messages would print the character unescaped.
    """
    sys.excepthook = report_defect
    for stream in (sys.stdout, sys.stderr):
        # An account name may contain a character that the terminal's encoding lacks. It is printed escaped.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for argument in sys.argv[1:]:
        if not (argument.isascii() and argument.isprintable()) and _has_invisible(argument):
            echo_stderr(f"{argument} contains an invisible character; fix: type it again")
            sys.exit(Exit.USAGE)
    app()


def _has_invisible(argument: str) -> bool:
    from ringfence.model import printable  # noqa: PLC0415 - loaded when needed

    return printable(argument) != argument
