"""``ringfence friends``: list the friends of this PBX, and copy them to a second server.

If no daemon runs, the list and the export come from its database. Import and forget need a daemon.
"""

import os
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask_daemon,
    ask_or_read,
    networks_from,
    open_input,
)
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.private_file import write_private
from ringfence.cli.screen import Screen, show_list
from ringfence.errors import Exit, ListError
from ringfence.friends.exchange import as_json, lines_of, parse_document
from ringfence.plurals import counted
from ringfence.values.network import format_network, is_single

_FROM_DATABASE = "The daemon does not answer: this list comes from its database."
_BATCH = 200  # friends in one request, some 50 kB
_MAX_FAULTS = 20
_SHOWN_ACCOUNTS = 3
Rows = list[dict[str, Any]]
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="File to write; - is standard output.")]

friends = typer.Typer(cls=HintingGroup, invoke_without_command=True, add_completion=False)


@friends.callback()
def friends_list(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the known phones and trunks of this PBX. Do nothing if a subcommand was given."""
    if context.invoked_subcommand is not None:
        return
    output.choose(local=local)
    with errors_reported():
        rows, absent = ask_or_read(config, "friends")
        grouped = _grouped(rows)
        if as_json:
            echo_json(grouped)
        else:
            _print(grouped)
        if absent:
            echo_stderr(_FROM_DATABASE)


@friends.command("export")
def friends_export(file: FileArgument = "-", config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Export the friends, except imported ones, for `friends import` on another server."""
    with errors_reported():
        rows, absent = ask_or_read(config, "friends")
        lines = lines_of(rows)
        if file == "-":
            echo(*lines)
        else:
            _write(Path(file), "\n".join(lines) + "\n")
        if absent:
            echo_stderr(_FROM_DATABASE)


@friends.command("import")
def friends_import(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File from `friends export`; - is standard input.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Import what `friends export` wrote on another server: all of it, or nothing if a line is invalid."""
    with errors_reported():
        with open_input(file) as source:
            found = parse_document(source, time.time())
        if found.faults:
            echo_stderr(*(f"{file}: {fault}" for fault in found.faults[:_MAX_FAULTS]))
            if len(found.faults) > _MAX_FAULTS:
                echo_stderr(f"and {counted(len(found.faults) - _MAX_FAULTS, 'more fault')}")
            echo_stderr("nothing was imported")
            raise typer.Exit(Exit.PROBLEM)
        imported = _send(config, [as_json(friend) for friend in found.friends])
        expired = f", {counted(found.expired, 'expired one')} left out" if found.expired else ""
        addresses = counted(len({friend.address for friend in found.friends}), "address", "addresses")
        echo(f"imported: {addresses} by {counted(imported, 'reason')}{expired}")


@friends.command("forget")
def friends_forget(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Address, as `friends` lists it.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Forget a friend until it is seen again; a registered phone is seen within a minute."""
    [network] = networks_from([address])
    if not is_single(network):
        raise typer.BadParameter(f"not an address: {address!r}")
    text = format_network(network)
    with errors_reported():
        if not ask_daemon(config, "friends_forget", address=text):
            echo_stderr(f"{text} is not a friend")
            raise typer.Exit(Exit.PROBLEM)
        echo(f"forgotten: {text}")


def _send(path: Path, rows: Sequence[dict[str, str]]) -> int:
    """Send friends to the daemon in several requests; return the number of imported rows.

    Each row has one reason why an address is a friend. The daemon imports all rows when the last request has
    arrived.
    """
    transfer = f"{os.getpid()}-{time.time_ns()}"
    rest, before = iter(rows), 0
    batch = list(islice(rest, _BATCH))
    while True:
        following = list(islice(rest, _BATCH))
        more = bool(following)
        imported = ask_daemon(
            path,
            "friends_import",
            quietly=before > 0,  # the first request has printed the mistakes of the configuration
            friends=batch,
            transfer=transfer,
            before=before,
            more=more,
        )
        if not more:
            return int(imported)
        before, batch = before + len(batch), following


def _write(file: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step. Raise ListError."""
    try:
        write_private(file, text)
    except OSError as error:
        raise ListError(f"cannot write {file}: {error.strerror}") from None


def _grouped(rows: Rows) -> Rows:
    """Return one row for each address, with all reasons why it is a friend; the one seen last comes first."""
    by_address: dict[str, Rows] = {}
    for row in rows:
        by_address.setdefault(row["address"], []).append(row)
    found = [
        {
            "address": address,
            "accounts": sorted({row["account"] for row in reasons}),
            "reasons": sorted({row["reason"] for row in reasons}),
            "since": min(row["since"] for row in reasons),
            "seen": max(row["seen"] for row in reasons),
            "until": max(row["until"] for row in reasons),
            "details": reasons,
        }
        for address, reasons in by_address.items()
    ]
    return sorted(found, key=lambda row: str(row["seen"]), reverse=True)


def _accounts(accounts: list[str]) -> str:
    more = f" and {len(accounts) - _SHOWN_ACCOUNTS}" if len(accounts) > _SHOWN_ACCOUNTS else ""
    return ", ".join(accounts[:_SHOWN_ACCOUNTS]) + more


def _print(rows: Rows) -> None:
    since, screen = output.head("SINCE"), Screen()
    columns = {
        "ADDRESS": [row["address"] for row in rows],
        "ACCOUNTS": [_accounts(row["accounts"]) for row in rows],
        "BECAUSE": [", ".join(row["reasons"]) for row in rows],
        since: [short_time(row["since"]) for row in rows],
        "SEEN": [short_time(row["seen"]) for row in rows],
        "UNTIL": [short_time(row["until"]) for row in rows],
    }
    show_list(columns, (since, "SEEN"), screen, wrapped=("ADDRESS", "ACCOUNTS", "BECAUSE"))
    if not rows:
        screen.show(
            "There are no friends. The addresses of phones and trunks become friends as they register."
        )
        screen.show("To see whether it can: ringfence check")
