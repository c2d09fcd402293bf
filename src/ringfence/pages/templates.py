"""The environment of templates: what a page shows of a value."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ringfence.clock import format_duration, time_left
from ringfence.plurals import counted
from ringfence.values.text import printable, readable_time, rfc3339

STYLE = Path(__file__).parent / "style.css"
"""The style sheet of every page."""
MOST_TEXT = 1_000
"""The maximum number of characters of a text that a page shows."""
MOST_NAME = 60
"""The maximum number of characters of an account in a table."""


def environment(*folders: Path, **functions: object) -> Environment:
    """Return the Jinja2 environment of the templates in ``folders``, which can call ``functions`` by name.

    Each value in a template is escaped twice: ``printable`` replaces invisible characters, then Jinja2
    escapes HTML. The environment does both, so that a template cannot forget it. A text is cut after
    ``MOST_TEXT`` characters, because a sender can use a name of 64 KB.
    """
    found = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = {
        "counted": counted,
        "moment": moment,
        "duration": format_duration,
        "left": time_left,
        "short": short,
        "utc": lambda seconds: moment(rfc3339(seconds))[:16],
    }
    found.filters.update(filters)
    found.globals.update(functions)
    return found


def visible(value: object) -> object:
    """Return a value as a page shows it.

    A text is cut and made :func:`printable`. None becomes "". Markup (text that is already HTML) and values
    of other types are returned unchanged.
    """
    if value is None:
        return ""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return printable(value if len(value) <= MOST_TEXT else value[: MOST_TEXT - 1] + "…")


def moment(text: str | None, unknown: str = "?") -> str:
    """Return a time from the daemon's JSON as pages show it: ``2026-11-20 10:14:03``, in UTC.

    Return ``unknown`` if ``text`` is None or "".
    """
    return readable_time(text) if text else unknown


def short(text: str | None, most: int = MOST_NAME) -> str:
    """Return at most ``most`` characters of a text, for the cell of a table. A cut text ends with ``…``."""
    text = text or ""
    return text if len(text) <= most else text[: most - 1] + "…"
