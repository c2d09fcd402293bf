"""``ringfence bans``, ``ban`` and ``unban``: who is out, and by hand."""

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    ask_daemon_encoded,
    console,
    counted,
    errors_told,
    fitting,
    networks_from,
    say,
    settings_from,
    tell_of_friends,
)
from ringfence.errors import DaemonUnreachableError, StoreError
from ringfence.exits import Exit
from ringfence.spans import span

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ringfence.bans.ledger import Ledger

REFRESH = 1.0  # seconds
_COLUMNS: "dict[str, Literal['left', 'right']]" = {
    "ADDRESS": "left",
    "RULE": "left",
    "PROVEN": "right",
    "BAN": "right",
    "SINCE (UTC)": "left",
    "LEFT": "right",
    "PACKETS": "right",
}
_SPARED = ("SINCE (UTC)", "BAN", "PACKETS")
"""What goes first where a line has no room for everything."""
_AROUND = 4
"""Lines of a live screen that are no ban: two heads, how many more there are, the cursor's own."""
_READABLE = 1_000_000
"""Bytes: a longer JSON is for scripts alone, and is passed on in one line as it is."""
_PLAIN_FROM = 1_000
"""So many rows are written as they come: to fit a hundred thousand into a table takes a minute."""
_RENEWED_FROM = 2_000_000
"""Seconds: the kernel keeps some 24 days at most, and the daemon renews a ban that is longer."""

Rows = list[dict[str, Any]]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(bans)
    app.command()(ban)
    app.command()(unban)


def bans(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="ADDRESS", help="Only bans that cover one of these, or lie in it."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the list live, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List who is banned, as the kernel has it, daemon up or down."""
    if watch and as_json:
        raise typer.BadParameter("--watch is for people, --json for scripts: choose one")
    wanted = [str(network) for network in networks_from(addresses)] if addresses else None
    with errors_told():
        if watch:
            _watch(config, wanted)
            return
        encoded, note = _encoded(config, wanted)
        if not as_json:
            rows = json.loads(encoded)
            _print(rows, _nobody(addresses))
            if not rows and not note:
                _tell_of_nobody(config, wanted)
        elif len(encoded) < _READABLE:
            typer.echo(json.dumps(json.loads(encoded), indent=2))
        else:
            sys.stdout.buffer.write(encoded + b"\n")
        if note:
            say(f"The daemon is not running{note}.")


def ban(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS", help="Addresses or networks.")],
    config: ConfigOption = DEFAULT_CONFIG,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 2h or 7d.")] = "1h",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever reads the list.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also what this host itself needs.")] = False,
) -> None:
    """Ban addresses or networks by hand."""
    from ringfence.values import parse_duration  # noqa: PLC0415 - loaded when the command runs

    networks = [str(network) for network in networks_from(addresses)]
    try:
        seconds = parse_duration(length)
    except ValueError as error:
        raise typer.BadParameter(f"--for {error}") from None
    with errors_told():
        problems = ask_daemon(config, "ban", networks=networks, seconds=seconds, reason=reason, force=force)
        if len(problems) < len(networks):
            tell_of_friends(config, networks_from(addresses), "banned")
        _told(f"banned for {span(seconds)}", addresses, networks, problems)


def unban(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="ADDRESS", help="Who may come back.")
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
            typer.echo(f"{counted(number, 'ban')} lifted")
            return
        networks = [str(network) for network in networks_from(addresses or [])]
        answer = ask_daemon(config, "unban", networks=networks)
        for note in answer["notes"]:
            say(note)
        _told("unbanned", addresses or [], networks, answer["problems"])


def _told(done: str, addresses: Sequence[str], networks: Sequence[str], problems: Sequence[str]) -> None:
    """Say to whom it was done, as he was typed, and to whom not."""
    failed = [any(problem.startswith(f"{network}: ") for problem in problems) for network in networks]
    if sum(failed) == len(problems) < len(networks):  # else a problem is not of one of them alone
        typer.echo(
            f"{done}: " + ", ".join(a for a, not_he in zip(addresses, failed, strict=True) if not not_he)
        )
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(Exit.PROBLEM)


def _tell_of_nobody(path: Path, wanted: list[str] | None) -> None:
    """Say what else there is to see where nobody is listed."""
    if not ask_daemon(path, "status")["firewall"]["enforcing"]:
        say("Nothing is dropped now; see: ringfence status")
    elif wanted:
        say("Who is denied for good is on a list of its own: ringfence deny list")


def _encoded(path: Path, wanted: list[str] | None) -> tuple[bytes, str]:
    """Give the list as JSON, and what is to be said of it where there is no daemon."""
    try:
        asked = {"networks": wanted} if wanted is not None else {}
        return ask_daemon_encoded(path, "bans", **asked), ""
    except DaemonUnreachableError:
        return _encoded_without_daemon(path, wanted)


def _rows(path: Path, wanted: list[str] | None) -> tuple[Rows, str]:
    encoded, note = _encoded(path, wanted)
    return json.loads(encoded), note


def _encoded_without_daemon(path: Path, wanted: list[str] | None) -> tuple[bytes, str]:
    from ringfence.bans.exempt import overlap  # noqa: PLC0415 - loaded when the command runs
    from ringfence.firewall import make_backend  # noqa: PLC0415 - loaded when the command runs
    from ringfence.report import bans_report  # noqa: PLC0415 - loaded when the command runs

    settings = settings_from(path)
    backend = make_backend(settings.firewall.backend)
    if not backend.enforces:
        return b"[]", f", and the {backend.name} firewall has no bans without it"
    now = time.time()
    networks = networks_from(wanted or [])
    found = (
        element
        for element in backend.list()
        if not networks or any(overlap(element.network, network) for network in networks)
    )
    try:
        encoded = b"".join(bans_report(found, _known(settings.store.path, now), now))
    finally:
        backend.close()
    return encoded, ": this is read from the kernel, which needs none to drop"


def _known(database: Path, now: float) -> "Ledger":
    """Give what the database knows of the bans: nothing, where it cannot be read."""
    from ringfence.bans.ledger import Ledger, Record, key_of  # noqa: PLC0415 - loaded when the command runs
    from ringfence.store import Store  # noqa: PLC0415 - loaded when the command runs

    ledger = Ledger()
    if not database.exists():
        return ledger
    try:
        with Store.open(database, owner=False) as store:
            for ban, made in store.each_running(now):
                ledger.put(key_of(ban.network, ban.scope), Record.of(ban, made))
    except StoreError as error:
        say(str(error))
    return ledger


def _nobody(wanted: Sequence[str] | None) -> str:
    """Say that nobody is listed; where some were asked for, that says nothing of others."""
    if not wanted:
        return "Nobody is banned."
    return f"{', '.join(wanted)} {'is' if len(wanted) == 1 else 'are'} not banned."


def _table(rows: Rows, *, without: int = 0) -> "Table":
    """Give the table, ``without`` so many of the columns that matter least."""
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    left_out = set(_SPARED[:without])
    for name, justify in _COLUMNS.items():
        if name not in left_out:  # at the worst an address takes two lines, not the table
            fold = name == "ADDRESS"
            table.add_column(name, justify=justify, no_wrap=not fold, overflow="fold" if fold else "ellipsis")
    for row in rows:
        began = (row["since"] or "?").replace("T", " ").removesuffix("Z")[:16]
        cells = (row["address"], _rule(row), *_numbers(row), began, _left(row), str(row["packets"]))
        shown = (Text(cell) for name, cell in zip(_COLUMNS, cells, strict=True) if name not in left_out)
        table.add_row(*shown)
    return table


def _rule(row: dict[str, Any]) -> str:
    """Name the rule, and what the ban covers where that is not everything."""
    rule = row["rule"] or "?"
    return rule if row["scope"] == "full" else f"{rule} ({row['scope']})"


def _numbers(row: dict[str, Any]) -> tuple[str, str]:
    attempts, offence = row["attempts"], row["offence"]
    proven = f"{row['proven']} of {attempts}" if attempts else "-"
    return "?" if attempts is None else proven, "?" if offence is None else f"{offence}."


def _left(row: dict[str, Any]) -> str:
    left = row["timeout"]
    if left is None:
        return "no end"
    if left > _RENEWED_FROM and row["expires"]:  # longer than the kernel can be told: it is renewed meanwhile
        left = datetime.fromisoformat(row["expires"]).timestamp() - time.time()
    return span(left)


def _fitting(rows: Rows, to: "Console") -> "Table":
    """Give the table, without some columns where the longest addresses would break the lines."""
    return fitting((_table(rows, without=number) for number in range(len(_SPARED) + 1)), to)


def _print(rows: Rows, nobody: str) -> None:
    if len(rows) >= _PLAIN_FROM:
        typer.echo("ADDRESS  RULE  PROVEN  BAN  SINCE  LEFT  PACKETS")
        for row in rows:
            cells = (row["address"], _rule(row), *_numbers(row), row["since"] or "?", _left(row))
            sys.stdout.write("  ".join((*cells, str(row["packets"]))) + "\n")
        return
    to = console()
    to.print(_fitting(rows, to))
    if not rows:
        to.print(nobody, soft_wrap=True)


def _watch(path: Path, wanted: list[str] | None) -> None:
    from rich.console import Group  # noqa: PLC0415 - loaded when the command runs
    from rich.live import Live  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    to = console()

    def frame() -> Group:
        rows, note = _rows(path, wanted)
        source = f"the daemon is not running{note}" if note else "live"
        head = Text(f"{len(rows)} banned ({source}). Ctrl-C ends.", style="dim")
        room = max(1, to.height - _AROUND)
        more = [Text(f"and {len(rows) - room} more", style="dim")] if len(rows) > room else []
        return Group(head, _fitting(rows[:room], to), *more)  # what the screen does not show

    try:
        with Live(frame(), console=to, auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH)
                live.update(frame(), refresh=True)
    except KeyboardInterrupt:
        return
