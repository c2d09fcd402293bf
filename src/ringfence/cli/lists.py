"""``ringfence allow`` and ``deny``: show and change the administrator's lists.

Changes are sent to the daemon. If no daemon runs, they are written to its database, and take effect when it
starts.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from attrs import frozen
from rich.table import Table

from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask_daemon,
    ask_or_read,
    duration_from,
    warn_about_friends,
)
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.screen import Screen, escaped_text, table_of
from ringfence.clock import format_duration
from ringfence.errors import Exit
from ringfence.lists.entries import EntryKind, parse_entry, parse_region
from ringfence.values.text import printable

_SHOWN_ADDRESSES = 4
_OPTIONAL_COLUMNS = ("ADDED", "FROM", "ENDS")
"""Columns that are left out one after the other, in this order, until the table fits the screen."""
_NARROWEST_NOTE = 12
"""The minimum width (columns) of the column NOTE. Optional columns are left out to keep it."""
_MAX_UNBROKEN = 48
"""The maximum width (columns) of a table column whose texts are never wrapped. No IPv6 network is wider."""
_RESOLVE_TIMEOUT = 3.0  # seconds
_POLL_INTERVAL = 0.2
ALLOW, DENY = "allow", "deny"
_PURPOSES = {
    ALLOW: "Allowed addresses are never banned.",
    DENY: "Packets of denied addresses are always dropped.",
}

Rows = list[dict[str, Any]]
RemoveArgument = Annotated[
    list[str],
    typer.Argument(metavar="ENTRY", help="Entries as `list` shows them, also countries and network numbers."),
]
CountryArgument = Annotated[
    list[str], typer.Argument(metavar="COUNTRY", help="Countries (DE) and network numbers (AS64496).")
]
NoteOption = Annotated[str, typer.Option(metavar="TEXT", help="Note, shown in the list.")]
ForOption = Annotated[
    str | None,
    typer.Option("--for", metavar="TIME", help="Lifetime of the entry, such as 2h; default: no end."),
]


@frozen
class ListTexts:
    """The help texts of the commands of ``ringfence allow`` or ``deny``, as ``side`` states."""

    side: str
    entries: str
    add: str
    force: str
    country: str


def list_group(texts: ListTexts) -> typer.Typer:
    """Return the group of commands (``add`` …) of ``ringfence allow`` or ``deny``, with its help texts."""
    group, side = typer.Typer(cls=HintingGroup, no_args_is_help=True, add_completion=False), texts.side

    @group.command("add", help=texts.add)
    def add(
        entries: Annotated[list[str], typer.Argument(metavar="ENTRY", help=texts.entries)],
        config: ConfigOption = DEFAULT_CONFIG,
        note: NoteOption = "",
        length: ForOption = None,
        force: Annotated[bool, typer.Option("--force", help=texts.force)] = False,
    ) -> None:
        _add(config, side, entries, note, length, force=force)

    @group.command("country", help=texts.country)
    def country(
        countries: CountryArgument,
        config: ConfigOption = DEFAULT_CONFIG,
        note: NoteOption = "",
        length: ForOption = None,
    ) -> None:
        _add(config, side, [_country(text) for text in countries], note, length)

    @group.command("remove", help=f"Remove entries from the {side} list.")
    def remove(entries: RemoveArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
        with errors_reported():
            _print_outcome("removed", *ask_or_read(config, f"{side}_remove", what=entries))

    @group.command("list", help=f"List the {side} list, and the origin of each entry.")
    def show(
        config: ConfigOption = DEFAULT_CONFIG,
        local: output.LocalOption = False,
        as_json: JsonOption = False,
    ) -> None:
        output.choose(local=local)
        _list(config, side, as_json=as_json)

    return group


ALLOW_TEXTS = ListTexts(
    ALLOW,
    entries="Addresses, networks or host names.",
    add="Add entries to the allow list. It overrides every ban and the deny list.",
    force="Also allow a very wide network.",
    country="Allow countries and network numbers. Needs a [geo] database.",
)
DENY_TEXTS = ListTexts(
    DENY,
    entries="Addresses or networks.",
    add="Add entries to the deny list. Only the allow list overrides it: friends are denied too.",
    force="Also deny what this host needs, or a very wide network.",
    country="Deny countries and network numbers, except for friends. Needs a [geo] database.",
)
allow, deny = list_group(ALLOW_TEXTS), list_group(DENY_TEXTS)


def allow_entries(path: Path, entries: list[str], note: str) -> tuple[int, list[str]]:
    """Add entries to the allow list as the command `allow add` does.

    Return the exit code of that command, and the entries that the list accepted.
    """
    accepted: list[str] = []
    try:
        with errors_reported():
            answer, absent = ask_or_read(
                path, f"{ALLOW}_add", what=entries, note=note, seconds=None, force=False
            )
            accepted = answer["done"]
            _print_added(path, ALLOW, answer, absent)
    except typer.Exit as end:
        return end.exit_code, accepted
    return 0, accepted


def _add(
    path: Path, side: str, entries: list[str], note: str, length: str | None, *, force: bool = False
) -> None:
    seconds = None if length is None else duration_from("--for", length)
    with errors_reported():
        do = f"{side}_add"
        answer, absent = ask_or_read(path, do, what=entries, note=note, seconds=seconds, force=force)
        _print_added(path, side, answer, absent, f" for {format_duration(seconds)}" if seconds else "")


def _print_added(
    path: Path,
    side: str,
    answer: Any,  # noqa: ANN401 - the daemon's JSON
    absent: str,
    lasting: str = "",
) -> None:
    """Print the ``answer`` to a request to add entries. ``absent`` is why no daemon gave it, or ""."""
    if not absent:
        _warn_about_entries(path, side, answer["done"])
    _print_outcome(f"on the {side} list{lasting}", answer, absent)


def _warn_about_entries(path: Path, side: str, done: Sequence[str]) -> None:
    """Print a warning for each new entry that is probably a mistake.

    ``side`` is the list ("allow" or "deny"), and ``done`` are its new entries. A mistake is an entry of the
    deny list that contains a friend, or a host name for which the DNS returns no address within
    _RESOLVE_TIMEOUT.
    """
    whats = [parse_entry(text) for text in done]
    networks = [what.network for what in whats if what.network is not None]
    if side == DENY and networks:
        warn_about_friends(path, networks, "denied")
    names = {what.text for what in whats if what.kind is EntryKind.HOST}
    until = time.monotonic() + _RESOLVE_TIMEOUT
    while names and time.monotonic() < until:
        rows = ask_daemon(path, "lists", quietly=True, side=side)
        names = {row["entry"] for row in rows if row["entry"] in names and not row["networks"]}
        time.sleep(_POLL_INTERVAL if names else 0.0)
    for name in sorted(names):
        echo_stderr(
            f"{name} does not resolve yet: the DNS returns no address, so it allows none; is it misspelt?"
        )


def _country(text: str) -> str:
    try:
        return parse_region(text).text
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from None


def _print_outcome(done: str, answer: Mapping[str, list[str]], absent: str) -> None:
    """Print what succeeded (after ``done``, such as "removed") and what failed.

    ``absent`` is why the daemon could not be reached, or "". If something failed or the daemon is absent,
    exit with the code for it.
    """
    if answer["done"]:
        echo(f"{done}: " + ", ".join(answer["done"]))
    echo_stderr(*answer["notes"], *answer["problems"])
    if absent and answer["done"]:
        echo_stderr(f"this takes effect when the daemon starts: {absent}")
    if answer["problems"]:
        raise typer.Exit(Exit.PROBLEM)
    if absent:
        raise typer.Exit(Exit.UNREACHABLE)


def _list(path: Path, side: str, *, as_json: bool) -> None:
    with errors_reported():
        rows, absent = ask_or_read(path, "lists", side=side)
        if as_json:
            echo_json(rows)
        else:
            _print(rows, side, absent=bool(absent))
        if absent:
            echo_stderr("The daemon does not answer: this list comes from its configuration and database.")


def _print(rows: Rows, side: str, *, absent: bool) -> None:
    to = Screen()
    if not rows:
        to.show(f"The {side} list is empty. {_PURPOSES[side]}")
        to.show(f"To begin: ringfence {side} add ADDRESS")
        return
    columns = {
        "ENTRY": [printable(row["entry"]) for row in rows],
        "NETWORKS": [_networks(row, absent=absent) for row in rows],
        "FROM": [printable(row["source"]) for row in rows],
        output.head("ADDED"): [short_time(row["added"], "") for row in rows],
        output.head("ENDS"): [short_time(row["ends"], "") for row in rows],
        "NOTE": [printable(row["note"]) + (" (forced)" if row["forced"] else "") for row in rows],
    }
    # A column that is empty in every row is left out.
    shown = {head: cells for head, cells in columns.items() if any(cells)}
    widths = {
        head: max(len(line) for cell in cells for line in cell.split("\n")) for head, cells in shown.items()
    }
    note = min(widths.get("NOTE", 0), _NARROWEST_NOTE)
    for name in _OPTIONAL_COLUMNS:
        optional = name if name in columns else output.head(name)
        if sum(widths.values()) - widths.get("NOTE", 0) + note + 2 * (len(widths) - 1) <= to.width:
            break
        shown.pop(optional, None)
        widths.pop(optional, None)
    to.print(_table(shown, widths))


def _table(columns: Mapping[str, list[str]], widths: Mapping[str, int]) -> Table:
    """Return the table of a list. ``columns`` has the cells of each column by its head, ``widths`` its width.

    Only notes and columns with very long texts are wrapped, so that all other texts can be copied.
    """
    wrapped = [head for head, width in widths.items() if head == "NOTE" or width > _MAX_UNBROKEN]
    cells = {head: [escaped_text(*cell.split("\n")) for cell in column] for head, column in columns.items()}
    return table_of(cells, right=["NETWORKS"], wrapped=wrapped)


def _networks(row: Mapping[str, Any], *, absent: bool) -> str:
    if row["networks"] is None:
        return "none" if "." in row["entry"] and not absent else "?"
    addresses = row["leads_to"]
    if not addresses or len(addresses) > _SHOWN_ADDRESSES:
        return str(row["networks"])
    return "\n".join(addresses)
