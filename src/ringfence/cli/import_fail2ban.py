"""``ringfence import-fail2ban``: fail2ban's asterisk jail as a configuration, and its bans taken over.

The configuration is printed, and nothing is changed. ``--bans`` hands the bans that are running to the
daemon, each for the time that it has left; fail2ban's own files are only read.
"""

import time
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask,
    errors_told,
    say,
    settings_all_the_same,
)
from ringfence.errors import StoreError
from ringfence.exits import Exit
from ringfence.spans import span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ringfence.fail2ban.database import Running
    from ringfence.fail2ban.jails import Configuration, Jail
    from ringfence.model import Network

FAIL2BAN = Path("/etc/fail2ban")
AT_ONCE = 5_000
"""How many bans go into one request: a request has at most 1 MiB."""

UNSAID_BANTIME = 600.0
"""How long fail2ban bans where no file says how long (seconds)."""


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(import_fail2ban)


def import_fail2ban(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="fail2ban's folder, or one file with jails.")
    ] = FAIL2BAN,
    jail: Annotated[
        list[str] | None,
        typer.Option("--jail", metavar="NAME", help="This jail, also if disabled; may be repeated."),
    ] = None,
    bans: Annotated[bool, typer.Option("--bans", help="Hand fail2ban's running bans to the daemon.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --bans: only list them.")] = False,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="fail2ban's database, where it is not in its place.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Print fail2ban's asterisk jail as a configuration, or take its bans over."""
    from ringfence.fail2ban.jails import read_configuration  # noqa: PLC0415 - loaded when the command runs

    if not bans and (dry_run or database):
        raise typer.BadParameter("--dry-run and --database go with --bans")
    with errors_told():
        found = read_configuration(path)
        jails = found.chosen(jail or [])
        problems = _said(found.problems)
        if not bans:
            _print(jails)
        else:
            problems += _take_over(jails, _database(found, database), None if dry_run else config)
    if problems:
        raise typer.Exit(Exit.PROBLEM)


def _said(problems: "Sequence[str]") -> int:
    """Say at once what went wrong, and give how much it is."""
    for problem in problems:
        say(problem)
    return len(problems)


def _print(jails: "Sequence[Jail]") -> None:
    from ringfence.fail2ban.carried import carried  # noqa: PLC0415 - loaded when the command runs
    from ringfence.fail2ban.document import document_of  # noqa: PLC0415 - loaded when the command runs

    # As bytes: TOML is UTF-8, whatever the terminal is.
    typer.echo(document_of(carried(jails, _files)).encode(), nl=False)


def _files(pattern: str) -> list[str]:
    from glob import glob  # noqa: PLC0415 - loaded when the command runs

    return [path for path in sorted(glob(pattern)) if Path(path).exists() and not Path(path).is_dir()]  # noqa: PTH207 - as fail2ban does


def _take_over(jails: "Sequence[Jail]", database: Path, config: Path | None) -> int:
    """List the bans, or hand them to the daemon of ``config``; say what went wrong, and give how much."""
    from ringfence.fail2ban.carried import bantime_of  # noqa: PLC0415 - loaded when the command runs
    from ringfence.fail2ban.database import read_bans  # noqa: PLC0415 - loaded when the command runs

    bantimes = {}
    for jail in jails:
        length = bantime_of(jail)
        bantimes[jail.name] = UNSAID_BANTIME if length is None else length
    found = read_bans(database, bantimes, time.time())
    problems = _said(found.problems)
    if config is None:
        _list(found.bans)
        return problems
    return problems + _hand_over(found.bans, config)


def _database(found: "Configuration", named: Path | None) -> Path:
    if named is not None:
        return named
    if not found.database.startswith("/"):  # None, or :memory:
        raise StoreError(
            f"fail2ban keeps no database (dbfile = {found.database!r}): nobody can be taken over"
        )
    return Path(found.database)


def _list(bans: "Sequence[Running]") -> None:
    from ringfence.model import printable, shown  # noqa: PLC0415 - loaded when the command runs

    now = time.time()
    for ban in bans:
        left = span(ban.expires - now) if isfinite(ban.expires) else "no end"
        typer.echo(f"{shown(ban.network):<39}  {left:>8}  {printable(ban.jail)}")
    typer.echo(f"{len(bans)} running")


def _hand_over(bans: "Sequence[Running]", config: Path) -> int:
    """Have the daemon ban each for the time that it has left, none for less than it is banned already."""
    from ringfence.values import MAX_DURATION  # noqa: PLC0415 - loaded when the command runs

    settings = settings_all_the_same(config)
    held = _held(ask(settings, "bans"))
    # Who was taken over for ten years before has a little less by now, and is not to be taken over again.
    far = time.time() + MAX_DURATION / 2
    wanted = [ban for ban in bans if held.get(ban.network, 0.0) + 1 < min(ban.expires, far)]
    taken = refused = 0
    try:
        for jail, expires, networks in _batches(wanted):
            seconds = min(expires - time.time(), MAX_DURATION)
            if seconds > 0:
                reason = f"taken over from fail2ban jail {jail}"
                told = _said(ask(settings, "ban", networks=networks, seconds=seconds, reason=reason))
                refused, taken = refused + told, taken + len(networks) - told
    finally:
        typer.echo(f"{taken} of {len(bans)} running bans taken over")
        if len(wanted) < len(bans):
            typer.echo(f"banned here already, and for as long: {len(bans) - len(wanted)}")
        if endless := sum(not isfinite(ban.expires) for ban in wanted):
            typer.echo(f"without end in fail2ban, here for ten years: {endless}")
    return refused


def _held(rows: "Sequence[dict[str, Any]]") -> "dict[Network, float]":
    """Give when the ban of each network that is banned already ends."""
    from datetime import datetime  # noqa: PLC0415 - loaded when the command runs

    from ringfence.model import network_from  # noqa: PLC0415 - loaded when the command runs

    return {
        network_from(row["address"]): (
            inf if row["expires"] is None else datetime.fromisoformat(row["expires"]).timestamp()
        )
        for row in rows
    }


def _batches(bans: "Sequence[Running]") -> "Iterator[tuple[str, float, list[str]]]":
    """Gather the bans of a jail that end at the same time: one request can hold many of them."""
    gathered: dict[tuple[str, float], list[str]] = {}
    for ban in bans:
        gathered.setdefault((ban.jail, ban.expires), []).append(str(ban.network))
    for (jail, expires), networks in gathered.items():
        for start in range(0, len(networks), AT_ONCE):
            yield jail, expires, networks[start : start + AT_ONCE]
