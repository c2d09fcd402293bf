"""``ringfence why ACCOUNT``: show everything known about an account, and advice."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.cli import times
from ringfence.cli.common import alarm_line, ask_daemon, settings_from
from ringfence.cli.times import short_time
from ringfence.errors import DaemonUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from ringfence.cli.screen import Screen

Document = dict[str, Any]


def account_facts(path: Path, account: str) -> Document:
    """Return the facts about ``account`` as a JSON object, from the daemon or, without one, its database."""
    try:
        found: Document = ask_daemon(path, "why_account", account=account)
    except DaemonUnreachableError:
        from ringfence.explain.account_json import account_document  # noqa: PLC0415 - loaded when needed
        from ringfence.explain.account_offline import account_offline  # noqa: PLC0415 - loaded when needed

        return account_document(account_offline(settings_from(path), account, time.time()))
    return found


def print_account(found: Document, screen: "Screen") -> None:
    """Print the facts of an account for people. ``found`` is as :func:`account_facts` returns it."""
    from ringfence.cli.screen import show_facts  # noqa: PLC0415 - loaded when the command runs
    from ringfence.explain.headlines import BAD_VERDICTS, account_headline  # noqa: PLC0415 - loaded when it runs

    style = "bold red" if found["verdict"] in BAD_VERDICTS else "bold"
    screen.show(account_headline(found), style=style)
    for alarm in found["alarms"]:
        screen.show(alarm_line(alarm), style="bold red", indent=2)
    screen.show()
    show_facts(_lines(found), screen)
    if found["failures"]:
        screen.show()
        screen.print(_failures(found["failures"], screen))


def _lines(found: Document) -> "Iterator[tuple[str, str]]":
    for home in found["addresses"]:
        state = "at" if home["current"] else "was at"
        until = f"until {short_time(home['until'])}"
        banned = ", banned" if home["banned"] else ""
        yield "phone", f"{state} {home['address']} ({home['reason']}), {until}{banned}"
    if not found["addresses"]:
        yield "phone", "not registered, as far as Asterisk reported"
    success = found["last_success"]
    if success is not None:
        how = "password" if success["reason"] == "authenticated" else success["reason"]
        yield "success", f"{short_time(success['seen'])} from {success['address']} ({how})"
    for ban in found["bans"]:
        of = "" if ban["network"] == ban["address"] else f" (of {ban['network']})"
        until = f"until {short_time(ban['expires'])}"
        yield "ban", f"{ban['address']}{of}: {ban['rule']}, since {short_time(ban['since'])}, {until}"
    failures = found["failures"]
    if failures:
        last = failures[0]
        yield "failure", f"{short_time(last['last'])} from {last['address']}: {last['reason']}"
    yield "do", found["advice"]


def _failures(failures: list[Document], screen: "Screen") -> "Table":
    from ringfence.cli.screen import fitting  # noqa: PLC0415 - loaded when the command runs

    return fitting((_table(failures, left_out) for left_out in ((), ("FIRST",), ("FIRST", "BY"))), screen)


def _table(failures: list[Document], left_out: tuple[str, ...]) -> "Table":
    from ringfence.cli.screen import add_row, plain_table  # noqa: PLC0415 - loaded when the command runs

    columns = {
        "FAILED AT": [one["address"] for one in failures],
        "REASON": [one["reason"] for one in failures],
        "TIMES": [str(one["times"]) for one in failures],
        "FIRST": [short_time(one["first"]) for one in failures],
        times.head("LAST"): [short_time(one["last"]) for one in failures],
        "BY": [f"{one['service']} {one['transport']}" for one in failures],
        "NOTE": [_note(one) for one in failures],
    }
    table = plain_table()
    shown = {head: cells for head, cells in columns.items() if head not in left_out and any(cells)}
    for head in shown:
        table.add_column(head, justify="right" if head == "TIMES" else "left", no_wrap=head != "FAILED AT")
    for row in zip(*shown.values(), strict=True):
        add_row(table, row)
    return table


def _note(one: Document) -> str:
    notes = ["worked there"] if one["worked"] else []
    return ", ".join([*notes, "banned"] if one["banned"] else notes)
