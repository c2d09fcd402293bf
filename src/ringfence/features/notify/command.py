"""``ringfence notify``: test the channels; and the service that runs their programs."""

from typing import Annotated, Any

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask, settings_or_defaults
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import echo, errors_reported
from ringfence.errors import Exit
from ringfence.features.notify.runner import main
from ringfence.features.notify.settings import NotifySettings

notify = typer.Typer(cls=HintingGroup, no_args_is_help=True, add_completion=False)

_MARGIN = 15.0
"""Seconds that the command waits for the daemon's answer, in addition to the longest timeout of a channel."""


@notify.command("test")
def send_test(
    channel: Annotated[
        str | None, typer.Argument(metavar="CHANNEL", help="The name of a channel; default: all.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a test message by the daemon, and print the answer of each channel."""
    settings = settings_or_defaults(config)
    patience = _MARGIN + max((one.timeout for one in settings.of(NotifySettings).channels), default=0.0)
    with errors_reported():
        results: list[dict[str, Any]] = ask(settings, "notify_test", patience=patience, channel=channel)
    for result in results:
        echo(f"{'ok' if result['ok'] else 'failed'}  {result['channel']}: {result['text']}")
    if not all(result["ok"] for result in results):
        raise typer.Exit(Exit.PROBLEM)


@notify.command("run")
def run_program() -> None:
    """Run a channel's program for the daemon, which is connected to standard input (for systemd)."""
    main()
