"""``ringfence report``: report a period's attempts and bans, on the terminal or as one page of HTML."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_daemon, ask_or_read, duration_from
from ringfence.cli.output import RECORDED_ONLY, JsonOption, echo_json, echo_stderr, errors_reported, text_form
from ringfence.cli.private_file import write_private
from ringfence.cli.screen import Screen
from ringfence.config import loader
from ringfence.errors import WebError
from ringfence.features.report.summary import ReportAnswers, locations_by_name, summary_of
from ringfence.features.report.text import report_lines
from ringfence.lists.regions import files_of

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
    """Return the report of the last ``seconds``, and why no daemon could be reached; "" if one answered.

    The first request prints the mistakes of the configuration. The others are quiet.
    """
    history, absent = ask_or_read(path, "history", seconds=seconds)

    def answer(do: str, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        return ask_or_read(path, do, quietly=True, **arguments)[0]

    addresses = answer("tops", kind="addresses", seconds=seconds)
    answers = ReportAnswers(
        history,
        answer("past_bans", seconds=seconds),
        addresses,
        answer("tops", kind="accounts", seconds=seconds),
        [*answer("alarms"), *answer("alarms", past=True, seconds=seconds)],
        None if absent else ask_daemon(path, "status", quietly=True),
        locations_by_name(files_of(loader.load_what_is_right(path)), addresses),
    )
    return summary_of(answers), absent


def _write(file: Path, found: Document) -> None:
    from ringfence.features.report.page import report_page  # noqa: PLC0415 - loaded when the command runs

    try:
        write_private(file, report_page(found))
    except OSError as error:
        raise WebError(f"cannot write {file}: {error.strerror}") from None


def _print(found: Document) -> None:
    to = Screen()
    for line in report_lines(found, text_form(to.width)):
        to.show(line.text, style="bold" if line.is_head else "", indent=line.indent)
