"""``ringfence report``: report a period's attempts and bans, on the terminal or as one page of HTML."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask_daemon,
    ask_or_read,
    duration_from,
    settings_from,
)
from ringfence.cli.output import RECORDED_ONLY, JsonOption, echo_json, echo_stderr, errors_reported, text_form
from ringfence.cli.screen import Screen
from ringfence.errors import WebError
from ringfence.features.report.summary import ReportAnswers, locations_by_name, summary_of
from ringfence.features.report.text import report_lines
from ringfence.lists.regions import files_of

# -- files that a command writes for its user alone


_DEVICES = (Path("/dev"), Path("/proc"))


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; raise OSError if this is impossible.

    An existing file is replaced in one step: if that fails, the old file stays. If ``file`` is a symbolic
    link, the link is replaced and not its target. A device or a pipe is written directly. So is everything
    directly in ``/dev`` or below ``/proc``: links there, such as ``/dev/stdout``, are root's.
    """
    folder = Path(os.path.realpath(file.parent))
    if folder == _DEVICES[0] or folder.is_relative_to(_DEVICES[1]):
        (folder / file.name).write_text(text, "utf-8")
        return
    if _is_special(file):
        _write_special(file, text)
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
    """Whether a path is a device, a pipe or a folder, so that it cannot be replaced by a file."""
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)


def _write_special(file: Path, text: str) -> None:
    """Write into a device or a pipe.

    The owner of its folder may have put a link or a file in its place meanwhile. Neither is written.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "w", encoding="utf-8") as special:  # noqa: PTH123 - an open descriptor
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a pipe any more", str(file))
        special.write(text)


Document = dict[str, Any]

_TOP_DAYS = 31
"""The number of days for which the daemon keeps the number of attempts of each address and account."""


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
        found, absent = _found(config, seconds)
        if html is not None:
            _write(html, found)
    if as_json:
        echo_json(found)
    elif html is None:
        _print(found)
    if seconds > _TOP_DAYS * 86_400:
        echo_stderr(f"Addresses and accounts are those of the last {_TOP_DAYS} days.")
    if absent:
        echo_stderr(RECORDED_ONLY)


def _found(path: Path, seconds: float) -> tuple[Document, str]:
    """Return the report of the last ``seconds``, and why no daemon could be reached; "" if one answered."""
    history, absent = ask_or_read(path, "history", seconds=seconds)

    def answer(do: str, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        return ask_or_read(path, do, **arguments)[0]

    addresses = answer("tops", kind="addresses", seconds=seconds)
    answers = ReportAnswers(
        history,
        answer("past_bans", seconds=seconds),
        addresses,
        answer("tops", kind="accounts", seconds=seconds),
        [*answer("alarms"), *answer("alarms", past=True, seconds=seconds)],
        None if absent else ask_daemon(path, "status"),
        locations_by_name(files_of(settings_from(path)), addresses),
    )
    return summary_of(answers), absent


def _write(file: Path, found: Document) -> None:
    from ringfence.features.report.page import report_page  # noqa: PLC0415 - loaded when the command runs

    try:
        write_private(file, report_page(found))
    except OSError as error:
        raise WebError(f"cannot write {file}: {error.strerror}") from None


def _print(found: Document) -> None:
    to = Screen(whole_lines=True)
    for line in report_lines(found, text_form(to.width)):
        to.show(line.text, style="bold" if line.is_head else "", indent=line.indent)
