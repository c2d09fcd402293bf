"""The option ``--trial`` of ``ringfence run``."""

from collections.abc import Iterator
from typing import Annotated

import typer

from ringfence.cli.common import duration_from


def run(
    trial: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Remove every rule after TIME, such as 15m, unless `ringfence confirm` is run.",
        ),
    ] = "",
) -> Iterator[str]:
    """Yield the argument by which the daemon begins a trial of the length ``trial``; nothing if it is ""."""
    if trial:
        yield f"trial={duration_from('--trial', trial)}"
