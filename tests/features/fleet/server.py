"""A local API for tests that fails as a test wants. It keeps decisions as CrowdSec does, in memory.

It answers as CrowdSec 1.4.6 or as 1.7. They differ in three things: 1.4.6 writes empty lists as null, and 1.7
as ``[]``; 1.7 adds a ``uuid`` to each decision; and 1.4.6 remembers by key what it has sent, 1.7 by key and
address. If its database fails, 1.7 also sends only some of the decisions, with status 200 (``Fault.rows``).
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid5

from attrs import Factory, define, frozen

MACHINE, PASSWORD, KEY = "pbx-a", "a password", "a-key"


@frozen
class Fault:
    """A fault of a request: its status, a pause asked for, a cut of the answer, or silence.

    ``rows`` is how many new decisions the answer has at most, although it is well-formed. ``only`` is the
    beginning of the paths that it concerns.
    """

    status: int = 0
    pause: str = ""
    cut: int | None = None
    rows: int | None = None
    silent: bool = False
    drip: bool = False
    closes: bool = False
    only: str = "/v1/"


@define
class FakeApi:
    """The server: its decisions, its faults (the first one is used up by each request), and the requests.

    ``expires`` is the life of a token in seconds. A token from before :meth:`forget_tokens` is refused.
    ``date`` is the time that its answers name; None for the right one. ``page`` is the answer of the stream
    of decisions; None for that about ``decisions``. ``clock`` is its own clock (epoch seconds).
    """

    port: int = 0
    version: str = "1.4.6"
    decisions: dict[int, dict[str, Any]] = Factory(dict)
    deleted: list[dict[str, Any]] = Factory(list)
    alerts: list[dict[str, Any]] = Factory(list)
    faults: list[Fault] = Factory(list)
    always: Fault | None = None
    requests: list[str] = Factory(list)
    agents: set[str] = Factory(set)
    expires: float = 3_600.0
    date: str | None = None
    page: bytes | None = None
    logins: int = 0
    clock: Callable[[], float] = time.time
    _valid: set[str] = Factory(set)
    _changes: int = 0  # how many decisions were stored or deleted
    _sent: dict[tuple[str, ...], int] = Factory(dict)  # _changes at the last answer
    _closing: threading.Event = Factory(threading.Event)

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.port}"

    def add(
        self, value: str, scenario: str = "ringfence/guess", duration: str = "1h", origin: str = "x"
    ) -> None:
        """Store a decision."""
        number = len(self.decisions) + len(self.deleted) + 1
        self._changes += 1
        scope = "Range" if "/" in value else "Ip"
        self.decisions[number] = {
            "id": number,
            "value": value,
            "scenario": scenario,
            "duration": duration,
            "scope": scope,
            "type": "ban",
            "origin": origin,
            "change": self._changes,
            **({"uuid": str(uuid5(NAMESPACE_URL, f"{number}"))} if self.version == "1.7" else {}),
        }

    def values(self) -> set[tuple[str, str]]:
        """Return the scenario and the value of each decision."""
        return {(row["scenario"], row["value"]) for row in self.decisions.values()}

    def forget_tokens(self) -> None:
        """Accept no token that was given out until now."""
        self._valid.clear()

    def fault_for(self, path: str) -> Fault:
        """Return what goes wrong with a request."""
        for number, fault in enumerate(self.faults):
            if path.startswith(fault.only):
                return self.faults.pop(number)
        return self.always if self.always is not None and path.startswith(self.always.only) else Fault()

    def respond(
        self, fault: Fault, method: str, target: str, headers: dict[str, str], body: bytes, sender: str
    ) -> tuple[int, bytes]:
        """Carry out a request that may fail; return the status and the content of the answer."""
        if fault.status:
            return fault.status, b"{}"
        status, answer = self.answer(method, target, headers, body, sender)
        if fault.rows is not None and "new" in answer:
            answer["new"] = (answer["new"] or [])[: fault.rows]
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes, sender: str
    ) -> tuple[int, Any]:
        """Carry out a request of a sender's address; return the status and the JSON of the answer."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path == "/v1/decisions/stream":
            if headers.get("x-api-key") != KEY:
                return 403, {"message": "access forbidden"}
            return 200, self.page or self._page(sender, full=query["startup"] == ["true"])
        if (method, path) == ("GET", "/v1/decisions"):
            rows = [row for row in self.decisions.values() if row["value"] == query["ip"][0]]
            return (200, rows or None) if headers.get("x-api-key") == KEY else (403, {})
        if path == "/v1/watchers/login":
            return self._login(json.loads(body))
        if headers.get("authorization", "").removeprefix("Bearer ") not in self._valid:
            return 401, {"code": 401, "message": "token is expired"}
        match f"{method} {path}":
            case "GET /v1/heartbeat":
                found: tuple[int, Any] = 200, None
            case "POST /v1/alerts":
                found = 201, self._store(json.loads(body))
            case "DELETE /v1/decisions":
                found = 200, {"nbDeleted": str(self._delete(query["value"][0], query["scenario"][0]))}
            case _:
                found = 404, {"message": "not found"}
        return found

    def _page(self, sender: str, *, full: bool) -> dict[str, Any]:
        """Return what has changed since the last answer, or everything."""
        who = (KEY, sender) if self.version == "1.7" else (KEY,)
        since = 0 if full else self._sent.get(who, 0)
        self._sent[who] = self._changes
        new, deleted = (
            [{name: row[name] for name in row if name != "change"} for row in rows if row["change"] > since]
            for rows in ([*self.decisions.values()], self.deleted)
        )
        empty: list[Any] | None = [] if self.version == "1.7" else None
        return {"new": new or empty, "deleted": deleted or empty}

    def _store(self, alerts: list[dict[str, Any]]) -> list[str]:
        self.alerts += alerts
        for alert in alerts:
            for one in alert["decisions"]:
                self.add(one["value"], one["scenario"], one["duration"], one["origin"])
        return ["1"] * len(alerts)

    def _login(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.logins += 1
        if (body["machine_id"], body["password"]) != (MACHINE, PASSWORD):
            return 401, {"code": 401, "message": "incorrect Username or Password"}
        token = f"token-{self.logins}"
        self._valid.add(token)
        end = datetime.fromtimestamp(self.clock() + self.expires, UTC)
        return 200, {"code": 200, "expire": end.isoformat(timespec="seconds"), "token": token}

    def _delete(self, value: str, scenario: str) -> int:
        found = [
            n for n, row in self.decisions.items() if (row["value"], row["scenario"]) == (value, scenario)
        ]
        for number in found:
            self._changes += 1
            self.deleted.append({**self.decisions.pop(number), "duration": "-1s", "change": self._changes})
        return len(found)


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers one request."""

        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): text for name, text in self.headers.items()}
            api.requests.append(f"{self.command} {self.path}")
            api.agents.add(headers.get("user-agent", ""))
            self.close_connection = True
            fault = api.fault_for(self.path)
            if fault.silent:
                api._closing.wait(20)
                return
            sender = self.client_address[0]
            status, content = api.respond(fault, self.command, self.path, headers, body, sender)
            self.send_response(status)
            if fault.pause:
                self.send_header("Retry-After", fault.pause)
            self.send_header("Content-Length", str(len(content)))
            if fault.closes:
                self.send_header("Connection", "close")
            self.end_headers()
            with suppress(OSError):
                if fault.drip:
                    while not api._closing.is_set():
                        self.wfile.write(b" ")
                        time.sleep(0.05)
                self.wfile.write(content[: fault.cut])

        do_GET = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the names of http.server

        def date_time_string(self, timestamp: float | None = None) -> str:
            """Return the time that an answer names."""
            return super().date_time_string(timestamp) if api.date is None else api.date

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler


class _Server(ThreadingHTTPServer):
    """A server that, when it closes, waits until each request has ended."""

    daemon_threads = False


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """Run a local API in a thread until the block ends."""
    api = FakeApi()
    with _Server(("127.0.0.1", 0), _handler(api)) as server:
        api.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield api
        finally:
            api._closing.set()
            server.shutdown()
            thread.join()
