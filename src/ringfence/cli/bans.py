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
    from rich.table import Table

    from ringfence.model import Ban, Network

REFRESH = 1.0  # seconds

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
        rows, from_kernel = _rows(config)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        else:
            _print(_table(rows))
        if from_kernel:
            say("The daemon is not running: this is read from the kernel, which keeps dropping.")


def ban(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS...", help="Addresses or networks.")],
    config: ConfigOption = DEFAULT_CONFIG,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 2h or 7d.")] = "1h",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever reads the list.")] = "",
) -> None:
    """Ban addresses or networks by hand."""
    from ringfence.config import parse_duration  # noqa: PLC0415 - loaded when the command runs

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


def _rows(path: Path) -> tuple[Rows, bool]:
    """Give the rows, and whether they had to be read from the kernel."""
    try:
        return ask_daemon(path, "bans"), False
    except DaemonUnreachableError:
        return _rows_from_kernel(path), True


def _rows_from_kernel(path: Path) -> Rows:
    from ringfence.enforce import listed  # noqa: PLC0415 - loaded when the command runs
    from ringfence.firewall import make_backend  # noqa: PLC0415 - loaded when the command runs
    from ringfence.report import bans_report  # noqa: PLC0415 - loaded when the command runs

    settings = settings_from(path)
    backend = make_backend(settings.firewall.backend)
    try:
        elements = backend.list()
    finally:
        backend.close()
    now = time.time()
    return bans_report(listed(elements, _known(settings.store.path, now), now))


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


def _table(rows: Rows) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ADDRESS", overflow="fold")  # a whole IPv6 address takes two lines, not the table
    table.add_column("RULE", no_wrap=True)
    table.add_column("ATTEMPTS", justify="right", no_wrap=True)
    table.add_column("SINCE (UTC)", no_wrap=True)
    table.add_column("LEFT", justify="right", no_wrap=True)
    table.add_column("PACKETS", justify="right", no_wrap=True)
    for row in rows:
        since = row["since"] or "?"
        table.add_row(
            Text(row["address"]),
            Text(row["rule"] or "?"),
            "?" if row["attempts"] is None else str(row["attempts"]),
            since.replace("T", " ").removesuffix("Z")[:16],
            "no end" if row["timeout"] is None else span(row["timeout"]),
            str(row["packets"]),
        )
    table.caption = None if rows else "Nobody is banned."
    return table


def _print(table: "Table") -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded when the command runs

    Console().print(table)


def _watch(path: Path) -> None:
    from rich.console import Group  # noqa: PLC0415 - loaded when the command runs
    from rich.live import Live  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    def frame() -> Group:
        rows, from_kernel = _rows(path)
        source = "from the kernel; the daemon is not running" if from_kernel else "live"
        return Group(Text(f"{len(rows)} banned ({source}). Ctrl-C ends.", style="dim"), _table(rows))

    try:
        with Live(frame(), auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH)
                live.update(frame(), refresh=True)
    except KeyboardInterrupt:
        return
