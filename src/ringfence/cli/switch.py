"""``ringfence off`` and ``on``: everything of ours out of the kernel at once, and back."""

from typing import TYPE_CHECKING

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask,
    errors_told,
    say,
    settings_all_the_same,
    settings_from,
)
from ringfence.errors import DaemonUnreachableError, StoreError
from ringfence.exits import Exit

if TYPE_CHECKING:
    from ringfence.config import Settings


PATIENCE = 5.0
"""Seconds: whoever says off is in a hurry, and what hangs is done without."""


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(off)
    app.command()(on)


def off(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove every rule and set of ringfence's, daemon up or down. It stays off until `ringfence on`."""
    settings = settings_all_the_same(config)
    with errors_told():
        try:
            ask(settings, "off", patience=PATIENCE)
        except DaemonUnreachableError:
            _off_without_daemon(settings)
        else:
            _take_leftovers(settings)
    typer.echo("ringfence is off: nobody is banned. Bans that have time left come back with: ringfence on")


def on(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Enforce again, after `ringfence off`."""
    with errors_told():
        settings = settings_from(config)
        try:
            ask(settings, "on")
        except DaemonUnreachableError as error:
            _remember(settings, switched_off=False)
            say(f"ringfence is switched on, but {error}")
            raise typer.Exit(Exit.UNREACHABLE) from None
    typer.echo("ringfence is on.")


def _take_leftovers(settings: "Settings") -> None:
    """Take away what the daemon may not: with one capability it leaves what somebody as root did by ipset."""
    from ringfence.firewall.leftovers import flush_the_other  # noqa: PLC0415 - loaded when the command runs

    backend: str = ask(settings, "status")["firewall"]["backend"]
    if backend != "memory":  # a dry run has nothing to do with what may be in the kernel
        flush_the_other(backend)


def _off_without_daemon(settings: "Settings") -> None:
    """Remember it first: a daemon that lives and cannot be asked would heal what is taken away."""
    from ringfence.firewall.leftovers import flush_everything  # noqa: PLC0415 - loaded when the command runs

    failed: StoreError | None = None
    try:
        _remember(settings, switched_off=True)
    except StoreError as error:
        failed = error
    flush_everything()
    if failed is not None:
        say(f"everything is removed, but that it is to stay so cannot be remembered: {failed}")
        raise typer.Exit(Exit.PROBLEM)
    say("the daemon does not answer: removed from the kernel directly")


def _remember(settings: "Settings", *, switched_off: bool) -> None:
    from ringfence.store import Store  # noqa: PLC0415 - loaded when the command runs

    with Store.open(settings.store.path, owner=False) as store:
        store.switched_off = switched_off
