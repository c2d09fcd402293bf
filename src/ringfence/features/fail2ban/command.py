"""``ringfence import-fail2ban``: convert fail2ban's asterisk jail to a configuration, and take over its bans.

Without ``--bans`` the command prints a configuration for ringfence, and changes nothing. With ``--bans`` it
lets the daemon ban each network that fail2ban bans, for the remaining time. fail2ban's own files are only
read.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from ipaddress import ip_address
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask, ask_or_read, settings_or_defaults
from ringfence.cli.output import echo, echo_document, echo_stderr, errors_reported
from ringfence.clock import TEN_YEARS, format_duration
from ringfence.config.schema import Settings
from ringfence.control import MOST_LISTED
from ringfence.errors import Exit, StoreError
from ringfence.features.fail2ban.carried import bantime_of, convert, document_of
from ringfence.features.fail2ban.database import Fail2banBan, read_bans
from ringfence.features.fail2ban.jails import FOLDER, Configuration, Jail, read_configuration
from ringfence.plurals import counted
from ringfence.sources import logs
from ringfence.values.ban import Scope
from ringfence.values.network import Address, Network, format_network, parse_network
from ringfence.values.text import printable

BATCH = 1_000
"""The maximum number of bans in one request, because a request has at most 64 KiB."""

_MAX_FRIENDS = 5
DEFAULT_BANTIME = 600.0
"""The length (seconds) of fail2ban's bans if none of its files sets ``bantime``."""


def import_fail2ban(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="fail2ban's folder.")] = FOLDER,
    jail: Annotated[
        list[str] | None,
        typer.Option("--jail", metavar="NAME", help="Import this enabled jail; may be repeated."),
    ] = None,
    bans: Annotated[bool, typer.Option("--bans", help="Take over fail2ban's active bans.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --bans: only list them.")] = False,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="fail2ban's database; default: as in fail2ban.conf.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="With --bans: also take over the bans of this PBX's friends.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Print fail2ban's asterisk jail as a configuration, or take over its bans."""
    if not bans and (dry_run or database or force):
        raise typer.BadParameter("--dry-run, --database and --force need --bans")
    with errors_reported():
        found = read_configuration(path)
        jails = found.chosen(jail or [])
        problems = _print_problems(found.problems)
        for other in found.left_out(jails):
            name = printable(other.name)
            echo_stderr(
                f"jail {name} reads a log of Asterisk too, and is left out; to import it: --jail {name}"
            )
        if not bans:
            own = next((str(path) for path in logs.OWN if path.exists()), "")
            echo_document(document_of(convert(jails, own)))
        else:
            problems += take_over(jails, _database(found, database), config, dry_run=dry_run, force=force)
    if problems:
        raise typer.Exit(Exit.PROBLEM)


def _print_problems(problems: Sequence[str]) -> int:
    """Print each problem on standard error; return their number."""
    echo_stderr(*problems)
    return len(problems)


def take_over_from(folder: Path, names: Sequence[str], config: Path) -> int:
    """Send the bans of the jails ``names`` to the daemon; print the problems, and return their number.

    ``folder`` has fail2ban's configuration, which names fail2ban's database. Return 0 if there is no
    database, because then there are no bans to take over.
    """
    found = read_configuration(folder)
    database = Path(found.database)
    if not database.is_absolute() or not database.exists():  # kept in memory, or fail2ban has never run
        return 0
    return take_over(found.chosen(names), database, config, dry_run=False, force=False)


def take_over(jails: Sequence[Jail], database: Path, config: Path, *, dry_run: bool, force: bool) -> int:
    """Send the active bans of ``jails`` to the daemon; with ``dry_run`` only list them.

    Bans of friends are left out unless ``force``. Print the problems, and return their number.
    """
    running, problems = _active_bans(jails, database)
    if dry_run and not config.exists():
        _list(running)  # ringfence is not installed yet, so it knows no friends to leave out
        return problems
    settings = settings_or_defaults(config)
    if running:
        running = _without_friends(running, _friends(settings), force=force)
    if not dry_run:
        return problems + _hand_over(running, settings)
    _list(running)
    return problems


def _active_bans(jails: Sequence[Jail], database: Path) -> tuple[Sequence[Fail2banBan], int]:
    """Read the active bans of ``jails`` from fail2ban's database.

    Return them, and the number of problems, which are printed.
    """
    bantimes = {}
    for jail in jails:
        length = bantime_of(jail)
        bantimes[jail.name] = DEFAULT_BANTIME if length is None else length
    found = read_bans(database, bantimes, time.time())
    return found.bans, _print_problems(found.problems)


def _without_friends(
    bans: Sequence[Fail2banBan], friends: dict[Address, set[str]], *, force: bool
) -> Sequence[Fail2banBan]:
    """Return the bans that cover no friend; with ``force`` all bans. Print the friends that bans cover.

    ``friends`` maps the address of each friend to its accounts.
    """
    kept = []
    for ban in bans:
        one = ban.network.network_address if ban.network.num_addresses == 1 else None
        candidates = friends if one is None else {one} & friends.keys()
        covered = [address for address in candidates if address in ban.network]
        if force or not covered:
            kept.append(ban)
        for address in covered[:_MAX_FRIENDS]:
            names = ", ".join(printable(name) for name in sorted(friends[address])[:_MAX_FRIENDS])
            echo_stderr(
                f"{address} is a friend of this PBX ({names}): banned anyway"
                if force
                else f"{format_network(ban.network)}: left out because {address} is a friend of this PBX "
                f"({names}); to take it over too: --force"
            )
    return kept


def _friends(settings: Settings) -> dict[Address, set[str]]:
    """Return the addresses of all friends, with their accounts. Without a daemon its database is read.

    If the database cannot be read, print a warning, and return no friends.
    """
    friends: dict[Address, set[str]] = {}
    try:
        rows, _ = ask_or_read(settings, "friends")
    except StoreError as error:
        echo_stderr(f"friends are unknown, and not left out: {error}")
        rows = []
    for row in rows:
        friends.setdefault(ip_address(row["address"]), set()).add(row["account"])
    return friends


def _database(found: Configuration, named: Path | None) -> Path:
    if named is not None:
        return named
    if not found.database.startswith("/"):  # "None" or ":memory:": fail2ban writes no file
        raise StoreError(
            f"fail2ban keeps no database (dbfile = {found.database!r}): there are no bans to take over"
        )
    return Path(found.database)


def _list(bans: Sequence[Fail2banBan]) -> None:
    now = time.time()
    for ban in bans:
        left = format_duration(ban.expires - now) if isfinite(ban.expires) else "no end"
        echo(f"{format_network(ban.network):<39}  {left:>8}  {ban.jail}")
    echo(f"{len(bans)} active")


def _hand_over(bans: Sequence[Fail2banBan], settings: Settings) -> int:
    """Ask the daemon to ban each network for the remaining time of fail2ban's ban.

    A network that ringfence already bans for at least as long is left out. Print how many bans were taken
    over. Return the number of bans that the daemon refused.
    """
    banned_until = _banned_until(ask(settings, "bans", most=MOST_LISTED))
    # A permanent ban of fail2ban becomes a ban of TEN_YEARS (ten years). A later run takes it over
    # again only if that ban ends before ``far``. Without this limit, every run would take it over again.
    far = time.time() + TEN_YEARS / 2
    wanted = [ban for ban in bans if banned_until.get(ban.network, 0.0) + 1 < min(ban.expires, far)]
    taken = refused = 0
    try:
        for jail, expires, networks in _batches(wanted):
            seconds = min(expires - time.time(), TEN_YEARS)
            if seconds > 0:
                reason = f"taken over from fail2ban jail {jail}"
                answer = ask(settings, "ban", networks=networks, seconds=seconds, reason=reason)
                failures = _print_problems(answer["problems"])
                refused, taken = refused + failures, taken + len(networks) - failures
    finally:
        echo(f"{taken} of {counted(len(bans), 'active ban')} taken over")
        if len(wanted) < len(bans):
            echo(f"already banned here for at least as long: {len(bans) - len(wanted)}")
        if endless := sum(not isfinite(ban.expires) for ban in wanted):
            echo(f"permanent in fail2ban, here for ten years: {endless}")
    return refused


def _banned_until(rows: Sequence[dict[str, Any]]) -> dict[Network, float]:
    """Return the end of each network's full ban in ``rows`` (seconds since the epoch; infinite if none).

    A ban with a narrower scope leaves ports open that fail2ban closes.
    """
    return {
        parse_network(row["address"]): (
            inf if row["expires"] is None else datetime.fromisoformat(row["expires"]).timestamp()
        )
        for row in rows
        if Scope(row["scope"]) is Scope.FULL
    }


def _batches(bans: Sequence[Fail2banBan]) -> Iterator[tuple[str, float, list[str]]]:
    """Group bans into batches, one for each request to the daemon.

    All bans of a request have the same length and the same reason. So a batch has only bans of one jail that
    end at the same time. Yield the jail, the end (seconds since the epoch) and at most BATCH networks.
    """
    gathered: dict[tuple[str, float], list[str]] = {}
    for ban in bans:
        gathered.setdefault((ban.jail, ban.expires), []).append(str(ban.network))
    for (jail, expires), networks in gathered.items():
        for start in range(0, len(networks), BATCH):
            yield jail, expires, networks[start : start + BATCH]
