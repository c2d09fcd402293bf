"""``ringfence bans --past``: list the bans that ended.

It also has the functions for the cells RULE and ACCOUNT, which all tables of bans use.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.cli import output
from ringfence.cli.common import ask_or_read
from ringfence.cli.output import echo, echo_json, echo_stderr
from ringfence.cli.screen import Screen, add_row, fitting, plain_table
from ringfence.clock import format_duration

if TYPE_CHECKING:
    from rich.table import Table

_OPTIONAL_COLUMNS = ("BAN", "AFTER", "SINCE")
"""Columns that are left out one after the other, in this order, until the table fits the screen."""
_MAX_ACCOUNT = 12
_PLAIN_FROM = 1_000
"""The number of bans from which a list is printed without a table, because a large table takes long."""

Rows = list[dict[str, Any]]


def show_past(path: Path, wanted: list[str] | None, seconds: float | None, *, as_json: bool) -> None:
    """Print the bans that ended in the last ``seconds``; None for all that the database keeps.

    ``path`` is the configuration. With ``wanted``, only bans of these networks are printed, or of networks
    around or inside them.
    """
    arguments: dict[str, Any] = {"networks": wanted} if wanted is not None else {}
    if seconds is not None:
        arguments["seconds"] = seconds
    rows, live = ask_or_read(path, "past_bans", **arguments)
    if as_json:
        echo_json(rows)
    elif rows:
        _print(rows)
    else:
        echo("No ban ended in this time.")
    if not live:
        echo_stderr("The daemon is not running: the list is read from its database.")


def account_cell(row: dict[str, Any]) -> str:
    """Return the account of a ban, and how many further accounts its attempts tried: ``204 +3``.

    A long account is cut. Return "-" if the ban has no account.
    """
    if not row["account"]:
        return "-"
    more = f" +{row['accounts'] - 1}" if row["accounts"] > 1 else ""
    account = str(row["account"])
    room = _MAX_ACCOUNT - len(more)
    return (account if len(account) <= room else account[: room - 1] + "…") + more


def rule_cell(row: dict[str, Any]) -> str:
    """Return the rule of a ban; "?" if it is unknown.

    If the ban does not drop all packets, what it drops follows in brackets: ``guess (sip-udp)``.
    """
    rule = row["rule"] or "?"
    return rule if row["scope"] == "full" else f"{rule} ({row['scope']})"


def _print(rows: Rows) -> None:
    if len(rows) >= _PLAIN_FROM:
        echo("  ".join(_columns(rows[:1])))
        for row in rows:
            echo("  ".join(cells[0] for cells in _columns([row]).values()))
        return
    to = Screen(whole_lines=True)
    to.print(fitting((_table(rows, number) for number in range(len(_OPTIONAL_COLUMNS) + 1)), to))


def _columns(rows: Rows) -> dict[str, list[str]]:
    return {
        "ADDRESS": [row["address"] for row in rows],
        "RULE": [rule_cell(row) for row in rows],
        "ACCOUNT": [account_cell(row) for row in rows],
        "BAN": [f"{row['offence']}." for row in rows],
        "SINCE": [output.short_time(row["since"]) for row in rows],
        output.head("ENDED"): [output.short_time(row["ended"]) for row in rows],
        "AFTER": [_lasted(row) for row in rows],
        "HOW": [row["end"] for row in rows],
    }


def _lasted(row: dict[str, Any]) -> str:
    since, ended = (datetime.fromisoformat(row[key]).timestamp() for key in ("since", "ended"))
    return format_duration(max(0.0, ended - since))


def _table(rows: Rows, without: int) -> "Table":
    """Return the table of bans. It lacks the first ``without`` columns of _OPTIONAL_COLUMNS."""
    left_out = _OPTIONAL_COLUMNS[:without]
    columns = {head: cells for head, cells in _columns(rows).items() if head not in left_out}
    table = plain_table()
    for head in columns:
        fold = head == "ADDRESS"
        table.add_column(head, no_wrap=not fold, overflow="fold" if fold else "ellipsis")
    for row in zip(*columns.values(), strict=True):
        add_row(table, row)
    return table
