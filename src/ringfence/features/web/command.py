"""``ringfence web``: serve the live page; print a link to log in to it."""

import logging
import os
import pwd
import re
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import echo, echo_stderr, errors_reported
from ringfence.cli.page import DEFAULT_LOGINS, LoginsOption, ask_page
from ringfence.config.converters import HOOKS, ListenAddress
from ringfence.errors import WebError
from ringfence.features.web import LOOPBACK
from ringfence.guard.process import configure_logging, report_state

DEFAULT_LISTEN = "127.0.0.1:8721"
DEFAULT_CONTROL = Path("/run/ringfence/control.sock")

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_PORTS = {"http": 80, "https": 443}
"""The port that browsers leave out of a URL, by scheme."""

web = typer.Typer(cls=HintingGroup, invoke_without_command=True, add_completion=False)


@web.callback()
def web_serve(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Loopback address and port of the page.")
    ] = DEFAULT_LISTEN,
    unix: Annotated[
        Path | None, typer.Option(metavar="SOCKET", help="Unix socket for a proxy, instead of a port.")
    ] = None,
    url: Annotated[
        str, typer.Option(metavar="URL", help="Address of the page in browsers, if a proxy serves it.")
    ] = "",
    control: Annotated[
        Path,
        typer.Option(
            metavar="SOCKET", help="The daemon's control socket.", envvar="RINGFENCE_CONTROL__SOCKET"
        ),
    ] = DEFAULT_CONTROL,
    client_header: Annotated[
        str,
        typer.Option(metavar="NAME", help="Header in which the proxy names its client, such as X-Real-IP."),
    ] = "",
    login_socket: LoginsOption = DEFAULT_LOGINS,
) -> None:
    """Serve the live page. Do nothing if a subcommand was given."""
    if context.invoked_subcommand is not None:
        return
    where = unix if unix is not None else _loopback(listen)
    if unix is not None and not url:
        raise typer.BadParameter("--unix needs --url, the address of the proxy in browsers")
    if client_header and (not url or not _HEADER_NAME.fullmatch(client_header)):
        raise typer.BadParameter("--client-header must be the name of a header, and needs --url")
    address = _checked_url(url) if url else f"http://{where}"
    with errors_reported():
        _serve(where, address, client_header, control, login_socket)


@web.command("login")
def web_login(
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Your name in the log, if it is not that of the user.")
    ] = "",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only for reading, not for commands.")
    ] = False,
    login_socket: LoginsOption = DEFAULT_LOGINS,
) -> None:
    """Print a link that logs in once, within five minutes."""
    person = name or os.environ.get("SUDO_USER") or _user()
    with errors_reported():
        link = ask_page(login_socket, "login", name=person, read_only=read_only)
        echo(str(link))
        role = ", to read only" if read_only else ""
        echo_stderr(f"It logs in {person}{role}, once, within five minutes.")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _loopback(text: str) -> ListenAddress:
    """Parse the address to listen on. End with a usage error unless it is a loopback address.

    Only this host may connect, because the page has no encryption.
    """
    try:
        where: ListenAddress = HOOKS[ListenAddress | None](text, None)
    except ValueError as error:
        raise typer.BadParameter(f"--listen {error}") from None
    if not where.address.is_loopback:
        raise typer.BadParameter(
            "--listen must be a loopback address: the page has no encryption; use an SSH tunnel or a proxy"
        )
    return where


def _checked_url(text: str) -> str:
    """Return a URL as browsers write it in the header Origin: in lower case, without the usual port.

    End with a usage error if it is not the URL of a whole site, or if others could read what browsers send.
    """
    wrong = typer.BadParameter("--url must be an address such as https://pbx.example.com")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    plain = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"http", "https"} or not host or not plain:
        raise wrong
    if parts.scheme == "http" and host not in LOOPBACK:
        raise typer.BadParameter(
            "--url must begin with https: without it, others could read links and cookies"
        )
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if port in {None, _PORTS[parts.scheme]} else f":{port}")


def _serve(where: ListenAddress | Path, url: str, client_header: str, control: Path, logins: Path) -> None:
    configure_logging(logging.INFO)
    try:  # a plain installation lacks the packages of the page
        from ringfence.features.web.app import Site  # noqa: PLC0415
        from ringfence.features.web.server import WebSettings, serve  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise WebError(
            f"the live page needs the Python package {error.name}; fix: pip install 'ringfence[web]'"
        ) from None
    place = where if isinstance(where, Path) else (where.address, where.port)
    settings = WebSettings(place, Site(url, client_header), control, logins)
    serve(settings, partial(report_state, "READY=1"))
