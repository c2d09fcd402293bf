"""``ringfence confirm``: keep rules and bans after a trial."""

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_daemon, settings_from
from ringfence.cli.output import echo, errors_reported
from ringfence.errors import DaemonUnreachableError, Exit
from ringfence.features.trial import guard
from ringfence.store.database import Store


def confirm(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Keep rules and bans after the trial of `ringfence run --trial`."""
    with errors_reported():
        try:
            pending = ask_daemon(config, "confirm")
        except DaemonUnreachableError:
            with Store.open(settings_from(config).store.path, owner=False) as store:
                pending = guard.confirm(store.state)
    echo("confirmed: rules and bans stay in place" if pending else "no trial is running: nothing to confirm")
    if not pending:
        raise typer.Exit(Exit.PROBLEM)
