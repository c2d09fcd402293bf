"""``ringfence allow`` and ``deny``: the administrator's lists, by command.

Entries go to the daemon. With the daemon down they go to its database, and are in force when it starts. An
import is written to the database in any case: no request holds a million networks.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    console,
    errors_told,
    networks_from,
    opened,
    say,
    say_friends,
    settings_from,
    tell_of_friends,
)
from ringfence.errors import DaemonUnreachableError, ListError
from ringfence.exits import Exit
from ringfence.spans import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from ringfence.lists.files import ListFile
    from ringfence.lists.manager import Lists

_SHOWN_ADDRESSES = 4
_SPARED = ("ADDED (UTC)", "FROM", "ENDS (UTC)")
"""What goes first where a line has no room for everything."""
_NARROWEST_NOTE = 12
_LONGEST = 48
"""Columns: an IPv6 network is not as long; a name that is longer may take two lines."""
_RESOLVED_WITHIN = 3.0  # seconds
_LOOK_EVERY = 0.2
ALLOW, DENY = "allow", "deny"
STANDARD_INPUT = "standard input"

Rows = list[dict[str, Any]]
AllowArgument = Annotated[list[str], typer.Argument(metavar="ENTRY", help="Addresses, networks, names.")]
DenyArgument = Annotated[list[str], typer.Argument(metavar="ENTRY", help="Addresses and networks.")]
RemoveArgument = Annotated[
    list[str], typer.Argument(metavar="ENTRY", help="As they stand on the list, countries and numbers too.")
]
PlaceArgument = Annotated[
    list[str], typer.Argument(metavar="COUNTRY", help="Countries (DE) and network numbers (AS64496).")
]
NoteOption = Annotated[str, typer.Option(metavar="TEXT", help="What it is, for whoever reads the list.")]
ForOption = Annotated[
    str, typer.Option("--for", metavar="TIME", help="For how long, such as 2h; left out: for good.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Also what is protected, or very wide.")]

allow = typer.Typer(no_args_is_help=True, add_completion=False)
deny = typer.Typer(no_args_is_help=True, add_completion=False)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.add_typer(allow, name="allow", help="Say whom nothing bans: addresses, networks, names, countries.")
    app.add_typer(
        deny, name="deny", help="Say whom nothing lets in: addresses, networks, countries, block lists."
    )


@allow.command("add")
def allow_add(
    entries: AllowArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    note: NoteOption = "",
    length: ForOption = "",
) -> None:
    """Put entries on the list of those whom nothing bans; it wins over every ban."""
    _add(config, ALLOW, entries, note, length)


@deny.command("add")
def deny_add(
    entries: DenyArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    note: NoteOption = "",
    length: ForOption = "",
    force: ForceOption = False,
) -> None:
    """Put entries on the list of those whom nothing lets in but the other list."""
    _add(config, DENY, entries, note, length, force=force)


@allow.command("country")
def allow_country(
    countries: PlaceArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    note: NoteOption = "",
    length: ForOption = "",
) -> None:
    """Allow countries and network numbers; it takes a [geo] database."""
    _add(config, ALLOW, [_place(text) for text in countries], note, length)


@deny.command("country")
def deny_country(
    countries: PlaceArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    note: NoteOption = "",
    length: ForOption = "",
) -> None:
    """Deny countries and network numbers; it takes a [geo] database."""
    _add(config, DENY, [_place(text) for text in countries], note, length)


@allow.command("remove")
def allow_remove(entries: RemoveArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take entries off the list, as they stand on it."""
    with errors_told():
        _told("removed", *_asked(config, "allow_remove", what=entries))


@deny.command("remove")
def deny_remove(
    entries: Annotated[
        list[str] | None,
        typer.Argument(metavar="ENTRY", help="As they stand on the list, countries and numbers too."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    file: Annotated[str, typer.Option("--from", metavar="FILE", help="All that came from this file.")] = "",
) -> None:
    """Take entries off the list, as they stand on it, or all that were imported from a file."""
    if bool(entries) == bool(file):
        raise typer.BadParameter("name entries, or --from FILE")
    with errors_told():
        arguments = {"origin": _origin(file)} if file else {"what": entries}
        _told("removed", *_asked(config, "deny_remove", **arguments))


@allow.command("list")
def allow_list(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List whom nothing bans, and where each entry comes from."""
    _list(config, ALLOW, as_json=as_json)


@deny.command("list")
def deny_list(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List whom nothing lets in, and where each entry comes from."""
    _list(config, DENY, as_json=as_json)


@deny.command("import")
def deny_import(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A block list; - is standard input.")],
    config: ConfigOption = DEFAULT_CONFIG,
    note: NoteOption = "",
    force: Annotated[bool, typer.Option("--force", help="Also private and multicast networks.")] = False,
) -> None:
    """Deny what a block list holds; it replaces what was imported from the same file."""
    from ringfence.lists.files import read_list  # noqa: PLC0415 - loaded when the command runs
    from ringfence.lists.shelf import replace_imported  # noqa: PLC0415 - loaded when the command runs
    from ringfence.model import Side  # noqa: PLC0415 - loaded when the command runs
    from ringfence.store import Store  # noqa: PLC0415 - loaded when the command runs

    with errors_told():
        settings = settings_from(config)
        with opened(file) as source:
            found = read_list(source, everything=force)
        _tell_bad_lines(found)
        if not len(found.networks):
            raise ListError(f"{file} has no network that can be denied: the list stays as it was")
        with Store.open(settings.store.path, owner=False) as store:
            new, gone = replace_imported(
                store, Side.DENY, _origin(file), found.networks, note=note, now=time.time()
            )
        typer.echo(f"{len(found.networks)} networks of {found.lines} lines: {new} new, {gone} gone")
        problems, absent = _reload(config)
        if not absent:
            rows = cast("Rows", ask_daemon(config, "friends", quietly=True))
            say_friends(
                (row for row in rows if found.networks.around(*networks_from([row["address"]]))), "denied"
            )
        for problem in problems:
            say(problem)
        if found.bad_lines or problems:
            raise typer.Exit(Exit.PROBLEM)
        if absent:
            raise typer.Exit(Exit.UNREACHABLE)


def _reload(path: Path) -> tuple[list[str], bool]:
    """Have the daemon take what is in its database; give what is wrong then, and whether there is none."""
    try:
        problems: list[str] = ask_daemon(path, "lists_reload")["problems"]
    except DaemonUnreachableError as error:
        say(f"this takes effect when the daemon starts: {error}")
        return [], True
    # What is wrong with the other list is in `status`: no reason to take this import for a failure.
    return [problem for problem in problems if not problem.startswith(f"{ALLOW} list:")], False


def _add(path: Path, side: str, entries: list[str], note: str, length: str, *, force: bool = False) -> None:
    seconds = _seconds(length)
    with errors_told():
        do = f"{side}_add"
        answer, absent = _asked(path, do, what=entries, note=note, seconds=seconds, force=force)
        if not absent:
            _look_closer(path, side, answer["done"])
        _told(f"on the {side} list" + (f" for {span(seconds)}" if seconds else ""), answer, absent)


def _look_closer(path: Path, side: str, done: "Sequence[str]") -> None:
    """Say of new entries what their writer may not expect: a name without an address, a friend who is out."""
    from ringfence.lists.entries import Kind, what_from  # noqa: PLC0415 - loaded when the command runs

    whats = [what_from(text) for text in done]
    networks = [what.network for what in whats if what.network is not None]
    if side == DENY and networks:
        tell_of_friends(path, networks, "denied")
    names = {what.text for what in whats if what.kind is Kind.HOST}
    until = time.monotonic() + _RESOLVED_WITHIN
    while names and time.monotonic() < until:
        rows = ask_daemon(path, "lists", quietly=True, side=side)
        names = {row["entry"] for row in rows if row["entry"] in names and not row["networks"]}
        time.sleep(_LOOK_EVERY if names else 0.0)
    for name in sorted(names):
        say(
            f"{name} leads nowhere yet: the DNS gives no address, so nobody is allowed by it; is it misspelt?"
        )


def _seconds(length: str) -> float | None:
    from ringfence.values import parse_duration  # noqa: PLC0415 - loaded when the command runs

    try:
        return parse_duration(length) if length else None
    except ValueError as error:
        raise typer.BadParameter(f"--for {error}") from None


def _place(text: str) -> str:
    from ringfence.lists.entries import place_from  # noqa: PLC0415 - loaded when the command runs

    try:
        return place_from(text).text
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from None


def _origin(file: str) -> str:
    """Name a file as the list does: by its whole path, wherever it was named from."""
    return STANDARD_INPUT if file in {"-", STANDARD_INPUT} else str(Path(file).absolute())


def _tell_bad_lines(found: "ListFile") -> None:
    for bad in found.bad:
        say(str(bad))
    if found.bad_lines > len(found.bad):
        say(f"and {found.bad_lines - len(found.bad)} bad lines more")
    if found.left_out:
        shown = ", ".join(found.left_out[:_SHOWN_ADDRESSES])
        more = ", ..." if len(found.left_out) > _SHOWN_ADDRESSES else ""
        say(f"left out, since your own network may use it: {shown}{more}; --force takes it too")


def _asked(path: Path, do: str, **arguments: object) -> "tuple[Mapping[str, list[str]], str]":
    """Have the daemon do it, or do it in its database; give the answer, and why it was not the daemon."""
    try:
        return ask_daemon(path, do, quietly=False, **arguments), ""
    except DaemonUnreachableError as error:
        return _by_ourselves(path, do, arguments), str(error)


def _by_ourselves(path: Path, do: str, arguments: "Mapping[str, object]") -> Any:  # noqa: ANN401 - as the daemon answers
    """Answer as the daemon would, by its database."""
    import asyncio  # noqa: PLC0415 - loaded when the command runs

    from ringfence.folders import make_folder  # noqa: PLC0415 - loaded when the command runs
    from ringfence.store import Store  # noqa: PLC0415 - loaded when the command runs

    settings = settings_from(path)
    make_folder(settings.store.path.parent)  # the unit may never have been started
    with Store.open(settings.store.path, owner=False) as store:
        lists: Lists = _lists(settings, store)
        return asyncio.run(lists.handlers()[do](arguments))


def _lists(settings: Any, store: Any) -> "Lists":  # noqa: ANN401 - types that are loaded when a command runs
    from ringfence.lists.manager import Lists  # noqa: PLC0415 - loaded when the command runs

    lists = Lists(store, settings.lists(), lambda _rolls: None, now=time.time)
    lists.load()
    return lists


def _told(done: str, answer: "Mapping[str, list[str]]", absent: str) -> None:
    """Say what was done and what was not, and end with the exit code that it means."""
    if answer["done"]:
        typer.echo(f"{done}: " + ", ".join(answer["done"]))
    for line in [*answer["notes"], *answer["problems"]]:
        say(line)
    if absent and answer["done"]:
        say(f"this takes effect when the daemon starts: {absent}")
    if answer["problems"]:
        raise typer.Exit(Exit.PROBLEM)
    if absent:
        raise typer.Exit(Exit.UNREACHABLE)


def _list(path: Path, side: str, *, as_json: bool) -> None:
    with errors_told():
        rows, absent = _asked(path, "lists", side=side)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        else:
            _print(cast("Rows", rows), side, absent=bool(absent))
        if absent:
            say("The daemon is not running: this is read from its configuration and its database.")


def _print(rows: Rows, side: str, *, absent: bool) -> None:
    to = console()
    if not rows:
        to.print(f"Nobody is on the {side} list.")
        return
    columns = {
        "ENTRY": [row["entry"] for row in rows],
        "NETWORKS": [_leads_to(row, absent=absent) for row in rows],
        "FROM": ["file" if row["file"] else row["source"] for row in rows],
        "ADDED (UTC)": [_short(row["added"]) for row in rows],
        "ENDS (UTC)": [_short(row["ends"]) for row in rows],
        "NOTE": [row["note"] + (" (forced)" if row["forced"] else "") for row in rows],
    }
    # What is empty in every row would take the room of what is not.
    shown = {head: cells for head, cells in columns.items() if any(cells)}
    widths = {
        head: max(len(line) for cell in cells for line in cell.split("\n")) for head, cells in shown.items()
    }
    note = min(widths.get("NOTE", 0), _NARROWEST_NOTE)
    for spared in _SPARED:
        if sum(widths.values()) - widths.get("NOTE", 0) + note + 2 * (len(widths) - 1) <= to.width:
            break
        shown.pop(spared, None)
        widths.pop(spared, None)
    to.print(_table(shown))


def _table(columns: "Mapping[str, list[str]]") -> "Table":
    """Give the table; what may be copied out of it stands in one piece, where lines are long enough."""
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head, cells in columns.items():
        longest = max(len(line) for cell in cells for line in cell.split("\n"))
        table.add_column(
            head,
            overflow="fold",
            justify="right" if head == "NETWORKS" else "left",
            no_wrap=head != "NOTE" and longest <= _LONGEST,
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


def _leads_to(row: "Mapping[str, Any]", *, absent: bool) -> str:
    if row["networks"] is None:
        return "nowhere" if "." in row["entry"] and not absent else "?"
    addresses = row["leads_to"]
    if not addresses or len(addresses) > _SHOWN_ADDRESSES:
        return str(row["networks"])
    return "\n".join(addresses)


def _short(moment: str | None) -> str:
    return (moment or "").replace("T", " ").removesuffix("Z")[:16]
