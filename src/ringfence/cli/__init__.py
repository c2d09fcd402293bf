"""The command line: ``ringfence COMMAND``, one file a group of commands.

Only typer is loaded here; what a command needs is loaded when it runs, so that ``--help`` is quick.

Exit codes: 0 done, 1 a problem was found, 2 usage or configuration, 3 the daemon is needed and not reachable.
"""

import typer

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


def main() -> None:
    """Run the command line."""
    app()
