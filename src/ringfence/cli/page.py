"""Requests of commands to the process of the live page."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.control import ask
from ringfence.errors import DaemonUnreachableError, WebError

DEFAULT_LOGINS = Path("/run/ringfence-web/login.sock")

LoginsOption = Annotated[
    Path,
    typer.Option("--login-socket", metavar="SOCKET", help="Socket on which `ringfence web login` asks."),
]


def ask_page(logins: Path, do: str, /, **arguments: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Send the request ``do`` to the live page's socket ``logins``; return the result, or raise WebError."""
    try:
        return ask(logins, do, **arguments)
    except DaemonUnreachableError as error:
        raise WebError(_unreachable(logins, str(error))) from None


def _unreachable(logins: Path, error: str) -> str:
    if os.geteuid() != 0 and not os.access(logins.parent, os.X_OK):
        return f"{logins}: permission denied; fix: be root"
    return f"the live page does not run ({error.partition(';')[0]}); start it: systemctl start ringfence-web"
