"""``ringfence off`` and ``on``: remove all rules and sets of ringfence from the kernel, and restore them."""

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    answer_without_daemon,
    ask,
    ask_or_read,
    settings_or_defaults,
)
from ringfence.cli.output import echo, echo_stderr, errors_reported, note_unrecorded
from ringfence.config.schema import Settings
from ringfence.errors import DaemonUnreachableError, Exit
from ringfence.firewall.cleanup import flush_other_backends

PATIENCE = 5.0
"""Seconds that ``off`` waits for the daemon. It is short, because ``off`` is urgent and needs no daemon."""


def off(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove every rule and set of ringfence, with the daemon up or down, until `ringfence on`."""
    settings = settings_or_defaults(config)
    with errors_reported():
        try:
            ask(settings, "off", patience=PATIENCE)
        except DaemonUnreachableError:
            _off_without_daemon(settings)
        else:
            _remove_leftovers(settings)
    echo(
        "ringfence is off: no address is banned. To restore bans that have time left: ringfence on", indent=2
    )


def on(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Enforce again, after `ringfence off`."""
    with errors_reported():
        failed, absent = ask_or_read(config, "on")
        if absent and failed:
            note_unrecorded(failed)
        if absent:
            echo_stderr(f"ringfence is switched on, but {absent}")
            raise typer.Exit(Exit.UNREACHABLE)
    echo("ringfence is on.")


def _remove_leftovers(settings: Settings) -> None:
    """Remove the rules of all firewall backends that the daemon does not use.

    Such rules may be left in the kernel after the configured backend was changed. This command removes them
    itself, because the daemon may lack the rights that another backend needs.
    """
    backend: str = ask(settings, "status")["firewall"]["backend"]
    if backend != "memory":  # "memory" is a dry run: it must not change the kernel
        flush_other_backends(backend)


def _off_without_daemon(settings: Settings) -> None:
    failed, undone = answer_without_daemon(settings, "off")
    if undone:
        echo_stderr(f"all rules are removed, but this cannot be recorded, so they may come back: {failed}")
        raise typer.Exit(Exit.NOT_RECORDED)
    if failed:
        note_unrecorded(failed)
    echo_stderr("the daemon does not answer: removed from the kernel directly")
