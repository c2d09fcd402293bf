"""``ringfence bans``, ``ban`` and ``unban``: list bans, and ban or unban by hand."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from ringfence import street
from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    account_cell,
    answer_instead,
    ask_daemon,
    ask_daemon_encoded,
    ask_or_read,
    duration_from,
    networks_from,
    rule_cell,
    settings_from,
    settings_or_defaults,
    warn_about_friends,
)
from ringfence.cli.lists import allow_entries
from ringfence.cli.output import (
    JsonOption,
    echo,
    echo_encoded,
    echo_json,
    echo_stderr,
    errors_reported,
    short_time,
)
from ringfence.cli.screen import Screen, escaped_text, fitting, show_list, table_of, without
from ringfence.clock import format_duration, time_left
from ringfence.config.converters import parse_duration
from ringfence.config.schema import Settings
from ringfence.control import MOST_ENDED, MOST_LISTED
from ringfence.errors import DaemonUnreachableError, Exit
from ringfence.plurals import counted
from ringfence.values.ban import COLUMNS, cell_of
from ringfence.values.network import Network, format_network, parse_network

REFRESH = 1.0  # seconds between two updates of the live list
WITHOUT_DAEMON = "the daemon does not answer: removed from the kernel directly"
_RIGHT = ("PROVEN", "BAN", "LEFT", "PACKETS")
_DETAIL_HEADS = {key: column.title.upper() for key, column in COLUMNS.items()}
_OPTIONAL = ("SINCE", *_DETAIL_HEADS.values(), "PACKETS", "PROVEN")
_OPTIONAL_PAST = (*_DETAIL_HEADS.values(), "AFTER", "SINCE")
"""Columns that are left out one after the other, in this order, until the table fits the screen."""
_OTHER_LINES = 4
"""Lines of the live list that show no ban: two headers, the number of further bans, and the cursor's line."""
_MAX_INDENTED = 1_000_000
"""The size in bytes from which JSON is printed in one line, without indents: only scripts read so much."""

Rows = list[dict[str, Any]]


def bans(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS", help="Only bans of these addresses, and of networks around or inside them."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the list live, until Ctrl-C.")] = False,
    past: Annotated[bool, typer.Option("--past", help="List the bans that ended, the latest first.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="With --past: how long ago, such as 7d.")
    ] = "",
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """List current bans, as read from the kernel, with the daemon up or down."""
    addresses = None if addresses == ["all"] else addresses
    if watch and (as_json or past):
        raise typer.BadParameter("--watch shows current bans to people: leave out --json and --past")
    if since and not past:
        raise typer.BadParameter("--since needs --past")
    output.choose(local=local)
    wanted = [str(network) for network in networks_from(addresses)] if addresses else None
    if past:
        with errors_reported():
            _show_past(config, wanted, duration_from("--since", since) if since else None, as_json=as_json)
        return
    with errors_reported():
        if watch:
            _watch(config, wanted)
            return
        encoded, note = _encoded(config, wanted)
        if not as_json:
            rows = json.loads(encoded)
            _print(rows, _no_bans_text(addresses))
            if not note:
                _print_notes(config, wanted)
            if not rows and not note:
                _explain_no_bans(config, wanted)
        elif len(encoded) < _MAX_INDENTED:
            echo_json(json.loads(encoded))
        else:
            echo_encoded(encoded)
        if note:
            echo_stderr(f"The daemon does not answer{note}.")


def ban(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS", help="Addresses or networks.")],
    config: ConfigOption = DEFAULT_CONFIG,
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="Length of the ban, such as 2h, 1h30m or 7d.")
    ] = "1h",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Reason, shown by `ringfence why`.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also ban what this host needs, or a very wide network.")
    ] = False,
) -> None:
    """Ban addresses or networks by hand."""
    for text in addresses:
        with suppress(ValueError):
            parse_duration(text)
            raise typer.BadParameter(f"{text!r} is a time; write it as: --for {text}")
    wanted = _typed(addresses)
    networks = [str(network) for network in wanted]
    seconds = duration_from("--for", length)
    with errors_reported():
        answer = ask_daemon(config, "ban", networks=networks, seconds=seconds, reason=reason, force=force)
        problems = answer["problems"]
        if len(problems) < len(networks):
            warn_about_friends(config, [*wanted], "banned")
        echo_stderr(*answer["notes"])
        _print_outcome(f"banned for {format_duration(seconds)}", wanted, problems)


def unban(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="ADDRESS", help="Addresses or networks, or `all`.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    everything: Annotated[bool, typer.Option("--all", help="End every ban.")] = False,
    allow: Annotated[
        bool, typer.Option("--allow", help="Also add them to the allow list, so that nothing bans them.")
    ] = False,
) -> None:
    """End bans of addresses or networks, or all bans. Works with the daemon up or down."""
    if addresses == ["all"]:
        addresses, everything = None, True
    if everything == bool(addresses) or (everything and allow):
        raise typer.BadParameter("name addresses, or --all without --allow")
    networks = _typed(addresses or [])
    settings, code, accepted = settings_or_defaults(config), 0, list[str]()
    if allow:  # before the unban: otherwise a new ban could be placed between the two
        wanted = [format_network(network) for network in networks]
        code, accepted = allow_entries(config, wanted, "unban --allow")
    allowed = {format_network(parse_network(text)) for text in accepted}
    with errors_reported():
        if everything:
            echo(f"{counted(_unban(settings, all=True), 'ban')} ended")
            return
        answer = _unban(settings, networks=[str(network) for network in networks], allowed=bool(allowed))
        # It is no problem if an address that is allowed now was not banned.
        missing = [network for network in answer["not_banned"] if network not in allowed]
        problems = [*answer["problems"], *(f"{network}: is not banned" for network in missing)]
        echo_stderr(*answer["notes"])
        _print_outcome("unbanned", networks, problems)
    if code:
        raise typer.Exit(code)


def _unban(settings: Settings, **which: Any) -> Any:  # noqa: ANN401 - the daemon's JSON
    answer, absent = ask_or_read(settings, "unban", **which)
    if absent:
        echo_stderr(WITHOUT_DAEMON)
    return answer


def _typed(addresses: Sequence[str]) -> Mapping[Network, str]:
    """Return each network that the user typed, once, with its text."""
    return dict(zip(networks_from([*addresses]), addresses, strict=True))


def _print_outcome(done: str, networks: Mapping[Network, str], problems: Sequence[str]) -> None:
    """Print a line with the addresses that succeeded, and all problems.

    ``done`` begins the line, such as "unbanned". ``networks`` have their texts as the user typed them. A
    problem that concerns a single network begins with this network. The line is left out if no address
    succeeded, or if it is unknown which ones did. If there are problems, exit with the code for a problem.
    """
    begins = [f"{format_network(network)}: " for network in networks]
    failed = [any(problem.startswith(begin) for problem in problems) for begin in begins]
    # If a problem concerns several networks or none of them, it is unknown which ones succeeded.
    if sum(failed) == len(problems) < len(networks):
        texts = (text for text, bad in zip(networks.values(), failed, strict=True) if not bad)
        echo(f"{done}: " + ", ".join(texts))
    echo_stderr(*problems)
    if problems:
        raise typer.Exit(Exit.PROBLEM)


def _print_notes(path: Path, wanted: list[str] | None) -> None:
    """Print the notes of features about the networks that the user asked for; without any, about all."""
    for module in street.modules("bans"):
        echo_stderr(*module.notes(path, wanted))


def _explain_no_bans(path: Path, wanted: list[str] | None) -> None:
    """Print a hint after an empty list of bans.

    If enforcement is off, the reason is that nothing is dropped. Otherwise, if the user asked for networks,
    the hint names the command that shows the deny list, because this list may contain them. Else it names
    the command that bans.
    """
    if not ask_daemon(path, "status", quietly=True)["firewall"]["enforcing"]:
        echo_stderr("Nothing is dropped at present; see: ringfence status")
    elif wanted:
        echo_stderr("Denied networks are listed by: ringfence deny list")
    else:
        echo_stderr("To ban an address by hand: ringfence ban ADDRESS")


def _encoded(path: Path, wanted: list[str] | None, *, quietly: bool = False) -> tuple[bytes, str]:
    """Return the list of bans as JSON, and a note for the user; the note is "" if the daemon answered.

    Without a daemon, the bans are read from the kernel, as the note states. The caller prints the note
    after the words "The daemon does not answer". ``wanted`` are the wanted networks; None for all bans.
    Mistakes of the configuration are printed, except with ``quietly``.
    """
    arguments: dict[str, object] = {"networks": wanted} if wanted is not None else {}
    try:
        return ask_daemon_encoded(path, "bans", quietly=quietly, most=MOST_LISTED, **arguments), ""
    except DaemonUnreachableError as error:
        encoded, note = answer_instead(error, settings_from(path), "bans", **arguments)
        return encoded, note


def _no_bans_text(wanted: Sequence[str] | None) -> str:
    """Return the text for an empty list; it names the requested addresses, if any."""
    if not wanted:
        return "No address is banned."
    return f"{', '.join(wanted)} {'is' if len(wanted) == 1 else 'are'} not banned."


def _columns(rows: Rows) -> dict[str, list[str]]:
    columns = {
        "ADDRESS": [row["address"] for row in rows],
        "RULE": [rule_cell(row) for row in rows],
        "ACCOUNT": [_account(row) for row in rows],
        "PROVEN": [_proven(row) for row in rows],
        **_detail_columns(rows),
        output.head("SINCE"): [short_time(row["since"]) for row in rows],
        "LEFT": [time_left(row["expires"]) for row in rows],
        "PACKETS": [str(row["packets"]) for row in rows],
    }
    if not any(row["account"] for row in rows):
        del columns["ACCOUNT"]
    return columns


def _optional() -> list[str]:
    return [output.head(name) if name == "SINCE" else name for name in _OPTIONAL]


def _account(row: dict[str, Any]) -> str:
    return "?" if row["account"] is None else account_cell(row)


def _proven(row: dict[str, Any]) -> str:
    attempts = row["attempts"]
    proven = f"{row['proven']} of {attempts}" if attempts else "-"
    return "?" if attempts is None else proven


def _detail_columns(rows: Rows) -> dict[str, list[str]]:
    """Return the table columns for the details (``COLUMNS``) of the bans in ``rows``: cells by head."""
    return {head: [cell_of(row, key) for row in rows] for key, head in _DETAIL_HEADS.items()}


def _fitting(rows: Rows, to: Screen) -> Table:
    """Return the table of bans with as many of the optional columns as fit the screen."""
    return fitting((table_of(some, right=_RIGHT) for some in without(_columns(rows), _optional())), to)


def _print(rows: Rows, if_empty: str) -> None:
    to = Screen()
    show_list(_columns(rows), _optional(), to, right=_RIGHT)
    if not rows:
        to.show(if_empty)


def _show_past(path: Path, wanted: list[str] | None, seconds: float | None, *, as_json: bool) -> None:
    """Print the bans that ended in the last ``seconds``; None for all that the database keeps.

    ``path`` is the configuration. With ``wanted``, only bans of these networks are printed, or of networks
    around or inside them.
    """
    arguments: dict[str, Any] = {"networks": wanted} if wanted is not None else {}
    if seconds is not None:
        arguments["seconds"] = seconds
    rows, absent = ask_or_read(path, "past_bans", **arguments)
    if as_json:
        echo_json(rows)
    elif rows:
        show_list(_past_columns(rows), _OPTIONAL_PAST, Screen())
    else:
        echo("No ban ended in this time.")
    if len(rows) >= MOST_ENDED:
        echo_stderr(f"Only the latest {MOST_ENDED} are listed.")
    if absent:
        echo_stderr("The daemon does not answer: the list is read from its database.")


def _past_columns(rows: Rows) -> dict[str, list[str]]:
    return {
        "ADDRESS": [row["address"] for row in rows],
        "RULE": [rule_cell(row) for row in rows],
        "ACCOUNT": [account_cell(row) for row in rows],
        **_detail_columns(rows),
        "SINCE": [short_time(row["since"]) for row in rows],
        output.head("ENDED"): [short_time(row["ended"]) for row in rows],
        "AFTER": [_lasted(row) for row in rows],
        "HOW": [row["end"] for row in rows],
    }


def _lasted(row: dict[str, Any]) -> str:
    since, ended = (datetime.fromisoformat(row[key]).timestamp() for key in ("since", "ended"))
    return format_duration(max(0.0, ended - since))


def _watch(path: Path, wanted: list[str] | None) -> None:
    to = Screen()

    def frame(*, quietly: bool) -> Group:
        encoded, note = _encoded(path, wanted, quietly=quietly)
        rows: Rows = json.loads(encoded)
        source = f"the daemon does not answer{note}" if note else "live"
        head = escaped_text(f"{len(rows)} banned ({source}). Ctrl-C ends.", style="dim")
        room = max(1, to.height - _OTHER_LINES)
        more = [escaped_text(f"and {len(rows) - room} more", style="dim")] if len(rows) > room else []
        return Group(head, _fitting(rows[:room], to), *more)

    try:
        with Live(frame(quietly=False), console=to, auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH)
                live.update(frame(quietly=True), refresh=True)
    except KeyboardInterrupt:
        return
