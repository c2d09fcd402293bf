"""The live page as a process that a test starts, and a browser without JavaScript that uses it."""

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Self
from urllib.parse import urlencode, urlsplit

import uvicorn
from attrs import Factory, define, frozen
from tests.support.clock import SetClock
from tests.support.daemon import PATIENCE, Completed, until
from tests.support.warm import Process, start

import ringfence
from ringfence import control, control_server
from ringfence.clock import Clock
from ringfence.features.web.app import Site, make_app
from ringfence.features.web.daemon_client import DaemonClient
from ringfence.features.web.entrance import Person, WebSessions
from ringfence.features.web.server import config_of

SITE = "http://localhost"
ENVIRON = {**os.environ, "PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent), "COLUMNS": "80"}


def command(*arguments: str) -> list[str]:
    """Return the command line of ``ringfence web``."""
    return [sys.executable, "-m", "ringfence", "web", *arguments]


@define
class Form:
    """A form of a page, with the values of its fields."""

    action: str
    method: str
    fields: dict[str, str] = Factory(dict)


class _Document(HTMLParser):
    """The elements of a page, each its name and attributes, its forms, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.forms: list[Form] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append((tag, values))
        if tag == "form":
            self.forms.append(Form(values.get("action") or "", values.get("method") or "get"))
        elif tag in {"input", "select"} and self.forms and (name := values.get("name")):
            self.forms[-1].fields[name] = values.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@frozen
class Answer:
    """An answer of the server."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def document(self) -> _Document:
        """The page as its elements."""
        return _Document(self.text)

    @property
    def words(self) -> str:
        """The text that a person reads, with single blanks."""
        return " ".join(" ".join(self.document.texts).split())

    def form(self, action: str) -> Form:
        """Return the form that is sent to this address."""
        return next(form for form in self.document.forms if form.action == action)

    def links(self) -> list[str]:
        """Return the targets of all links."""
        return [str(values.get("href")) for tag, values in self.document.elements if tag == "a"]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        """Connect to the unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Without a timeout it waits while the queue of the socket is full; with one it fails at once.
        self.sock.connect(str(self._path))
        self.sock.settimeout(self.timeout)


@define
class Browser:
    """A browser without JavaScript. It keeps cookies, and follows no redirect."""

    socket: Path
    cookies: dict[str, str] = Factory(dict)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, and read the answer."""
        sent = {"Host": urlsplit(SITE).netloc, **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            text = response.read().decode("utf-8")
        finally:
            connection.close()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return Answer(response.status, response.headers, text)

    def get(self, target: str, **headers: str) -> Answer:
        """Get a page."""
        return self.request("GET", target, headers=headers)

    def post(self, target: str, fields: Mapping[str, str], **headers: str) -> Answer:
        """Send a form."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", target, urlencode(fields).encode(), kind | headers)

    def submit(self, form: Form, **changed: str) -> Answer:
        """Send the form of a page, with some fields changed."""
        fields = form.fields | changed
        if form.method == "post":
            return self.post(form.action, fields)
        return self.get(f"{form.action}?{urlencode(fields)}")

    def log_in(self, link: str) -> Self:
        """Log in with a link: open it, put its token into the form, and press the button."""
        parts = urlsplit(link)
        answer = self.submit(self.get(parts.path).form("/login"), token=parts.fragment)
        assert answer.status == 303, answer.text
        return self

    def run(self, do: str, what: str, **fields: str) -> Answer:
        """Open the page that confirms a command, and confirm it."""
        page = self.get("/confirm?" + urlencode({"do": do, "what": what}))
        assert page.status == 200, page.words
        return self.submit(page.form("/run"), **fields)


@frozen
class WebServer:
    """A running ``ringfence web``."""

    folder: Path
    process: "Process | subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        """The socket of the page."""
        return self.folder / "web.sock"

    @property
    def logins(self) -> Path:
        """The socket on which the login command asks."""
        return self.folder / "login.sock"

    @property
    def log(self) -> str:
        """Everything that it has logged."""
        return (self.folder / "web.log").read_text("utf-8")

    def login(self, *options: str) -> Completed:
        """Run ``ringfence web login``."""
        return subprocess.run(
            command("login", "--login-socket", str(self.logins), *options),
            env=ENVIRON,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def accepts(self) -> bool:
        """Whether the page listens for requests of login links. The socket's file exists a moment before."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.logins)) == 0

    def link(self, name: str = "alice", *, read_only: bool = False) -> str:
        """Return the login link that ``ringfence web login`` prints, without a process for the command."""
        return str(control.ask(self.logins, "login", name=name, read_only=read_only))

    def browser(self, *, read_only: bool = False) -> Browser:
        """Return a browser that is logged in as ``alice``."""
        return Browser(self.socket).log_in(self.link(read_only=read_only))


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


@contextmanager
def web_server(
    folder: Path, daemon: Path, port: int = 0, site: str = SITE, client_header: str = ""
) -> Iterator[WebServer]:
    """Run the live page at a port, or at a unix socket without one, while the block runs.

    With ``client_header`` it is the page of a proxy at ``site``.
    """
    folder.mkdir(exist_ok=True)
    listen = ["--listen", f"127.0.0.1:{port}"]
    if not port:
        listen = ["--unix", str(folder / "web.sock")]
    if not port or client_header:
        listen += ["--url", site]
    if client_header:
        listen += ["--client-header", client_header]
    line = command(*listen, "--login-socket", str(folder / "login.sock"), "--control", str(daemon))
    with (folder / "web.log").open("wb") as log:
        process = start(line, environ=ENVIRON, stdout=log, stderr=log)
    running = WebServer(folder, process)
    try:
        until(lambda: running.accepts or process.poll() is not None, "the live page")
        assert process.poll() is None, running.log
        yield running
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def daemon_in_thread(path: Path, handlers: Mapping[str, control_server.Handler]) -> Iterator[None]:
    """Answer the requests of the live page by ``handlers``, in a thread, to inject faults of the daemon."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def serve() -> None:
        async with control_server.serve(path, handlers):
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="daemon")
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(PATIENCE)
        loop.close()


@contextmanager
def web_in_thread(daemon: Path, mono: Callable[[], float]) -> Iterator[Callable[[], str]]:
    """Run the live page in a thread, with a clock of its own; yield a function that makes a login link."""
    sessions = WebSessions()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = Site(f"http://127.0.0.1:{listener.getsockname()[1]}")
        app = make_app(DaemonClient(daemon, Clock()), sessions, site, SetClock(mono=mono))
        server = uvicorn.Server(config_of(app))
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), name="live-page"
        )
        thread.start()
        try:
            yield lambda: f"{site.url}/login#{sessions.make_link(Person('alice'), mono())}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
