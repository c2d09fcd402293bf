"""Renders pages from Jinja2 templates.

Each value in a template is escaped twice: ``printable`` replaces invisible characters, then Jinja2 escapes
HTML. The environment does both, so that a template cannot forget it. A text is cut after ``MOST_TEXT``
characters, because a sender can use a name of 64 KB.
"""

from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attrs import frozen
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ringfence.clock import format_duration
from ringfence.model import printable, rfc3339

FOLDER = Path(__file__).parent
MOST_TEXT = 1_000
MOST_NAME = 60  # characters of an account in a table
NONCE = "ringfence.nonce"
"""The key under which a request's ASGI scope has the nonce. Browsers run only a script with this nonce."""
SESSION = "ringfence.session"
"""The key under which a request's ASGI scope has the user's session. Before the login there is none."""
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOREVER = "public, max-age=31536000, immutable"


@frozen
class _File:
    content: bytes
    kind: str

    @property
    def version(self) -> str:
        return sha256(self.content).hexdigest()[:16]


def environment(**functions: object) -> Environment:
    """Return the Jinja2 environment of all templates. Templates can call ``functions`` by their names."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = {
        "moment": moment,
        "duration": format_duration,
        "short": short,
        "utc": lambda seconds: moment(rfc3339(seconds))[:16],
    }
    found.filters.update(filters)
    found.globals.update(functions)
    return found


class Renderer:
    """Renders the templates, and serves the style sheet, the script and the icon."""

    def __init__(self) -> None:
        self._files = {
            file.name: _File(file.read_bytes(), _KINDS[file.suffix])
            for file in sorted((FOLDER / "static").iterdir())
        }
        self._environment = environment(url=url_of, static=self._url_of_file)

    def page(self, request: Request, template: str, status: int = 200, /, **values: object) -> Response:
        """Render ``template`` with ``values``; return it as the answer to a request."""
        scope = request.scope
        text = self._environment.get_template(template).render(
            path=request.url.path, nonce=scope[NONCE], session=scope.get(SESSION), **values
        )
        return HTMLResponse(text, status)

    def error(self, request: Request, status: int, heading: str, text: str = "") -> Response:
        """Return a page that shows an error."""
        return self.page(request, "error.html", status, heading=heading, text=text)

    async def file(self, request: Request) -> Response:
        """Return a static file. Its URL changes with its content, so a browser may keep it for ever."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            return self.error(request, HTTPStatus.NOT_FOUND, "Not Found")
        return Response(found.content, media_type=found.kind, headers={"Cache-Control": _FOREVER})

    def _url_of_file(self, name: str) -> Markup:
        return url_of(f"/static/{name}", v=self._files[name].version)


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


def url_of(path: str, **parameters: object) -> Markup:
    """Return a URL of this site, escaped for HTML: the path, and the parameters that are not None."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return escape(f"{path}?{query}" if query else path)


def moment(text: str | None, unknown: str = "?") -> str:
    """Return a time from the daemon's JSON as pages show it: ``2026-11-20 10:14:03``, in UTC.

    Return ``unknown`` if ``text`` is None or "".
    """
    return text.replace("T", " ").removesuffix("Z") if text else unknown


def short(text: str | None, most: int = MOST_NAME) -> str:
    """Return at most ``most`` characters of a text, for the cell of a table. A cut text ends with ``…``."""
    text = text or ""
    return text if len(text) <= most else text[: most - 1] + "…"
