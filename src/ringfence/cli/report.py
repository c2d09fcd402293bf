"""``ringfence report``: report a period's attempts and bans, on the terminal or as one page of HTML."""

import os
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask,
    ask_daemon,
    duration_from,
    errors_reported,
    settings_from,
)
from ringfence.cli.output import echo, echo_json, echo_stderr
from ringfence.cli.screen import Screen
from ringfence.errors import DaemonUnreachableError, WebError
from ringfence.report.summary import ReportAnswers, locations_by_name, summary_of
from ringfence.report.text import TextForm, has_blocks, history_lines, report_lines

if TYPE_CHECKING:
    from ringfence.config.loader import Settings


# -- ``ringfence history``: show how many attempts, bans and unbans there were over time


RECORDED_ONLY = "The daemon is not running: this is what it has recorded."


def history(
    config: ConfigOption = DEFAULT_CONFIG,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far to look back, such as 6h, 7d or 52w.")
    ] = "24h",
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show attempts and bans over time, up to a year back."""
    output.choose(local=local)
    seconds = duration_from("--since", since)
    with errors_reported():
        found = _history_found(config, seconds)
    if as_json:
        echo_json(found)
    else:
        echo(*history_lines(found, text_form()))


def _history_found(path: Path, seconds: float) -> Mapping[str, Any]:
    """Return the history from the daemon, or from the database if the daemon does not run.

    Raise DaemonUnreachableError if there is no database either.
    """
    from ringfence.daemon.timeline import read_history  # noqa: PLC0415 - slow to load
    from ringfence.store.database import Store  # noqa: PLC0415 - slow to load

    try:
        found: Mapping[str, Any] = ask_daemon(path, "history", seconds=seconds)
    except DaemonUnreachableError:
        database = settings_from(path).store.path
        if not database.exists():
            raise
        with Store.open(database, owner=False) as store:
            found = read_history(store.timeline, seconds, time.time())
        echo_stderr(RECORDED_ONLY)
    return found


def text_form(width: int = 80) -> TextForm:
    """Return how a report is written to standard output, with lines of ``width`` columns.

    Charts use block characters if the encoding of standard output has them. Times are in UTC or local, as the
    user chose.
    """
    return TextForm(has_blocks(sys.stdout.encoding), width, output.zone(), output.short_time)


# -- files that a command writes for its user alone


_DEVICES = (Path("/dev"), Path("/proc"))


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; raise OSError if this is impossible.

    An existing file is replaced in one step: if that fails, the old file stays. If ``file`` is a symbolic
    link, the link is replaced and not its target. A device or a pipe, such as ``/dev/stdout``, is written
    directly.
    """
    if _is_special(file):
        file.write_text(text, "utf-8")
        return
    descriptor, name = mkstemp(prefix=f".{file.name[:100]}.", dir=file.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as new:  # noqa: PTH123 - an open descriptor
            new.write(text)
            new.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _is_special(file: Path) -> bool:
    """Whether a path is a device, a pipe or a folder, so that it cannot be replaced by a file.

    Everything directly in ``/dev`` or below ``/proc`` counts as special, even a symbolic link such as
    ``/dev/stdout``.
    """
    folder = file.parent.resolve()
    if folder == _DEVICES[0] or folder.is_relative_to(_DEVICES[1]):
        return True
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)


Document = dict[str, Any]

_TOP_DAYS = 31
"""The number of days for which the daemon keeps the number of attempts of each address and account."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line ``app``."""
    app.command()(history)
    app.command()(report)


def report(
    config: ConfigOption = DEFAULT_CONFIG,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far to look back, such as 24h, 7d or 4w.")
    ] = "7d",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page of HTML to this file.")
    ] = None,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Report what happened: attempts, who made them, bans, and broken phones."""
    output.choose(local=local)
    seconds = duration_from("--since", since)
    with errors_reported():
        settings = settings_from(config)
        found = _found(settings, seconds)
        if html is not None:
            _write(html, found)
    if as_json:
        echo_json(found)
    elif html is None:
        _print(found)
    if seconds > _TOP_DAYS * 86_400:
        echo_stderr(f"Addresses and accounts are those of the last {_TOP_DAYS} days.")


def _found(settings: "Settings", seconds: float) -> Document:
    """Return the report of the last ``seconds``, from the daemon's answers.

    Without a daemon, its database is read. Raise DaemonUnreachableError if there is no database either.
    """
    try:
        answers = _asked(settings, seconds)
    except DaemonUnreachableError:
        if not settings.store.path.exists():
            raise
        answers = _offline(settings, seconds)
        echo_stderr(RECORDED_ONLY)
    return summary_of(answers)


def _asked(settings: "Settings", seconds: float) -> "ReportAnswers":
    addresses = ask(settings, "tops", kind="addresses", seconds=seconds)
    return ReportAnswers(
        ask(settings, "history", seconds=seconds),
        ask(settings, "past_bans", seconds=seconds),
        addresses,
        ask(settings, "tops", kind="accounts", seconds=seconds),
        [*ask(settings, "alarms"), *ask(settings, "alarms", past=True, seconds=seconds)],
        ask(settings, "status"),
        locations_by_name(settings.geo.database or (), addresses),
    )


def _offline(settings: "Settings", seconds: float) -> "ReportAnswers":
    from ringfence.daemon.facts import past_bans  # noqa: PLC0415 - slow to load
    from ringfence.daemon.timeline import read_history  # noqa: PLC0415 - slow to load
    from ringfence.daemon.tops import recorded_tops  # noqa: PLC0415 - slow to load
    from ringfence.store.database import Store  # noqa: PLC0415 - slow to load

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
            locations_by_name(settings.geo.database or (), addresses),
        )


def _write(file: Path, found: Document) -> None:
    try:
        from ringfence.web.report_page import report_page  # noqa: PLC0415 - loaded when the command runs
    except ModuleNotFoundError as error:
        raise WebError(
            f"a page needs the Python package {error.name}; fix: pip install 'ringfence[web]'"
        ) from None
    try:
        write_private(file, report_page(found))
    except OSError as error:
        raise WebError(f"cannot write {file}: {error.strerror}") from None


def _print(found: Document) -> None:
    to = Screen(whole_lines=True)
    for line in report_lines(found, text_form(to.width)):
        to.show(line.text, style="bold" if line.is_head else "", indent=line.indent)
