"""``ringfence run``: the daemon itself."""

import logging
import os
import sys
from typing import Annotated

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(run)


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Guard the PBX until stopped. Bans stay in place when it ends."""
    level = logging.DEBUG if verbose else logging.INFO
    # The same process goes on as the daemon, without this command line's libraries (service.py says why).
    # -P: nothing is imported from the folder that it happens to be started in.
    arguments = ["-P", "-m", "ringfence.service", str(config), str(level)]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is wanted
