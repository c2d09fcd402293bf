"""``ringfence history``: show how many attempts, bans and unbans there were over time."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    duration_from,
    errors_reported,
    settings_from,
)
from ringfence.cli.output import echo, echo_json, echo_stderr
from ringfence.errors import DaemonUnreachableError
from ringfence.report.text import TextForm, has_blocks, history_lines

RECORDED_ONLY = "The daemon is not running: this is what it has recorded."


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line ``app``."""
    app.command()(history)


def history(
    config: ConfigOption = DEFAULT_CONFIG,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far to look back, such as 6h, 7d or 52w.")
    ] = "24h",
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show attempts and bans over time, up to a year back."""
    output.choose(local=local)
    seconds = duration_from("--since", since)
    with errors_reported():
        found = _found(config, seconds)
    if as_json:
        echo_json(found)
    else:
        echo(*history_lines(found, text_form()))


def _found(path: Path, seconds: float) -> Mapping[str, Any]:
    """Return the history from the daemon, or from the database if the daemon does not run.

    Raise DaemonUnreachableError if there is no database either.
    """
    from ringfence.daemon.timeline import read_history  # noqa: PLC0415 - slow to load
    from ringfence.store.database import Store  # noqa: PLC0415 - slow to load

    try:
        found: Mapping[str, Any] = ask_daemon(path, "history", seconds=seconds)
    except DaemonUnreachableError:
        database = settings_from(path).store.path
        if not database.exists():
            raise
        with Store.open(database, owner=False) as store:
            found = read_history(store.timeline, seconds, time.time())
        echo_stderr(RECORDED_ONLY)
    return found


def text_form(width: int = 80) -> TextForm:
    """Return how a report is written to standard output, with lines of ``width`` columns.

    Charts use block characters if the encoding of standard output has them. Times are in UTC or local, as the
    user chose.
    """
    return TextForm(has_blocks(sys.stdout.encoding), width, output.zone(), output.short_time)
