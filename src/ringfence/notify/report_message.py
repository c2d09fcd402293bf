"""The report of a week as a mail: the text that ``ringfence report`` prints, and its page of HTML."""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from ringfence.model import printable
from ringfence.notify.message import Message, dropped_lines, without_links
from ringfence.report.layout import Line, TextForm
from ringfence.report.text import report_lines

_FORM = TextForm()


def compose_report(content: Mapping[str, Any], host: str) -> Message:
    """Return the report in ``content`` as text, with times in UTC and lines of at most 80 columns."""
    lines = [f"ringfence on {host}, report of 7 days", ""]
    for line in report_lines(_without_links(content["report"]), _FORM):
        lines += _wrapped(line)
    lines += dropped_lines(content)
    return Message(f"[ringfence {host}] report of 7 days", "\n".join(lines) + "\n")


def _wrapped(line: Line) -> list[str]:
    text = printable(line.text)
    if len(text) <= _FORM.width:
        return [text]
    return wrap(text, _FORM.width, subsequent_indent=" " * line.indent, break_on_hyphens=False)


def page_of(content: Mapping[str, Any]) -> str | None:
    """Return the report as one page of HTML; None if the live page's packages are not installed."""
    try:
        from ringfence.web.report_page import report_page  # noqa: PLC0415 - it may be missing, and is slow
    except ImportError:
        return None
    return report_page(_without_links(content["report"]))


def _without_links(value: Any) -> Any:  # noqa: ANN401 - any part of a JSON document
    """Return a part of the report in which no text from outside is a link; the code of an alarm is ours."""
    if isinstance(value, Mapping):
        return {key: one if key == "code" else _without_links(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_links(one) for one in value]
    return without_links(value) if isinstance(value, str) else value
