"""The way in: ``ringfence`` and ``python -m ringfence``.

``ringfence run`` as the unit starts it does without the command line's libraries: 0.2 s less until READY.
With any other option than the configuration they read it.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from ringfence import DEFAULT_CONFIG

_INFO = "20"


def main() -> None:
    """Run the command line."""
    config = plain_run(sys.argv[1:], os.environ)
    if config is not None:
        ourselves = [sys.executable, "-P", "-m", "ringfence.service", config, _INFO]
        os.execv(sys.executable, ourselves)  # noqa: S606 - no shell is wanted
    from ringfence.cli import main as commands  # noqa: PLC0415 - loaded where it is needed

    commands()


def plain_run(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Give the configuration where the words are those of a plain ``run``, else None."""
    match arguments:
        case ["run"]:
            return environ.get("RINGFENCE_CONFIG") or DEFAULT_CONFIG
        case ["run", "--config" | "-c", config] if config:
            return config
    return None
