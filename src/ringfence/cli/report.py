"""``ringfence report``: report a period's attempts and bans, on the terminal or as one page of HTML."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli import times
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    alarm_line,
    ask,
    counted,
    duration_from,
    errors_reported,
    settings_from,
)
from ringfence.cli.history import history_lines
from ringfence.cli.output import echo_json, echo_stderr
from ringfence.cli.sparkline import has_blocks
from ringfence.cli.times import short_time
from ringfence.clock import format_duration
from ringfence.errors import DaemonUnreachableError, WebError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.table import Table

    from ringfence.cli.screen import Screen
    from ringfence.config.loader import Settings
    from ringfence.report.summary import ReportAnswers

Document = dict[str, Any]

_TOP_DAYS = 31
"""The number of days for which the attempts of each address and account are kept."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line ``app``."""
    app.command()(report)


def report(
    config: ConfigOption = DEFAULT_CONFIG,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far to look back, such as 24h, 7d or 4w.")
    ] = "7d",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page of HTML to this file.")
    ] = None,
    local: times.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Report what happened: attempts, who made them, bans, and broken phones."""
    times.choose(local=local)
    seconds = duration_from("--since", since)
    with errors_reported():
        settings = settings_from(config)
        found = _found(settings, seconds)
        if html is not None:
            _write(html, found)
    if as_json:
        echo_json(found)
    elif html is None:
        from ringfence.cli.screen import Screen  # noqa: PLC0415 - loaded when the command runs

        _print(found, Screen(whole_lines=True))
    if seconds > _TOP_DAYS * 86_400:
        echo_stderr(f"Addresses and accounts are those of the last {_TOP_DAYS} days.")


def _found(settings: "Settings", seconds: float) -> Document:
    """Return the report, from the daemon's answers, or without a daemon from its database.

    Raise DaemonUnreachableError if there is no database either.
    """
    from ringfence.report.summary import summary_of  # noqa: PLC0415 - loaded when the command runs

    try:
        answers = _asked(settings, seconds)
    except DaemonUnreachableError:
        if not settings.store.path.exists():
            raise
        answers = _offline(settings, seconds)
        echo_stderr("The daemon is not running: this is what it has recorded.")
    return summary_of(answers)


def _asked(settings: "Settings", seconds: float) -> "ReportAnswers":
    from ringfence.report.summary import ReportAnswers  # noqa: PLC0415 - loaded when the command runs

    addresses = ask(settings, "tops", kind="addresses", seconds=seconds)
    return ReportAnswers(
        ask(settings, "history", seconds=seconds),
        ask(settings, "past_bans", seconds=seconds),
        addresses,
        ask(settings, "tops", kind="accounts", seconds=seconds),
        [*ask(settings, "alarms"), *ask(settings, "alarms", past=True, seconds=seconds)],
        ask(settings, "status"),
        _locations(settings, addresses),
    )


def _offline(settings: "Settings", seconds: float) -> "ReportAnswers":
    from ringfence.daemon.past_bans import past_bans  # noqa: PLC0415 - loaded when the command runs
    from ringfence.daemon.timeline_json import read_history  # noqa: PLC0415 - loaded when the command runs
    from ringfence.daemon.tops import recorded_tops  # noqa: PLC0415 - loaded when the command runs
    from ringfence.report.summary import ReportAnswers  # noqa: PLC0415 - loaded when the command runs
    from ringfence.store.database import Store  # noqa: PLC0415 - loaded when the command runs

    now = time.time()
    with Store.open(settings.store.path, owner=False) as store:
        addresses = recorded_tops(store.tops, "addresses", now - seconds)
        records = [*store.alarms.active(), *store.alarms.past(now - seconds, 2_000)]
        return ReportAnswers(
            read_history(store.timeline, seconds, now),
            [*past_bans(store.bans, now - seconds, now, None)],
            addresses,
            recorded_tops(store.tops, "accounts", now - seconds),
            [record.as_json() for record in records],
            None,
            _locations(settings, addresses),
        )


def _locations(settings: "Settings", rows: "Sequence[Mapping[str, Any]]") -> dict[str, dict[str, str]]:
    """Return the country and the network of each address, as far as the configured databases have them.

    The keys are the addresses as ``rows`` name them. The values have ``country``, ``asn`` (the number of the
    network) and ``organisation`` (its operator).
    """
    if not settings.geo.database:
        return {}
    from ipaddress import ip_network  # noqa: PLC0415 - loaded if there is a database

    from ringfence.lists.geo import locations_of  # noqa: PLC0415 - loaded if there is a database

    names = [str(row["name"]) for row in rows]
    found = locations_of(settings.geo.database, [ip_network(name).network_address for name in names])
    return dict(zip(names, found, strict=True))


def _write(file: Path, found: Document) -> None:
    try:
        from ringfence.web.report_page import report_page  # noqa: PLC0415 - loaded when the command runs
    except ModuleNotFoundError as error:
        raise WebError(
            f"a page needs the Python package {error.name}; fix: pip install 'ringfence[web]'"
        ) from None
    try:
        file.write_text(report_page(found), "utf-8")
    except OSError as error:
        raise WebError(f"cannot write {file}: {error.strerror}") from None


# -- on a terminal


def _print(found: Document, to: "Screen") -> None:
    import sys  # noqa: PLC0415 - loaded when the command runs

    for line in history_lines(found["history"], utf8=has_blocks(sys.stdout.encoding)):
        to.show(line)
    for title, names, rows in _tables(found):
        if rows:
            to.show()
            to.show(title, style="bold")
            to.print(_table(names, rows))
    to.show()
    to.show("Phones that need a person", style="bold")
    for row in found["phones"]:
        cleared = f" (cleared {short_time(row['cleared'])})" if row.get("cleared") else ""
        to.show(f"{alarm_line(row)}{cleared}", indent=2)
    if not found["phones"]:
        to.show("none")
    to.show()
    for line in _closing(found):
        to.show(line, indent=2)


def _tables(found: Document) -> "Iterator[tuple[str, list[str], list[list[str]]]]":
    """Yield each table of the report: its title, the heads of its columns, and its rows."""
    for kind, head in (("addresses", "ADDRESS"), ("accounts", "ACCOUNT")):
        rows = [[row["name"], str(row["attempts"]), _note(kind, row)] for row in found[kind]]
        yield f"{kind.capitalize()} with the most attempts", [head, "ATTEMPTS", "NOTE"], rows
    for kind, head in (("networks", "NETWORK"), ("countries", "COUNTRY"), ("operators", "OPERATOR")):
        rows = [[row["name"], str(row["attempts"]), str(row["addresses"])] for row in found[kind]]
        yield kind.capitalize(), [head, "ATTEMPTS", "ADDRESSES"], rows
    lengths = [[row["name"], str(row["bans"])] for row in found["held"]["lengths"]]
    yield "How long bans held", ["TIME", "BANS"], lengths if found["held"]["bans"] else []


def _note(kind: str, row: "Mapping[str, Any]") -> str:
    known = ("friend" if kind == "addresses" else "works here") if row["known"] else ""
    where = " ".join(filter(None, (row.get("country"), row.get("asn"), row.get("organisation"))))
    return ", ".join(filter(None, (known, "banned" if row["banned"] else "", where)))


def _table(names: list[str], rows: list[list[str]]) -> "Table":
    from ringfence.cli.screen import add_row, plain_table  # noqa: PLC0415 - loaded when the command runs

    table = plain_table()
    for name in names:
        number = name in {"ATTEMPTS", "ADDRESSES", "BANS"}
        table.add_column(
            name, justify="right" if number else "left", no_wrap=True, max_width=None if number else 48
        )
    for row in rows:
        add_row(table, row)
    return table


def _closing(found: Document) -> "Iterator[str]":
    held = found["held"]
    if held["bans"]:
        ends = ", ".join(f"{number} {end}" for end, number in held["ends"].items())
        half = f", half of them after {format_duration(held['median'])}"
        yield f"{counted(held['bans'], 'ban')} ended ({ends}){half}; {held['repeated']} were repeated bans."
    dropped = found["dropped"]
    if dropped is not None:
        packets = counted(dropped["limiter"], "packet")
        yield f"Since the rules were made, the limiter dropped {packets}."
        for row in dropped["rules"]:
            yield f"{row['rule']}: {counted(row['packets'], 'packet')}"
