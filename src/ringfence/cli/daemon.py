"""``ringfence run``, ``reload``, ``restore``, ``confirm``: the daemon, its bans at boot, a trial's end."""

import logging
import os
import sys
from typing import Annotated

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask,
    ask_daemon,
    errors_told,
    say,
    settings_from,
)
from ringfence.errors import ConfigError, DaemonUnreachableError


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(run)
    app.command()(reload)
    app.command()(restore)
    app.command()(confirm)


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    trial: Annotated[
        str,
        typer.Option(metavar="TIME", help="Remove every rule after it, unless `ringfence confirm` is given."),
    ] = "",
) -> None:
    """Guard the PBX until stopped. Bans stay in place when it ends."""
    seconds = _seconds(trial) if trial else 0.0
    level = logging.DEBUG if verbose else logging.INFO
    # The same process goes on as the daemon, without this command line's libraries (service.py says why).
    # -P: nothing is imported from the folder that it happens to be started in.
    arguments = [
        "-P",
        "-m",
        "ringfence.service",
        str(config),
        str(level),
        *([str(seconds)] if seconds else []),
    ]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is wanted


def reload(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Have the daemon take the configuration anew, or say what is wrong with it."""
    with errors_told():
        answer = ask_daemon(config, "reload", quietly=True)  # what is wrong says the daemon
        if answer["refused"]:
            say("the new configuration is refused, the old one stays in force")
            raise ConfigError(answer["where"], answer["refused"])
    typer.echo("the new configuration is in force")
    for note in answer["notes"]:
        say(note)


def restore(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Put rules and bans back into the kernel and end: for boot, before the network is up."""
    with errors_told():
        settings = settings_from(config)
        from ringfence import log  # noqa: PLC0415 - loaded when the command runs
        from ringfence.boot import put_back  # noqa: PLC0415 - loaded when the command runs

        log.configure(logging.WARNING)
        typer.echo(put_back(settings))


def confirm(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Keep everything in place after `ringfence run --trial`."""
    from ringfence import trial  # noqa: PLC0415 - loaded when the command runs
    from ringfence.store import Store  # noqa: PLC0415 - loaded when the command runs

    with errors_told():
        settings = settings_from(config)
        try:
            there = ask(settings, "confirm")
        except DaemonUnreachableError:
            with Store.open(settings.store.path, owner=False) as store:
                there = trial.confirm(store)
    typer.echo("confirmed: everything stays in place" if there else "there is no trial: nothing to confirm")


def _seconds(trial: str) -> float:
    from ringfence.values import parse_duration  # noqa: PLC0415 - loaded when the command runs

    try:
        return parse_duration(trial)
    except ValueError as error:
        raise typer.BadParameter(f"--trial {error}") from None
