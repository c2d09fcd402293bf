"""``ringfence parse``: show how each line of a log is parsed, or why it is skipped. It changes nothing."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, settings_from, zone_from
from ringfence.cli.output import JsonOption, echo, echo_stderr, errors_reported
from ringfence.errors import Exit, SourceError
from ringfence.features.replay.files import TRUNCATED, open_file, original
from ringfence.host.owned_files import exists
from ringfence.parse.custom import Custom
from ringfence.parse.line_result import NOT_UNDERSTOOD, LineResult, Reason
from ringfence.parse.log import LogReader
from ringfence.plurals import counted
from ringfence.values.event import SecurityEvent, SourceId

CHUNK = 256 * 1024
PATTERN = "pattern"
MAX_ADDRESSES = 100_000
MAX_FOREIGN = 10_000
"""The number of lines at the beginning of a file that are searched for a line of Asterisk.

If none is found, the file is refused. A shorter file is searched as a whole.
"""
MAX_SHOWN = 300
"""The maximum number of bytes that are shown of a line that could not be parsed."""


def parse(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A log of Asterisk (also .gz, .xz, .bz2); - is standard input."),
    ],
    as_json: JsonOption = False,
    unparsed: Annotated[
        bool,
        typer.Option("--unparsed", help="Show only lines that look like an attempt and were not understood."),
    ] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Show only the totals.")] = False,
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern", metavar="TEXT", help="Try a pattern with {address} and {any} on each line."
        ),
    ] = "",
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", metavar="ZONE", help="Time zone of the log, such as UTC; default: as configured."
        ),
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show line by line how ringfence parses a log. Changes nothing."""
    if summary and (as_json or unparsed):
        raise typer.BadParameter("--summary shows no line: leave out --json and --unparsed")
    customs = [_custom(pattern)] if pattern else []
    zone = zone_from(timezone) or _configured_zone(config, Path(file))
    reader = LogReader(SourceId("-", "log:-"), timezone=zone, customs=customs)
    summary_counts = _Summary()
    with errors_reported(), _open_log(file) as (read, now):
        lines = _Lines() if unparsed and not as_json else None
        for readings in _only_asterisk(_read(read, reader, now, lines), file):
            summary_counts.add(readings)
            if not summary:
                _show(readings, lines, as_json=as_json, unparsed=unparsed)
            if lines is not None and readings:
                lines.forget(readings[-1].line)
        if summary or not (as_json or unparsed):
            echo(*summary_counts.lines(reader))
    if pattern and not summary_counts.by_pattern:
        echo_stderr("the pattern fits no line")
        raise typer.Exit(Exit.PROBLEM)


class _Lines:
    """The lines of a log that were read and may still be shown, by line number.

    Of each line, only the first MAX_SHOWN bytes are kept.
    """

    def __init__(self) -> None:
        self._texts: dict[int, bytes] = {}
        self._last = b""
        self._number = 1

    def add(self, data: bytes) -> None:
        """Add the next bytes of the log."""
        *whole, rest = data.split(b"\n")
        for text in whole:
            self._texts[self._number] = (self._last + text)[:MAX_SHOWN]
            self._last = b""
            self._number += 1
        self._last = (self._last + rest)[:MAX_SHOWN]
        self._texts[self._number] = self._last

    def forget(self, number: int) -> None:
        """Forget the lines before the line ``number``."""
        while self._texts and next(iter(self._texts)) < number:
            del self._texts[next(iter(self._texts))]

    def text(self, number: int) -> str:
        """Return the text of the line ``number``; "" if it was forgotten."""
        return self._texts.get(number, b"").decode("utf-8", "backslashreplace")


class _Summary:
    """The totals of a parsed log: events by kind, and other lines by the reason why they were skipped."""

    def __init__(self) -> None:
        self.by_pattern = 0
        self._addresses: set[int] = set()
        self._events: Counter[str] = Counter()
        self._whys: Counter[str] = Counter()

    def add(self, readings: list[LineResult]) -> None:
        """Add the results of further lines to the totals."""
        for reading in readings:
            event = reading.event
            if event is not None:
                self._events[event.kind] += 1
                self.by_pattern += event.acl_name == PATTERN
                if len(self._addresses) < MAX_ADDRESSES:
                    self._addresses.add(int(event.remote.address))
            else:
                self._whys[reading.reason or reading.alarm or ""] += 1

    def lines(self, reader: LogReader) -> list[str]:
        """Return the totals as lines for people, the most frequent first.

        The kinds of events come first, then the reasons why other lines were skipped.
        """
        counts = reader.counts
        at_least = "at least " if len(self._addresses) == MAX_ADDRESSES else ""
        head = (
            f"{counted(counts.lines, 'line')}, {counted(counts.events, 'event')} of {at_least}"
            f"{counted(len(self._addresses), 'address', 'addresses')}"
        )
        rows = [
            f"{number:>9}  {name}"
            for name, number in (*self._events.most_common(), *self._whys.most_common())
        ]
        if counts.dropped_bytes:
            rows.append(f"{counts.dropped_bytes:>9}  bytes of overlong lines")
        return [head, *rows]


def _custom(pattern: str) -> Custom:
    try:
        return Custom.compile(pattern, level="", file="", name=PATTERN)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--pattern") from None


def _configured_zone(config: Path, log: Path) -> tzinfo | None:
    """Return the time zone that the configuration sets for ``log``; None for this host's time zone.

    A rotated log has the time zone of the log that it was. If no log paths are configured for the only PBX,
    ``log`` is taken for one of its logs.
    """
    if not exists(config):
        return None
    with errors_reported():
        configured = [pbx.logs for pbx in settings_from(config).asterisk_with_logs()]
    names = {log.absolute(), original(log.absolute())[0]}
    zones = (one.timezone for one in configured if one.paths is None or not names.isdisjoint(one.paths))
    return next(zones, None)


@contextmanager
def _open_log(name: str) -> Iterator[tuple[Callable[[int], bytes], float]]:
    """Open a log; yield a function that reads from it, and the time of its last change.

    The argument of the function is the maximum number of bytes. The time is in seconds since the epoch; for
    standard input, it is the present time. The parser derives the missing year of a date from it: no line is
    later than the last change. After the block, raise SourceError if the file is compressed and its end is
    missing.
    """
    if name == "-":
        yield sys.stdin.buffer.read1, time.time()  # type: ignore[union-attr]
        return
    with open_file(Path(name), pipe=True) as opened:
        yield opened.read, opened.status.st_mtime
        if opened.cut:
            raise SourceError(f"{name}: {TRUNCATED}")


def _read(
    read: Callable[[int], bytes], reader: LogReader, now: float, lines: _Lines | None
) -> Iterator[list[LineResult]]:
    while data := read(CHUNK):
        if lines is not None:
            lines.add(data)
        yield reader.receive(data, now)
    yield reader.end(now)


def _only_asterisk(found: Iterator[list[LineResult]], file: str) -> Iterator[list[LineResult]]:
    """Yield ``found`` (the results of all lines) unchanged, if ``file`` may be a log of Asterisk.

    If Asterisk wrote none of the first lines, print one error and exit, because a wrong file would otherwise
    cause a message for each line. The first lines are MAX_FOREIGN or a few more, or all of a shorter file. An
    empty file is not an error.
    """
    foreign = {Reason.NO_PREFIX, Reason.CONTINUATION, Reason.TOO_LONG}
    held: list[LineResult] = []
    for readings in found:
        held += readings
        if any(reading.reason not in foreign for reading in readings):
            yield held
            yield from found
            return
        if len(held) >= MAX_FOREIGN:
            break
    if held:
        echo_stderr(
            f"{file} is not a log of Asterisk: none of its first {len(held)} lines begins like a line of "
            "Asterisk, such as: [Nov 20 17:20:36] NOTICE[1234]"
        )
        raise typer.Exit(Exit.PROBLEM)


def _show(readings: list[LineResult], lines: _Lines | None, *, as_json: bool, unparsed: bool) -> None:
    output: list[str] = []
    for reading in readings:
        if unparsed and reading.reason not in NOT_UNDERSTOOD:
            continue
        if as_json:
            output.append(json.dumps(_as_object(reading)))
        elif reading.event is not None:
            output.append(f"{reading.line:>7}  {_of_event(reading.event)}")
        else:
            what = reading.reason or reading.alarm
            output.append(f"{reading.line:>7}  -  {what}")
        if lines is not None:
            output.append(f"{'':>9}{lines.text(reading.line)}")
    echo(*output)


def _of_event(event: SecurityEvent) -> str:
    parts = [
        event.kind,
        str(event.remote.address),
        event.service,
        f"account {event.account}" if event.account else "",
        f"({event.acl_name})" if event.acl_name else "",
        "tampered" if event.tampered else "",
    ]
    return "  ".join(filter(None, parts))


def _as_object(reading: LineResult) -> dict[str, object]:
    event = reading.event
    fields: dict[str, object] = {
        "line": reading.line,
        "kind": None,
        "address": None,
        "account": None,
        "service": None,
        "session": None,
        "why": reading.reason,
        "alarm": reading.alarm,
    }
    if event is not None:
        fields |= {
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
    return fields
