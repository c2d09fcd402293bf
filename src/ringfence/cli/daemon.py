"""``ringfence run``, ``reload``, ``restore``: run the daemon, restore bans."""

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from ringfence import SERVICE, street
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_daemon, duration_from, settings_from
from ringfence.cli.output import echo, echo_stderr, errors_reported
from ringfence.errors import ConfigError
from ringfence.guard.offline import restore_bans
from ringfence.guard.process import configure as configure_logging


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log debug messages too.")] = False,
    trial: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Remove every rule after TIME, such as 15m, unless `ringfence confirm` is run.",
        ),
    ] = "",
) -> None:
    """Guard the PBX until stopped. Bans stay in place when it ends."""
    options = [f"trial={duration_from('--trial', trial)}"] if trial else []
    if trial and "trial" not in street.present():
        raise typer.BadParameter("--trial: the feature trial is not installed")
    level = logging.DEBUG if verbose else logging.INFO
    # The daemon replaces this process (exec), which frees the memory that the command line's libraries use.
    arguments = [*SERVICE, str(config), str(level), *options]
    # The daemon starts with SIGHUP ignored. Otherwise a reload (SIGHUP) during its start would end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is wanted


def reload(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Reload the daemon's configuration; print its errors if it is invalid."""
    with errors_reported():
        answer = ask_daemon(config, "reload", quietly=True)  # the answer contains the errors
        if answer["refused"]:
            echo_stderr("the new configuration is invalid; the old one stays in force")
            raise ConfigError(answer["where"], answer["refused"])
    echo("the new configuration is in force")
    echo_stderr(*answer["notes"])


def restore(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Restore rules and bans in the kernel, and exit. For boot, before the network is up."""
    with errors_reported():
        settings = settings_from(config)
        configure_logging(logging.WARNING)
        echo(restore_bans(settings))
