"""Entry point of ``ringfence`` and ``python -m ringfence``.

A plain ``ringfence run``, as in the unit, starts without the libraries of the command line: this saves 0.2 s
until READY. With any option besides the configuration, the command line parses the arguments.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from ringfence import DEFAULT_CONFIG, SERVICE

_INFO = "20"


def main() -> None:
    """Run the command line."""
    config = plain_run(sys.argv[1:], os.environ)
    if config is not None:
        daemon = [sys.executable, *SERVICE, config, _INFO]
        os.execv(sys.executable, daemon)  # noqa: S606 - no shell is wanted
    from ringfence.cli.app import main as commands  # noqa: PLC0415 - loaded when needed

    commands()


def plain_run(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return the configuration file if the arguments are those of a plain ``run``, else None."""
    match arguments:
        case ["run"]:
            return environ.get("RINGFENCE_CONFIG") or DEFAULT_CONFIG
        case ["run", "--config" | "-c", config] if config:
            return config
    return None
