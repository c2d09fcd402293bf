"""Renders the pages from Jinja2 templates, and serves the style sheet, the script and the icon."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attrs import frozen
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ringfence import street
from ringfence.cli.plain_text import Row
from ringfence.features.web.commands import is_offered
from ringfence.pages.templates import STYLE, environment, moment
from ringfence.values.ban import COLUMNS, cell_of, phrases_of

FOLDER = Path(__file__).parent
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


class Renderer:
    """Renders the templates, and serves the style sheet, the script and the icon."""

    def __init__(self) -> None:
        self._files = {
            file.name: _File(file.read_bytes(), _KINDS[file.suffix])
            for file in (STYLE, *sorted((FOLDER / "static").iterdir()))
        }
        functions = {
            "url": url_of,
            "static": self._url_of_file,
            "owners": owners,
            "rows": rows_of,
            "is_offered": is_offered,
        }
        of_bans = {"ban_columns": COLUMNS, "cell_of": cell_of, "phrases_of": phrases_of}
        self._environment = environment(FOLDER / "templates", FOLDER.parent, **functions, **of_bans)

    def page(self, request: Request, template: str, status: int = 200, /, **values: object) -> Response:
        """Render ``template`` with ``values``; return it as the answer to a request."""
        scope = request.scope
        text = self._environment.get_template(template).render(
            path=request.url.path, nonce=scope[NONCE], session=scope.get(SESSION), **values
        )
        return HTMLResponse(text, status)

    def error(self, request: Request, status: int, heading: str, text: str = "") -> Response:
        """Return a page with the HTTP status ``status`` that shows an error: a heading and a text."""
        return self.page(request, "error.html", status, heading=heading, text=text)

    async def file(self, request: Request) -> Response:
        """Return a static file. Its URL changes with its content, so a browser may keep it for ever."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            return self.error(request, HTTPStatus.NOT_FOUND, "Not Found")
        return Response(found.content, media_type=found.kind, headers={"Cache-Control": _FOREVER})

    def _url_of_file(self, name: str) -> Markup:
        return url_of(f"/static/{name}", v=self._files[name].version)


def owners(template: str) -> list[str]:
    """Return the names of the features that have a template file with this name, such as ``page.html``."""
    return [name for name in street.present() if (FOLDER.parent / name / template).is_file()]


def rows_of(name: str, found: Mapping[str, Any]) -> Iterator[Row]:
    """Return the rows about the feature ``name``, as its command shows them.

    ``found`` is the daemon's answer about the feature.
    """
    rows: Iterator[Row] = import_module(f"ringfence.features.{name}.rows").rows(found, moment)
    return rows


def url_of(path: str, **parameters: object) -> Markup:
    """Return a URL of this site, escaped for HTML: the path, and the parameters that are not None."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return escape(f"{path}?{query}" if query else path)
