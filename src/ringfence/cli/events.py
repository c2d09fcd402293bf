"""``ringfence events``: show events, attempts, bans and alarms, one line each, also as they happen."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence import control
from ringfence.cli import output
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, alarm_text, ask_daemon, settings_or_defaults
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.control import LINE_KINDS
from ringfence.plurals import counted

Row = dict[str, Any]

_TEXT = 30  # columns before the text of a line, on a terminal also before its continuation lines


def events(
    config: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until Ctrl-C.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="KIND", help="Only event, attempt, ban or alarm; may be repeated."),
    ] = None,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the latest attempts, bans and alarms, one line each."""
    output.choose(local=local)
    if set(only or ()) - set(LINE_KINDS):
        raise typer.BadParameter(f"--only takes {', '.join(LINE_KINDS)}")
    kinds = sorted(set(only or LINE_KINDS))
    if kinds == ["event"] and not follow:
        raise typer.BadParameter("events are not kept: add --follow")
    with errors_reported():
        if follow:
            _follow(config, kinds, as_json=as_json)
            return
        rows = ask_daemon(config, "latest", kinds=kinds)
    for row in rows:
        _show(row, as_json=as_json)
    if not rows and not as_json:
        echo("Nothing happened since the start. To wait for events: ringfence events --follow")


def _follow(path: Path, kinds: list[str], *, as_json: bool) -> None:
    """Show the daemon's latest attempts, bans and alarms, and then each new one as it happens, until Ctrl-C.

    ``kinds`` are the wanted kinds of rows, some of LINE_KINDS. The daemon keeps no rows of the kind "event",
    so only new ones are shown. Raise DaemonUnreachableError when the daemon ends.
    """
    try:
        for row in control.follow(settings_or_defaults(path).control.socket, "follow", kinds=kinds):
            _show(row, as_json=as_json)
    except KeyboardInterrupt:
        return


def _show(row: Row, *, as_json: bool) -> None:
    if as_json:
        echo_json(row, indent=None)
    elif row["what"] == "lost":
        echo_stderr(f"{counted(row['number'], 'line')} missing, because this command reads too slowly")
    else:
        echo(line_of(row), indent=_TEXT)


def line_of(row: Row) -> str:
    """Return the line that shows an event, attempt, ban or alarm to people."""
    texts = {"event": _event, "attempt": _attempt, "ban": _ban, "alarm": _alarm}
    return f"{short_time(row['time'], seconds=True)}  {row['what']:7}  {texts[row['what']](row)}"


def _event(row: Row) -> str:
    account = f" {row['account']}" if row["account"] else ""
    tampered = ", tampered" if row["tampered"] else ""
    by = f"{row['service']} {row['transport']}, {row['source']}"
    return f"{row['address']}{account}: {row['kind']} ({by}{tampered})"


def _attempt(row: Row) -> str:
    account = f" {row['account']}" if row["account"] else ""
    by = f"{row['service']} {row['transport']}, {row['proof']}"
    return f"{row['address']}{account}: {row['reason']} ({by}, {row['standing']})"


def _ban(row: Row) -> str:
    scope = "" if row["scope"] == "full" else f" ({row['scope']})"
    if row["change"] != "placed":
        return f"{row['address']}{scope}: ended, {row['why_ended']}"
    account = f", {row['account']}" if row["account"] else ""
    return f"{row['address']}{scope}: {row['rule']}{account}, until {short_time(row['expires'])}"


def _alarm(row: Row) -> str:
    by = f" by {row['by']}" if row["by"] else ""
    return f"{row['change']}{by}: {alarm_text(row)}"
