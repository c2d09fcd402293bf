"""Entry point of ``ringfence`` and ``python -m ringfence``.

``ringfence run`` as the systemd unit calls it starts the daemon without loading the libraries of the command
line. So the daemon is ready 0.2 s earlier. If ``run`` has any option except ``--config``, the command line
parses the arguments.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from ringfence import CONFIG_VARIABLE, DEFAULT_CONFIG, SERVICE

_INFO = "20"


def main() -> None:
    """Run the command. For a plain ``ringfence run``, the daemon replaces this program in its process."""
    config = plain_run(sys.argv[1:], os.environ)
    if config is not None:
        daemon = [sys.executable, *SERVICE, config, _INFO]
        os.execv(sys.executable, daemon)  # noqa: S606 - no shell is wanted
    from ringfence.cli.app import main as commands  # noqa: PLC0415 - loaded when needed

    commands()


def plain_run(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return the configuration file if the command is ``run`` with no option except ``--config``.

    Otherwise return None.
    """
    match arguments:
        case ["run"]:
            return environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
        case ["run", "--config" | "-c", config] if config:
            return config
    return None
