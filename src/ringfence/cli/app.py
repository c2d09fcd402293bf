"""The command line application: its commands and exit codes.

The module of a command is loaded when the command runs, so that ``--help`` is fast.

Exit codes: 0 success, 1 a problem was found, 2 wrong usage or configuration, 3 the daemon is needed but not
reachable, 4 the change is in force but not recorded.
"""

import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Any, ClassVar

import typer
from typer.main import get_command

import ringfence
from ringfence import street
from ringfence.cli.groups import LazyGroup
from ringfence.cli.output import checked, echo, echo_stderr, exit_if_unrecorded, open_closed_streams
from ringfence.errors import Exit, OutputError, report_defect
from ringfence.street import Command
from ringfence.values.text import printable


class Commands(LazyGroup):
    """The commands of ``ringfence``. A test compares each text with the help of the command itself.

    If a command succeeds, but the database could not record its change, the exit code shows it.
    """

    lazy: ClassVar = {
        "run": Command(".daemon", "Guard the PBX until stopped. Bans stay in place when it ends."),
        "reload": Command(".daemon", "Reload the daemon's configuration; print its errors if it is invalid."),
        "restore": Command(
            ".daemon",
            "Restore rules and bans in the kernel, and exit. For boot, before the network is up.",
        ),
        "bans": Command(".bans", "List current bans, as read from the kernel, with the daemon up or down."),
        "ban": Command(".bans", "Ban addresses or networks by hand."),
        "unban": Command(
            ".bans",
            "End bans of addresses or networks, or all bans. Works with the daemon up or down.",
        ),
        "allow": Command(".lists", "Show and change the allow list: addresses that are never banned."),
        "deny": Command(".lists", "Show and change the deny list: addresses that are always dropped."),
        "friends": Command(
            ".friends",
            "Show the known phones and trunks of this PBX; copy them to a second server.",
        ),
        "off": Command(
            ".switch",
            "Remove every rule and set of ringfence, with the daemon up or down, until `ringfence on`.",
        ),
        "on": Command(".switch", "Enforce again, after `ringfence off`."),
        "status": Command(".status", "Show alarms, sources, attempts, bans, and addresses near a ban."),
        "events": Command(".events", "Show the latest attempts, bans and alarms, one line each."),
        "alarms": Command(".alarms", "List alarms and their history, or dismiss them."),
        "why": Command(".why", "Explain an address or an account: its attempts, its bans, and what to do."),
        "check": Command(".check", "Check this installation, and suggest fixes. Changes nothing."),
        "config": Command(".config", "Show and check the configuration. Changes nothing."),
        **street.commands(),
    }

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own copies of click's types
        """Run the command that the user typed; exit with another code if its change is not recorded."""
        result = super().invoke(ctx)
        exit_if_unrecorded()
        return result


app = typer.Typer(
    name="ringfence",
    cls=Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Guard an Asterisk PBX: ban password guessers and extension scanners in the kernel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


def main() -> None:
    """Run the command line.

    An argument with an invisible character was probably pasted by mistake. It is refused before typer parses
    it, because typer's error messages would print the character unescaped.
    """
    sys.excepthook = report_defect
    open_closed_streams()
    if isinstance(sys.stdout, TextIOWrapper) and isinstance(sys.stderr, TextIOWrapper):
        sys.stdout, sys.stderr = checked(sys.stdout), checked(sys.stderr)
    for argument in sys.argv[1:]:
        if printable(argument) != argument:
            echo_stderr(f"{argument} contains an invisible character; fix: type it again")
            sys.exit(Exit.USAGE)
    command = get_command(app)  # a call of ``app`` itself would replace the excepthook
    try:
        command()
    except OutputError as error:
        with suppress(OutputError):
            echo_stderr(str(error))
        sys.exit(Exit.PROBLEM)
