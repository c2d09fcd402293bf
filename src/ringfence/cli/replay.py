"""``ringfence replay``: who would have been banned in the past, and who should not have been."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli.common import JsonOption, errors_told, say, settings_from, zone_from
from ringfence.errors import SourceError
from ringfence.exits import Exit

if TYPE_CHECKING:
    from datetime import tzinfo

    from rich.table import Table

    from ringfence.config import Settings
    from ringfence.parse.custom import Custom
    from ringfence.replay.account import Row
    from ringfence.replay.files import File
    from ringfence.replay.run import Replay
    from ringfence.replay.story import Story

MOST_SHOWN = 50
"""So many addresses are shown to people; scripts get all."""

WORTH_A_PROCESS = 1024 * 1024
"""What is shorter (bytes) is read before a process has begun to."""

MOST_BESIDE = 4

LOOPBACK = ("127.0.0.0/8", "::1/128")
ASTERISK = "asterisk"
BAR_EVERY = 0.1  # seconds


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(replay)


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Logs of an Asterisk, with the rotated ones, and AMI recordings."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="A configuration whose rules and networks are tried; default: what ringfence has built in.",
            envvar="RINGFENCE_CONFIG",
        ),
    ] = None,
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", metavar="ZONE", help="The logs' time zone, such as UTC; default: as configured."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Say who would have been banned, by logs and AMI recordings of the past. Changes nothing."""
    began = time.perf_counter()
    zone = zone_from(timezone)
    with errors_told():
        settings = None if config is None else settings_from(config)
        stories = _stories(files, zone, settings)
        past = _replayed(stories, settings)
    for warning in past.warnings:
        say(warning)
    number = sum(len(story.files) for story in stories)
    rows = sorted(past.accounts, key=_order)
    if as_json:
        typer.echo(json.dumps(_as_object(past, rows, number, time.perf_counter() - began)))
    else:
        _print(past, rows, number)


def _stories(paths: Sequence[Path], zone: "tzinfo | None", settings: "Settings | None") -> "list[Story]":
    """Look at every file, and put together what belongs together. What is wrong is said, all of it."""
    from ringfence.model import AMI, SourceId  # noqa: PLC0415 - loaded when the command runs
    from ringfence.replay.files import in_order, look_at  # noqa: PLC0415 - loaded when the command runs
    from ringfence.replay.story import Story  # noqa: PLC0415 - loaded when the command runs

    files: list[File] = []
    failed = False
    for path in paths:
        try:
            files.append(look_at(path, _plan_of(path, zone, settings)[1]))
        except SourceError as error:
            say(str(error))
            failed = True
    if failed:
        raise typer.Exit(Exit.PROBLEM)
    stories: list[Story] = []
    for group in in_order(files):
        for file in group:
            if not file.known:
                say(f"{file.path}: no line near its beginning is one of Asterisk's")
        asterisk, timezone, customs = _plan_of(group[0].path, zone, settings)
        recordings = sum(story.source.witness.startswith(AMI) for story in stories)
        ami = f"{AMI}:{recordings}" if recordings else AMI
        witness = ami if group[0].is_ami else f"log:{group[0].path}"
        stories.append(Story(SourceId(asterisk, witness), group, timezone, customs))
    return stories


def _plan_of(
    path: Path, zone: "tzinfo | None", settings: "Settings | None"
) -> "tuple[str, tzinfo | None, tuple[Custom, ...]]":
    """Give the Asterisk that a log is of, its time zone, and the patterns of the administrator's for it."""
    if settings is None:
        return ASTERISK, zone, ()
    from ringfence.replay.files import original  # noqa: PLC0415 - loaded when the command runs
    from ringfence.targets import logs_of  # noqa: PLC0415 - loaded when the command runs

    plans = [logs_of(pbx) for pbx in settings.asterisk]
    name = original(path.absolute())[0]
    plan = next((plan for plan in plans if name in (plan.paths or ())), plans[0])
    return plan.asterisk, zone or plan.timezone, plan.customs


def _replayed(stories: "Sequence[Story]", settings: "Settings | None") -> "Replay":
    from ringfence.detect.networks import NetworkSet  # noqa: PLC0415 - loaded when the command runs
    from ringfence.detect.rules import RULES  # noqa: PLC0415 - loaded when the command runs
    from ringfence.model import network_from  # noqa: PLC0415 - loaded when the command runs
    from ringfence.replay.run import replay as run  # noqa: PLC0415 - loaded when the command runs

    rules = RULES if settings is None else settings.rule_table()
    allowed = () if settings is None else settings.allow.networks
    never = NetworkSet((*map(network_from, LOOPBACK), *allowed))
    size = sum(story.size for story in stories)
    processors = len(os.sched_getaffinity(0))
    beside = min(processors, MOST_BESIDE) if processors > 1 and size >= WORTH_A_PROCESS else 0
    with _bar(size) as progress:
        return run(stories, rules, never, beside=beside, progress=progress)


@contextmanager
def _bar(size: int) -> "Iterator[Callable[[int], None]]":
    """Show on a terminal how far it is."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - loaded when the command runs
    from rich.progress import (  # noqa: PLC0415 - loaded when the command runs
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
    )

    # Without a thread of its own, which would take the time of what it shows.
    columns = (BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=size)
        shown = time.monotonic()

        def progress(read: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= BAR_EVERY:
                shown = now
                bar.update(task, completed=read, refresh=True)

        yield progress


def _order(row: "Row") -> tuple[bool, bool, float, int]:
    """Sort who logged in later first, then by the time of the ban, and who was never banned by attempts."""
    return not row.later_succeeded, not row.bans, row.bans[0] if row.bans else 0.0, -row.attempts


def _as_object(past: "Replay", rows: "Sequence[Row]", files: int, seconds: float) -> dict[str, object]:
    return {
        "files": files,
        "lines": past.lines,
        "events": past.events,
        "attempts": past.attempts,
        "tampered": past.tampered,
        "seconds": round(seconds, 3),
        "first": _rfc3339(past.first),
        "last": _rfc3339(past.last),
        "evicted": past.accounts.evicted,
        "forgotten": past.forgotten,
        "addresses": [
            {
                "address": row.name,
                "attempts": row.attempts,
                "events": row.events,
                "banned_at_attempt": row.banned_at_attempt,
                "rule": row.rule,
                "later_succeeded": row.later_succeeded,
                "banned_at": _rfc3339(row.bans[0]) if row.bans else None,
                "bans": len(row.bans),
                "withheld": row.withheld,
                "never_banned": row.allowed,
            }
            for row in rows
        ],
    }


def _rfc3339(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isfinite(seconds) else None


def _print(past: "Replay", rows: "Sequence[Row]", files: int) -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded when the command runs

    tried = [row for row in rows if row.attempts]
    if tried:
        Console().print(_table(tried[:MOST_SHOWN]))
    if len(tried) > MOST_SHOWN:
        typer.echo(f"and {len(tried) - MOST_SHOWN} more; --json gives all of them")
    if past.accounts.evicted:
        typer.echo(f"{past.accounts.evicted} addresses are not listed: there were too many to remember all")
    if past.forgotten:
        typer.echo(
            f"{past.forgotten} sessions and attempts were forgotten for want of room: numbers may be off"
        )
    banned = [row for row in rows if row.bans]
    hurt = sum(row.later_succeeded for row in banned)
    typer.echo(
        f"{past.lines} lines of {files} {'file' if files == 1 else 'files'}: {past.events} events, "
        f"{past.attempts} attempts, {past.tampered} tampered"
    )
    typer.echo(f"{len(banned)} would have been banned; {hurt} of them logged in later")


def _table(rows: "Sequence[Row]") -> "Table":
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ADDRESS", overflow="fold")
    table.add_column("ATTEMPTS", justify="right", no_wrap=True)
    table.add_column("BANNED (UTC)", no_wrap=True)
    table.add_column("AFTER", justify="right", no_wrap=True)
    table.add_column("RULE", no_wrap=True)
    table.add_column("NOTE")
    for row in rows:
        banned = (_rfc3339(row.bans[0]) or "").replace("T", " ")[:16] if row.bans else "-"
        after = "" if row.banned_at_attempt is None else str(row.banned_at_attempt)
        table.add_row(Text(row.name), str(row.attempts), banned, after, row.rule or "", _note(row))
    return table


def _note(row: "Row") -> str:
    """Say what is more about somebody."""
    told = [
        "logged in later" if row.later_succeeded else "",
        f"{len(row.bans)} bans" if len(row.bans) > 1 else "",
        "never banned" if row.allowed else "",
        f"{row.withheld} withheld" if row.withheld else "",
    ]
    return ", ".join(filter(None, told))
