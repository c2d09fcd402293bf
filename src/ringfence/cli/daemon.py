"""``ringfence run``, ``reload``, ``restore``: run the daemon, restore bans."""

import logging
import os
import signal
import sys
from itertools import chain
from typing import Annotated, Any

import typer

from ringfence import SERVICE
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_daemon, settings_from
from ringfence.cli.options import read_options, with_options
from ringfence.cli.output import echo, echo_stderr, errors_reported
from ringfence.errors import ConfigError
from ringfence.guard.offline import restore_at_boot
from ringfence.guard.process import configure_logging


@with_options
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log debug messages too.")] = False,
    **options: Any,  # noqa: ANN401 - the values of options that features add
) -> None:
    """Guard the PBX until stopped. Bans stay in place when it ends."""
    level = logging.DEBUG if verbose else logging.INFO
    # The daemon replaces this process (exec), which frees the memory that the command line's libraries use.
    arguments = [*SERVICE, str(config), str(level), *chain(*read_options("run", options))]
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
        echo(restore_at_boot(settings))
