"""``ringfence bans``, ``ban`` and ``unban``: who is out, and by hand."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    errors_told,
    networks_from,
    say,
    settings_from,
    span,
)
from ringfence.errors import DaemonUnreachableError, StoreError
from ringfence.exits import Exit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ringfence.model import Ban, Network

REFRESH = 1.0  # seconds
_ANY_WIDTH = 1_000  # columns

Rows = list[dict[str, Any]]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(bans)
    app.command()(ban)
    app.command()(unban)


def bans(
    config: ConfigOption = DEFAULT_CONFIG,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the list live, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List who is banned, as the kernel has it, daemon up or down."""
    if watch and as_json:
        raise typer.BadParameter("--watch is for people, --json for scripts: choose one")
    with errors_told():
        if watch:
            _watch(config)
            return
        rows, note = _rows(config)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        else:
            _print(rows)
        if note:
            say(f"The daemon is not running{note}.")


def ban(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS...", help="Addresses or networks.")],
    config: ConfigOption = DEFAULT_CONFIG,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 2h or 7d.")] = "1h",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever reads the list.")] = "",
) -> None:
    """Ban addresses or networks by hand."""
    from ringfence.values import parse_duration  # noqa: PLC0415 - loaded when the command runs

    networks = [str(network) for network in networks_from(addresses)]
    try:
        seconds = parse_duration(length)
    except ValueError as error:
        raise typer.BadParameter(f"--for {error}") from None
    with errors_told():
        _told(ask_daemon(config, "ban", networks=networks, seconds=seconds, reason=reason))
    typer.echo(f"banned for {span(seconds)}: " + ", ".join(addresses))


def unban(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="ADDRESS...", help="Who may come back.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    everybody: Annotated[bool, typer.Option("--all", help="Lift every ban.")] = False,
) -> None:
    """Lift bans: of addresses or networks, or of everybody."""
    if everybody == bool(addresses):
        raise typer.BadParameter("name addresses, or --all")
    with errors_told():
        if everybody:
            number = ask_daemon(config, "unban", all=True)
            typer.echo(f"{number} bans lifted")
            return
        networks = [str(network) for network in networks_from(addresses or [])]
        _told(ask_daemon(config, "unban", networks=networks))
    typer.echo("unbanned: " + ", ".join(addresses or []))


def _told(problems: Sequence[str]) -> None:
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(Exit.PROBLEM)


def _rows(path: Path) -> tuple[Rows, str]:
    """Give the rows, and what is to be said of them where there is no daemon."""
    try:
        return ask_daemon(path, "bans"), ""
    except DaemonUnreachableError:
        return _rows_without_daemon(path)


def _rows_without_daemon(path: Path) -> tuple[Rows, str]:
    from ringfence.enforce import listed  # noqa: PLC0415 - loaded when the command runs
    from ringfence.firewall import make_backend  # noqa: PLC0415 - loaded when the command runs
    from ringfence.report import bans_report  # noqa: PLC0415 - loaded when the command runs

    settings = settings_from(path)
    backend = make_backend(settings.firewall.backend)
    try:
        elements = list(backend.list())
    finally:
        backend.close()
    if not backend.enforces:
        return [], f", and the {backend.name} firewall has no bans without it"
    now = time.time()
    rows = bans_report(listed(elements, _known(settings.store.path, now), now))
    return rows, ": this is read from the kernel, which keeps dropping"


def _known(database: Path, now: float) -> "Mapping[Network, Ban]":
    """Give what the database knows of the bans: nothing, where it cannot be read."""
    from ringfence.store import Store  # noqa: PLC0415 - loaded when the command runs

    if not database.exists():
        return {}
    try:
        with Store.open(database, owner=False) as store:
            return {ban.network: ban for ban in store.running(now)}
    except StoreError as error:
        say(str(error))
        return {}


def _table(rows: Rows, *, since: bool = True) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ADDRESS", overflow="fold")  # at the worst an address takes two lines, not the table
    table.add_column("RULE", no_wrap=True)
    table.add_column("ATTEMPTS", justify="right", no_wrap=True)
    if since:
        table.add_column("SINCE (UTC)", no_wrap=True)
    table.add_column("LEFT", justify="right", no_wrap=True)
    table.add_column("PACKETS", justify="right", no_wrap=True)
    for row in rows:
        began = [(row["since"] or "?").replace("T", " ").removesuffix("Z")[:16]] if since else []
        table.add_row(
            Text(row["address"]),
            Text(row["rule"] or "?"),
            "?" if row["attempts"] is None else str(row["attempts"]),
            *began,
            "no end" if row["timeout"] is None else span(row["timeout"]),
            str(row["packets"]),
        )
    table.caption = None if rows else "Nobody is banned."
    return table


def _fitting(rows: Rows, console: "Console") -> "Table":
    """Give the table, without a column where the longest addresses would break the lines."""
    table = _table(rows)
    wanted = console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum
    return table if wanted <= console.width else _table(rows, since=False)


def _print(rows: Rows) -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded when the command runs

    console = Console()
    console.print(_fitting(rows, console))


def _watch(path: Path) -> None:
    from rich.console import Console, Group  # noqa: PLC0415 - loaded when the command runs
    from rich.live import Live  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    console = Console()

    def frame() -> Group:
        rows, note = _rows(path)
        source = f"the daemon is not running{note}" if note else "live"
        head = Text(f"{len(rows)} banned ({source}). Ctrl-C ends.", style="dim")
        return Group(head, _fitting(rows, console))

    try:
        with Live(frame(), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH)
                live.update(frame(), refresh=True)
    except KeyboardInterrupt:
        return
