"""The option ``--hardening`` of ``ringfence check``."""

from typing import Annotated

import typer

HARDENING = "hardening"


def check(
    hardening: Annotated[
        bool, typer.Option("--hardening", help="Also check Asterisk's own settings for weaknesses.")
    ] = False,
) -> str:
    """Return ``HARDENING``, which makes ``check`` report weaknesses too; "" without the option."""
    return HARDENING if hardening else ""
