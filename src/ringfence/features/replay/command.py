"""``ringfence replay``: show which addresses the rules would have banned in past logs.

An address that logged in after such a ban was probably banned wrongly.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from ringfence import CONFIG_VARIABLE
from ringfence.cli.output import JsonOption, echo, echo_stderr, errors_reported, head, short_time
from ringfence.cli.screen import Screen, table_of
from ringfence.detect.rules import RULES
from ringfence.errors import Exit, SourceError
from ringfence.features.replay.files import File, ReplayInput, in_order, inspect, original
from ringfence.features.replay.run import AddressOutcome, Replay
from ringfence.features.replay.run import replay as run
from ringfence.plurals import counted
from ringfence.values.event import AMI, SourceId
from ringfence.values.network import NetworkSet, parse_network
from ringfence.values.text import rfc3339

if TYPE_CHECKING:
    from datetime import tzinfo

    from rich.table import Table

    from ringfence.config.schema import Settings
    from ringfence.parse.custom import Custom

MAX_SHOWN = 50
"""The maximum number of addresses in the table for people. JSON contains all."""

LOOPBACK = ("127.0.0.0/8", "::1/128")
ASTERISK = "asterisk"
BAR_INTERVAL = 0.1  # seconds between two updates of the progress bar


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Logs of one Asterisk, rotated ones too, and AMI recordings."),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Configuration whose rules and networks are tried; default: the built-in rules.",
            envvar=CONFIG_VARIABLE,
        ),
    ] = None,
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", metavar="ZONE", help="Time zone of the logs, such as UTC; default: as configured."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show which addresses would have been banned in past logs and AMI recordings. Changes nothing."""
    began = time.perf_counter()
    with errors_reported():
        settings, zone = _configured(config, timezone)
        inputs = _inputs(files, zone, settings)
        past = _replayed(inputs, settings)
    echo_stderr(*past.warnings)
    number = sum(len(replay_input.files) for replay_input in inputs)
    rows = sorted(past.outcomes, key=_order)
    if as_json:
        _print_json(past, rows, number, time.perf_counter() - began)
    else:
        _print(past, rows, number)


def _configured(config: Path | None, timezone: str) -> "tuple[Settings | None, tzinfo | None]":
    """Return the settings and the time zone that the user chose; None for each that is absent."""
    if config is None and not timezone:
        return None, None
    from ringfence.cli.common import settings_from, zone_from  # noqa: PLC0415 - 6 MB that few calls need

    zone = zone_from(timezone)
    return (None if config is None else settings_from(config)), zone


def _inputs(paths: Sequence[Path], zone: "tzinfo | None", settings: "Settings | None") -> "list[ReplayInput]":
    """Inspect the files, and group the rotated files of each log; return one input for each group.

    ``zone`` is the time zone of all logs; None for the configured one. A file that cannot be read is reported
    and left out. Without any readable file the command ends with an error.
    """
    files: list[File] = []
    for path in paths:
        try:
            files.append(inspect(path, _plan_of(path, zone, settings)[1]))
        except SourceError as error:
            echo_stderr(f"left out: {error}")
    if not files:
        echo_stderr(
            "no file is left to replay; fix: give the logs of Asterisk, such as /var/log/asterisk/messages*"
        )
        raise typer.Exit(Exit.PROBLEM)
    inputs: list[ReplayInput] = []
    for group in in_order(files):
        for file in group:
            if not file.known:
                echo_stderr(f"{file.path}: no line near its beginning was written by Asterisk")
        asterisk, timezone, customs = _plan_of(group[0].path, zone, settings)
        recordings = sum(replay_input.source.name.startswith(AMI) for replay_input in inputs)
        ami = f"{AMI}:{recordings}" if recordings else AMI
        name = ami if group[0].is_ami else f"log:{group[0].path}"
        inputs.append(ReplayInput(SourceId(asterisk, name), group, timezone, customs))
    return inputs


def _plan_of(
    path: Path, zone: "tzinfo | None", settings: "Settings | None"
) -> "tuple[str, tzinfo | None, tuple[Custom, ...]]":
    """Return the name of the Asterisk that wrote the log ``path``, the log's time zone, and line patterns.

    The time zone is ``zone`` if that is given, otherwise the configured one. None is the time zone of this
    host. The patterns match the additional log lines that the administrator has configured. A log that the
    configuration does not name is taken for a log of the first PBX. Without ``settings``, the name is a
    default, and there are no patterns.
    """
    if settings is None:
        return ASTERISK, zone, ()
    name = original(path.absolute())[0]
    pbx = next((one for one in settings.asterisk if name in (one.logs.paths or ())), settings.asterisk[0])
    return pbx.name, zone or pbx.logs.timezone, pbx.logs.patterns


def _replayed(inputs: "Sequence[ReplayInput]", settings: "Settings | None") -> "Replay":
    rules = RULES if settings is None else settings.rule_table()
    allowed = () if settings is None else settings.allow.networks
    exempt = NetworkSet((*map(parse_network, LOOPBACK), *allowed))
    with _bar(sum(replay_input.size for replay_input in inputs)) as progress:
        return run(inputs, rules, exempt, progress)


@contextmanager
def _bar(size: int) -> "Iterator[Callable[[int], None]]":
    """Show a progress bar while the block runs, if standard error is a terminal.

    ``size`` is the number of bytes to read. Yield a function, which the block calls with the number of bytes
    that are read so far.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    # Auto-refresh is off, because its thread would slow down the replay.
    columns = (BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=Screen(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=size)
        shown = time.monotonic()

        def progress(read: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= BAR_INTERVAL:
                shown = now
                bar.update(task, completed=read, refresh=True)

        yield progress


def _order(row: "AddressOutcome") -> tuple[bool, bool, float, int]:
    """Return a sort key for addresses.

    Addresses that logged in after a ban come first, then the other banned ones; both are sorted by the time
    of the first ban. Addresses without a ban come last, those with the most attempts first.
    """
    return not row.later_succeeded, not row.bans, row.bans[0] if row.bans else 0.0, -row.attempts


def _print_json(past: "Replay", rows: "Sequence[AddressOutcome]", files: int, seconds: float) -> None:
    """Print the results as one JSON object: the totals, and the outcome of each address.

    ``past`` has the totals, except ``files`` (the number of files) and ``seconds`` (the duration of the
    replay). Addresses are encoded one by one, which needs less memory.
    """
    totals = {
        "files": files,
        "lines": past.lines,
        "events": past.events,
        "attempts": past.attempts,
        "tampered": past.tampered,
        "seconds": round(seconds, 3),
        "first": _moment(past.first),
        "last": _moment(past.last),
        "evicted": past.outcomes.evicted,
        "forgotten": past.forgotten,
    }
    addresses = ", ".join(json.dumps(_as_object(row)) for row in rows)
    echo(f'{json.dumps(totals)[:-1]}, "addresses": [{addresses}]}}')


def _as_object(row: "AddressOutcome") -> dict[str, object]:
    return {
        "address": row.name,
        "attempts": row.attempts,
        "events": row.events,
        "banned_at_attempt": row.banned_at_attempt,
        "rule": row.rule,
        "later_succeeded": row.later_succeeded,
        "banned_at": _moment(row.bans[0]) if row.bans else None,
        "bans": len(row.bans),
        "unconfirmed": row.unconfirmed,
        "exempt": row.exempt,
    }


def _moment(seconds: float) -> str | None:
    return rfc3339(seconds) if isfinite(seconds) else None


def _print(past: "Replay", rows: "Sequence[AddressOutcome]", files: int) -> None:
    tried = [row for row in rows if row.attempts]
    if tried:
        Screen().print(_table(tried[:MAX_SHOWN]))
    if len(tried) > MAX_SHOWN:
        echo(f"and {len(tried) - MAX_SHOWN} more; --json lists all of them")
    if past.outcomes.evicted:
        addresses = counted(past.outcomes.evicted, "address is", "addresses are")
        echo(f"{addresses} not listed: the table of addresses was full")
    if past.forgotten:
        discarded = counted(past.forgotten, "session or attempt was", "sessions and attempts were")
        echo(f"{discarded} discarded: tables were full, so totals may be wrong")
    banned = [row for row in rows if row.bans]
    hurt = sum(row.later_succeeded for row in banned)
    echo(
        f"{counted(past.lines, 'line')} of {counted(files, 'file')}: {counted(past.events, 'event')}, "
        f"{counted(past.attempts, 'attempt')}, {past.tampered} tampered"
    )
    echo(f"{len(banned)} would have been banned; {hurt} of them logged in later")


def _table(rows: "Sequence[AddressOutcome]") -> "Table":
    columns = {
        "ADDRESS": [row.name for row in rows],
        "ATTEMPTS": [str(row.attempts) for row in rows],
        head("BANNED"): [short_time(_moment(row.bans[0]), "") if row.bans else "-" for row in rows],
        "AFTER": [str(row.banned_at_attempt or "") for row in rows],
        "RULE": [row.rule or "" for row in rows],
        "NOTE": [_note(row) for row in rows],
    }
    return table_of(columns, right=("ATTEMPTS", "AFTER"), wrapped=("ADDRESS", "NOTE"))


def _note(row: "AddressOutcome") -> str:
    """Return the text of the column NOTE: facts such as a later login or several bans; "" if none applies."""
    notes = [
        "logged in later" if row.later_succeeded else "",
        f"{len(row.bans)} bans" if len(row.bans) > 1 else "",
        "exempt" if row.exempt else "",
        f"{row.unconfirmed} unconfirmed" if row.unconfirmed else "",
    ]
    return ", ".join(filter(None, notes))
