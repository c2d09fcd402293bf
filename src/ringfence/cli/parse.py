"""``ringfence parse``: line by line what was understood of a log, and why not. It changes nothing."""

import json
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    errors_told,
    settings_from,
    zone_from,
)
from ringfence.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import tzinfo

    from ringfence.model import SecurityEvent
    from ringfence.parse.custom import Custom
    from ringfence.parse.log import LogReader
    from ringfence.parse.reading import Reading

CHUNK = 256 * 1024
PATTERN = "pattern"
MOST_ADDRESSES = 100_000
SHOWN = 300
"""How much of a line is shown that was not understood (characters)."""


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(parse)


def parse(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A log of Asterisk's (.gz, .xz), or - for stdin.")
    ],
    as_json: JsonOption = False,
    unparsed: Annotated[
        bool,
        typer.Option("--unparsed", help="Only lines that look like evidence and were not understood."),
    ] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Only the numbers at the end.")] = False,
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern", metavar="TEXT", help="Try a pattern with {address} and {any} on the lines."
        ),
    ] = "",
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", metavar="ZONE", help="The log's time zone, such as UTC; default: as configured."
        ),
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Say line by line what is understood of a log, and why not. Changes nothing."""
    import lzma  # noqa: PLC0415 - loaded when the command runs
    import zlib  # noqa: PLC0415 - loaded when the command runs

    from ringfence.model import SourceId  # noqa: PLC0415 - loaded when the command runs
    from ringfence.parse.log import LogReader  # noqa: PLC0415 - loaded when the command runs

    customs = [_custom(pattern)] if pattern else []
    zone = zone_from(timezone) or _configured_zone(config, Path(file))
    reader = LogReader(SourceId("-", "log:-"), timezone=zone, customs=customs)
    tally = _Tally()
    try:
        with _opened(file) as (stream, now):
            lines = _Lines() if unparsed and not (summary or as_json) else None
            for readings in _read(stream, reader, now, lines):
                tally.add(readings)
                if not summary:
                    _show(readings, lines, as_json=as_json, unparsed=unparsed)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        typer.echo(f"{file}: {getattr(error, 'strerror', None) or error}", err=True)
        raise typer.Exit(Exit.PROBLEM) from None
    if summary or not (as_json or unparsed):
        typer.echo(tally.told(reader))
    if pattern and not tally.by_pattern:
        typer.echo("the pattern fits no line", err=True)
        raise typer.Exit(Exit.PROBLEM)


class _Lines:
    """The beginnings of the lines that were read and not yet shown, by their numbers."""

    def __init__(self) -> None:
        self._texts: dict[int, bytes] = {}
        self._last = b""
        self._number = 1

    def add(self, data: bytes) -> None:
        """Take what was read."""
        *whole, rest = data.split(b"\n")
        for text in whole:
            self._texts[self._number] = (self._last + text)[:SHOWN]
            self._last = b""
            self._number += 1
        self._last = (self._last + rest)[:SHOWN]
        self._texts[self._number] = self._last

    def forget(self, number: int) -> None:
        """Forget the lines before a number."""
        while self._texts and next(iter(self._texts)) < number:
            del self._texts[next(iter(self._texts))]

    def take(self, number: int) -> str:
        """Give a line as a terminal may show it, and forget the lines before it."""
        from ringfence.model import printable  # noqa: PLC0415 - loaded when the command runs

        self.forget(number)
        text = self._texts.get(number, b"")
        return printable(text.decode("utf-8", "backslashreplace"))


class _Tally:
    """What all lines together came to."""

    def __init__(self) -> None:
        self.by_pattern = 0
        self._addresses: set[int] = set()
        self._events: Counter[str] = Counter()
        self._whys: Counter[str] = Counter()

    def add(self, readings: "list[Reading]") -> None:
        """Count what became of some lines."""
        for reading in readings:
            event = reading.event
            if event is not None:
                self._events[event.kind] += 1
                self.by_pattern += event.acl_name == PATTERN
                if len(self._addresses) < MOST_ADDRESSES:
                    self._addresses.add(int(event.remote.address))
            else:
                self._whys[reading.why or reading.alarm or ""] += 1

    def told(self, reader: "LogReader") -> str:
        """Give the numbers, the most frequent first."""
        counts = reader.counts
        at_least = "at least " if len(self._addresses) == MOST_ADDRESSES else ""
        head = f"{counts.lines} lines, {counts.events} events of {at_least}{len(self._addresses)} addresses"
        rows = [
            f"{number:>9}  {name}"
            for name, number in (*self._events.most_common(), *self._whys.most_common())
        ]
        if counts.dropped_bytes:
            rows.append(f"{counts.dropped_bytes:>9}  bytes of lines that were too long")
        return "\n".join([head, *rows])


def _custom(pattern: str) -> "Custom":
    from ringfence.parse.custom import Custom  # noqa: PLC0415 - loaded when the command runs

    try:
        return Custom.compile(pattern, level="", file="", name=PATTERN)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--pattern") from None


def _configured_zone(config: Path, log: Path) -> "tzinfo | None":
    """Give the zone that the configuration, if there is one, has for this log; None for this host's.

    Where no log is named there is one PBX, and the log is its own.
    """
    if not config.exists():
        return None
    with errors_told():
        heard = [pbx.logs for pbx in settings_from(config).heard()]
    return next((logs.timezone for logs in heard if logs.paths is None or log.absolute() in logs.paths), None)


@contextmanager
def _opened(name: str) -> "Iterator[tuple[BinaryIO, float]]":
    """Open a log, and give the time that it was last written: a date without year is not later."""
    if name == "-":
        yield sys.stdin.buffer, time.time()
        return
    import gzip  # noqa: PLC0415 - loaded when the command runs
    import lzma  # noqa: PLC0415 - loaded when the command runs

    openers: dict[str, Callable[[str], Any]] = {".gz": gzip.open, ".xz": lzma.open}
    with openers.get(Path(name).suffix, _open_plain)(name) as stream:
        yield stream, Path(name).stat().st_mtime


def _open_plain(name: str) -> BinaryIO:
    return Path(name).open("rb")


def _read(
    stream: BinaryIO, reader: "LogReader", now: float, lines: _Lines | None
) -> "Iterator[list[Reading]]":
    while data := stream.read1(CHUNK):  # type: ignore[attr-defined]
        if lines is not None:
            lines.add(data)
        yield reader.feed(data, now)
    yield reader.end(now)


def _show(readings: "list[Reading]", lines: _Lines | None, *, as_json: bool, unparsed: bool) -> None:
    from ringfence.parse.reading import NOT_UNDERSTOOD  # noqa: PLC0415 - loaded when the command runs

    told: list[str] = []
    for reading in readings:
        if unparsed and reading.why not in NOT_UNDERSTOOD:
            continue
        if as_json:
            told.append(json.dumps(_as_object(reading)))
        elif reading.event is not None:
            told.append(f"{reading.line:>7}  {_of_event(reading.event)}")
        else:
            what = reading.why or reading.alarm
            told.append(f"{reading.line:>7}  -  {what}")
        if lines is not None:
            told.append(f"{'':>9}{lines.take(reading.line)}")
    if told:
        typer.echo("\n".join(told))
    if lines is not None and readings:
        lines.forget(readings[-1].line)


def _of_event(event: "SecurityEvent") -> str:
    from ringfence.model import printable  # noqa: PLC0415 - loaded when the command runs

    parts = [
        event.kind,
        str(event.remote.address),
        event.service,
        f"account {printable(event.account)}" if event.account else "",
        f"({printable(event.acl_name)})" if event.acl_name else "",
        "tampered" if event.tampered else "",
    ]
    return "  ".join(filter(None, parts))


def _as_object(reading: "Reading") -> dict[str, object]:
    event = reading.event
    told: dict[str, object] = {
        "line": reading.line,
        "kind": None,
        "address": None,
        "account": None,
        "service": None,
        "session": None,
        "why": reading.why,
        "alarm": reading.alarm,
    }
    if event is not None:
        told |= {
            "kind": event.kind,
            "address": str(event.remote.address),
            "account": event.account,
            "service": event.service,
            "session": event.session.decode("utf-8", "backslashreplace"),
            "port": event.remote.port,
            "transport": event.remote.transport,
            "acl_name": event.acl_name,
            "time": event.time,
            "tampered": event.tampered,
        }
    return told
