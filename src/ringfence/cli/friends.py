"""``ringfence friends``: list the friends of this PBX, and copy them to a second server.

If no daemon runs, the list and the export come from its database. Import and forget need a daemon.
"""

import os
import time
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_daemon, ask_or_read, counted, open_input
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.screen import Screen, add_row, fitting, plain_table
from ringfence.errors import Exit, ListError
from ringfence.friends.exchange import as_json, lines_of, parse_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table


_BATCH = 2_000  # friends in one request, about half a megabyte
_MAX_FAULTS = 20
_SHOWN_ACCOUNTS = 3
_PLAIN_FROM = 2_000  # rows; longer lists are printed without a table, because rich needs a second for it
_TIMES = ((0, 1, 2), (1, 2), (2,))
"""Choices of time columns: 0 is SINCE, 1 is SEEN, 2 is UNTIL. The first choice that fits is used."""

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
        rows, note = _rows(config)
        grouped = _grouped(rows)
        if as_json:
            echo_json(grouped)
        else:
            _print(grouped)
        if note:
            echo_stderr(note)


@friends.command("export")
def friends_export(file: FileArgument = "-", config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Export the friends, except imported ones, for `friends import` on another server."""
    with errors_reported():
        rows, note = _rows(config)
        lines = lines_of(rows)
        if file == "-":
            echo(*lines)
        else:
            _write(Path(file), "\n".join(lines) + "\n")
        if note:
            echo_stderr(note)


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
                echo_stderr(f"and {len(found.faults) - _MAX_FAULTS} more faults")
            echo_stderr("nothing was imported")
            raise typer.Exit(Exit.PROBLEM)
        imported = _send(config, [as_json(friend) for friend in found.friends])
        expired = f", {found.expired} expired ones left out" if found.expired else ""
        addresses = counted(len({friend.address for friend in found.friends}), "address", "addresses")
        echo(f"imported: {addresses} by {counted(imported, 'reason')}{expired}")


@friends.command("forget")
def friends_forget(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Address, as `friends` lists it.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Forget a friend until it is seen again; a registered phone is seen within a minute."""
    try:
        text = str(ip_address(address))
    except ValueError as error:
        raise typer.BadParameter(f"not an address: {error}") from None
    with errors_reported():
        if not ask_daemon(config, "friends_forget", address=text):
            echo_stderr(f"{text} is not a friend")
            raise typer.Exit(Exit.PROBLEM)
        echo(f"forgotten: {text}")


def _rows(path: Path) -> tuple[Rows, str]:
    """Return a row for each reason why an address is a friend, and a note for the user.

    Without a daemon, the rows come from its database, and the note says so. Otherwise the note is "".
    """
    rows, live = ask_or_read(path, "friends")
    return rows, "" if live else "The daemon is not running: this list comes from its database."


def _send(path: Path, rows: "Sequence[dict[str, str]]") -> int:
    """Send friends to the daemon in several requests; return the number of imported rows.

    Each row has one reason why an address is a friend. The daemon imports all rows when the last request has
    arrived.
    """
    transfer = f"{os.getpid()}-{time.time_ns()}"
    rest = iter(rows)
    batch = list(islice(rest, _BATCH))
    while True:
        following = list(islice(rest, _BATCH))
        more = bool(following)
        imported = ask_daemon(path, "friends_import", friends=batch, transfer=transfer, more=more)
        if not more:
            return int(imported)
        batch = following


def _write(file: Path, text: str) -> None:
    """Replace a file atomically: other processes read either its old or its whole new contents."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with fresh.open("x", encoding="utf-8") as output:  # with "x" an existing link is not followed
            output.write(text)
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
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


def _cells(row: dict[str, Any]) -> list[str]:
    accounts = row["accounts"]
    more = f" and {len(accounts) - _SHOWN_ACCOUNTS}" if len(accounts) > _SHOWN_ACCOUNTS else ""
    shown = ", ".join(accounts[:_SHOWN_ACCOUNTS]) + more
    return [row["address"], shown, ", ".join(row["reasons"])]


def _times(row: dict[str, Any]) -> list[str]:
    return [short_time(row[key]) for key in ("since", "seen", "until")]


def _table(rows: Rows, shown: tuple[int, ...]) -> "Table":
    table = plain_table()
    for name in ("ADDRESS", "ACCOUNTS", "BECAUSE"):
        table.add_column(name, overflow="fold")
    for name in ((output.head("SINCE"), "SEEN", "UNTIL")[at] for at in shown):
        table.add_column(name, no_wrap=True)
    for row in rows:
        moments = _times(row)
        add_row(table, [*_cells(row), *(moments[at] for at in shown)])
    table.caption = None if rows else "There are no friends."
    return table


def _print(rows: Rows) -> None:
    if len(rows) >= _PLAIN_FROM:
        echo("ADDRESS  ACCOUNTS  BECAUSE  SINCE  SEEN  UNTIL")
        for row in rows:
            echo("  ".join((*_cells(row), *_times(row))))
        return
    screen = Screen()
    screen.print(fitting((_table(rows, shown) for shown in _TIMES), screen))
