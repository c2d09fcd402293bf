"""``ringfence run``, ``reload``, ``restore``, ``confirm``: run the daemon, restore bans, end a trial."""

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from ringfence import SERVICE
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask, ask_daemon, duration_from, settings_from
from ringfence.cli.output import echo, echo_stderr, errors_reported
from ringfence.daemon import trial
from ringfence.daemon.offline import restore_bans
from ringfence.daemon.process import configure as configure_logging
from ringfence.errors import ConfigError, DaemonUnreachableError
from ringfence.store.database import Store


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
    seconds = duration_from("--trial", trial) if trial else 0.0
    level = logging.DEBUG if verbose else logging.INFO
    # The daemon replaces this process (exec), which frees the memory that the command line's libraries use.
    arguments = [*SERVICE, str(config), str(level), *([str(seconds)] if seconds else [])]
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


def confirm(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Keep rules and bans after the trial of `ringfence run --trial`."""
    with errors_reported():
        settings = settings_from(config)
        try:
            pending = ask(settings, "confirm")
        except DaemonUnreachableError:
            with Store.open(settings.store.path, owner=False) as store:
                pending = trial.confirm(store.state)
    echo("confirmed: rules and bans stay in place" if pending else "no trial is running: nothing to confirm")
