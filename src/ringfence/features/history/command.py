"""``ringfence history``: show how many attempts, bans and unbans there were over time."""

from typing import Annotated

import typer

from ringfence.cli import output
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_or_read, duration_from
from ringfence.cli.output import (
    RECORDED_ONLY,
    JsonOption,
    echo,
    echo_json,
    echo_stderr,
    errors_reported,
    text_form,
)
from ringfence.features.history.text import history_lines


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
        found, absent = ask_or_read(config, "history", seconds=seconds)
    if as_json:
        echo_json(found)
    else:
        echo(*history_lines(found, text_form()))
    if absent:
        echo_stderr(RECORDED_ONLY)
