"""``ringfence setup``: connect ringfence to the Asterisk of this host and test this, or undo the changes."""

from typing import Annotated

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, errors_reported
from ringfence.errors import Exit

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the changes, and make none.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Make the changes without a question.")]
UndoOption = Annotated[bool, typer.Option("--undo", help="Restore every file that setup has changed.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line ``app``."""
    app.command()(setup)


def setup(
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    undo: UndoOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Connect ringfence to the local Asterisk, start ringfence, and test it with a harmless failed login."""
    from ringfence.cli.setup_run import SetupRun  # noqa: PLC0415 - loaded when the command runs
    from ringfence.setup.host_paths import HostPaths  # noqa: PLC0415 - loaded when the command runs

    with errors_reported():
        run = SetupRun(HostPaths(config=config), dry_run=dry_run, yes=yes)
        right = run.undo() if undo else run.setup()
    if not right:
        raise typer.Exit(Exit.PROBLEM)
