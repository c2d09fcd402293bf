"""``ringfence account``: show where an account logs in, and confirm that its owner was there."""

from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_daemon, ask_or_read
from ringfence.cli.output import RECORDED_ONLY, JsonOption, echo, echo_json, echo_stderr, errors_reported
from ringfence.cli.screen import Screen, show_list
from ringfence.features.account.rows import columns
from ringfence.plurals import counted
from ringfence.values.text import printable

_CONFIRM = "confirm"


def account(
    name: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The name of an account, such as 204.")],
    action: Annotated[
        str,
        typer.Argument(metavar="[confirm]", help="With `confirm`: its owner was at all these places."),
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show where an account logs in, and confirm these places."""
    output.choose(local=local)
    if action not in ("", _CONFIRM):
        raise typer.BadParameter(f"after the account, only {_CONFIRM} may follow, not {action!r}")
    with errors_reported():
        if action:
            confirmed = ask_daemon(config, "account_confirm", account=name)
            if as_json:
                echo_json(confirmed)
            else:
                echo(f"confirmed: {counted(len(confirmed), 'place')} of {printable(name)}")
            return
        found, absent = ask_or_read(config, "account", account=name)
        if as_json:
            echo_json(found)
        else:
            _print(found)
        if absent:
            echo_stderr(RECORDED_ONLY)


def _print(found: dict[str, Any]) -> None:
    screen = Screen()
    if not found["places"]:
        screen.show(f"ringfence knows no login of {found['account']}")
        return
    if found["learns_until"] is not None:
        until = output.short_time(found["learns_until"])
        screen.show(f"Its places are only learned until {until}: none is an alarm.")
        screen.show()
    show_list(columns(found["places"]), ("SINCE", "DAYS", "LAST ADDRESS"), screen, right=["DAYS", "LOGINS"])
