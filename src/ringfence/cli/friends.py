"""``ringfence friends``: who belongs to this PBX and why; and how a second server comes to know it.

With the daemon down its database is read. To import and to forget takes the daemon.
"""

import json
import os
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    counted,
    errors_told,
    opened,
    say,
    settings_from,
)
from ringfence.errors import DaemonUnreachableError, ListError
from ringfence.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

_AT_ONCE = 2_000  # friends to a request, half a megabyte
_MOST_FAULTS = 20
_SHOWN_ACCOUNTS = 3
_PLAIN_FROM = 2_000  # rows: rich takes a second for so many
_ANY_WIDTH = 10_000

Rows = list[dict[str, Any]]
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="Where; - is standard output.")]

friends = typer.Typer(invoke_without_command=True, add_completion=False)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.add_typer(
        friends,
        name="friends",
        help="List who belongs to this PBX, and why; hand it to a second server.",
    )


@friends.callback()
def friends_list(
    context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """List who belongs to this PBX, and why; hand it to a second server."""
    if context.invoked_subcommand is not None:
        return
    with errors_told():
        rows, note = _rows(config)
        grouped = _grouped(rows)
        if as_json:
            typer.echo(json.dumps(grouped, indent=2))
        else:
            _print(grouped)
        if note:
            say(note)


@friends.command("export")
def friends_export(file: FileArgument = "-", config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Write every friend down, but those that were imported, for `friends import` of another server."""
    from ringfence.friends.document import lines_of  # noqa: PLC0415 - loaded when the command runs

    with errors_told():
        rows, note = _rows(config)
        text = "\n".join(lines_of(rows)) + "\n"
        if file == "-":
            sys.stdout.write(text)
        else:
            _write(Path(file), text)
        if note:
            say(note)


@friends.command("import")
def friends_import(
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export; - is standard input.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Take what `friends export` of another server wrote: all of it, or nothing where it has a fault."""
    from ringfence.friends.document import as_json, read  # noqa: PLC0415 - loaded when the command runs

    with errors_told():
        with opened(file) as source:
            found = read(source, time.time())
        if found.faults:
            for fault in found.faults[:_MOST_FAULTS]:
                say(f"{file}: {fault}")
            if len(found.faults) > _MOST_FAULTS:
                say(f"and {len(found.faults) - _MOST_FAULTS} faults more")
            say("nothing was imported")
            raise typer.Exit(Exit.PROBLEM)
        taken = _send(config, [as_json(friend) for friend in found.friends])
        over = f", {found.over} are over and left out" if found.over else ""
        addresses = counted(len({friend.address for friend in found.friends}), "address", "addresses")
        typer.echo(f"imported: {addresses} by {counted(taken, 'reason')}{over}")


@friends.command("forget")
def friends_forget(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="An address, as it is listed.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let an address be no friend, until its next sign; what is registered shows itself each minute."""
    from ipaddress import ip_address  # noqa: PLC0415 - loaded when the command runs

    try:
        text = str(ip_address(address))
    except ValueError as error:
        raise typer.BadParameter(f"not an address: {error}") from None
    with errors_told():
        if not ask_daemon(config, "friends_forget", address=text):
            say(f"{text} is no friend")
            raise typer.Exit(Exit.PROBLEM)
        typer.echo(f"forgotten: {text}")


def _rows(path: Path) -> tuple[Rows, str]:
    """Give every reason, and what is to be said of where it comes from."""
    try:
        return cast("Rows", ask_daemon(path, "friends")), ""
    except DaemonUnreachableError:
        return _rows_of_the_database(path), "The daemon is not running: this is read from its database."


def _rows_of_the_database(path: Path) -> Rows:
    from ringfence.detect.friends import MOST  # noqa: PLC0415 - loaded when the command runs
    from ringfence.friends.document import as_json  # noqa: PLC0415 - loaded when the command runs
    from ringfence.store import Store  # noqa: PLC0415 - loaded when the command runs

    database = settings_from(path).store.path
    if not database.exists():
        return []
    with Store.open(database, owner=False) as store:
        return [as_json(friend) for friend in store.friends(time.time(), MOST)]


def _send(path: Path, rows: "Sequence[dict[str, str]]") -> int:
    """Give friends to the daemon, in parts that are taken together."""
    transfer = f"{os.getpid()}-{time.time_ns()}"
    rest = iter(rows)
    part = list(islice(rest, _AT_ONCE))
    while True:
        following = list(islice(rest, _AT_ONCE))
        more = bool(following)
        taken = ask_daemon(path, "friends_import", friends=part, transfer=transfer, more=more)
        if not more:
            return int(taken)
        part = following


def _write(file: Path, text: str) -> None:
    """Write a file anew, whole or not at all: whoever fetches it meanwhile gets the one before."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        fresh.write_text(text, "utf-8")
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ListError(f"{file} cannot be written: {error.strerror}") from None


def _grouped(rows: Rows) -> Rows:
    """Give one row an address with all its reasons, those seen last first."""
    by_address: dict[str, Rows] = {}
    for row in rows:
        by_address.setdefault(row["address"], []).append(row)
    found = [
        {
            "address": address,
            "accounts": sorted({row["account"] for row in reasons}),
            "ties": sorted({row["tie"] for row in reasons}),
            "since": min(row["since"] for row in reasons),
            "seen": max(row["seen"] for row in reasons),
            "until": max(row["until"] for row in reasons),
            "reasons": reasons,
        }
        for address, reasons in by_address.items()
    ]
    return sorted(found, key=lambda row: str(row["seen"]), reverse=True)


def _cells(row: dict[str, Any]) -> list[str]:
    from ringfence.model import printable  # noqa: PLC0415 - loaded when the command runs

    accounts = [printable(account) for account in row["accounts"]]
    more = f" and {len(accounts) - _SHOWN_ACCOUNTS}" if len(accounts) > _SHOWN_ACCOUNTS else ""
    shown = ", ".join(accounts[:_SHOWN_ACCOUNTS]) + more
    return [row["address"], shown, ", ".join(row["ties"])]


def _times(row: dict[str, Any]) -> list[str]:
    return [row[key].replace("T", " ").removesuffix("Z")[:16] for key in ("since", "seen", "until")]


def _table(rows: Rows, times: tuple[int, ...] = (0, 1, 2)) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ADDRESS", "ACCOUNTS", "BECAUSE"):
        table.add_column(name, overflow="fold")
    for name in (("SINCE (UTC)", "SEEN", "UNTIL")[at] for at in times):
        table.add_column(name, no_wrap=True)
    for row in rows:
        moments = _times(row)
        table.add_row(*map(Text, _cells(row)), *(moments[at] for at in times))
    table.caption = None if rows else "Nobody is a friend."
    return table


def _fitting(rows: Rows, console: "Console") -> "Table":
    """Give the table, with as many of the times as the lines have room for."""
    for times in ((0, 1, 2), (1, 2)):
        table = _table(rows, times)
        wanted = console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum
        if wanted <= console.width:
            return table
    return _table(rows, (2,))


def _print(rows: Rows) -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded when the command runs

    if len(rows) >= _PLAIN_FROM:
        typer.echo("ADDRESS  ACCOUNTS  BECAUSE  SINCE  SEEN  UNTIL")
        for row in rows:
            sys.stdout.write("  ".join((*_cells(row), *_times(row))) + "\n")
        return
    console = Console()
    console.print(_fitting(rows, console))
