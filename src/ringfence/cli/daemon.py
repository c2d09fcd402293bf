"""``ringfence run``: the daemon itself."""

from typing import Annotated

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, errors_told, settings_from


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(run)


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Guard the PBX until stopped. Bans stay in place when it ends."""
    from ringfence import log  # noqa: PLC0415 - loaded when the command runs
    from ringfence.daemon import Daemon  # noqa: PLC0415 - loaded when the command runs

    log.configure(verbose=verbose)
    with errors_told():
        Daemon(config, settings_from(config, secrets=True)).run()
