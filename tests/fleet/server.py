"""A local API for tests that fails as a test wants. It keeps decisions as CrowdSec does, in memory."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import Factory, define, frozen

MACHINE, PASSWORD, KEY = "pbx-a", "a password", "a-key"


@frozen
class Fault:
    """What goes wrong with a request: its status, a pause asked for, a cut of the answer, or silence.

    ``only`` is the beginning of the paths that it concerns.
    """

    status: int = 0
    pause: str = ""
    cut: int | None = None
    silent: bool = False
    drip: bool = False
    closes: bool = False
    only: str = "/v1/"


@define
class FakeApi:
    """The server: its decisions, its faults (the first one is used up by each request), and the requests.

    ``expires`` is the life of a token in seconds. A token from before :meth:`forget_tokens` is refused.
    """

    port: int = 0
    decisions: dict[int, dict[str, Any]] = Factory(dict)
    deleted: list[dict[str, Any]] = Factory(list)
    alerts: list[dict[str, Any]] = Factory(list)
    faults: list[Fault] = Factory(list)
    always: Fault | None = None
    requests: list[str] = Factory(list)
    agents: set[str] = Factory(set)
    expires: float = 3_600.0
    logins: int = 0
    _valid: set[str] = Factory(set)
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
        scope = "Range" if "/" in value else "Ip"
        self.decisions[number] = {
            "id": number,
            "value": value,
            "scenario": scenario,
            "duration": duration,
            "scope": scope,
            "type": "ban",
            "origin": origin,
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

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Carry out a request; return the status and the JSON of the answer."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path == "/v1/decisions/stream":
            if headers.get("x-api-key") != KEY:
                return 403, {"message": "access forbidden"}
            return 200, {"new": [*self.decisions.values()], "deleted": self.deleted}
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
        end = datetime.now(UTC) + timedelta(seconds=self.expires)
        return 200, {"code": 200, "expire": end.isoformat(timespec="seconds"), "token": token}

    def _delete(self, value: str, scenario: str) -> int:
        found = [
            n for n, row in self.decisions.items() if (row["value"], row["scenario"]) == (value, scenario)
        ]
        self.deleted += [{**self.decisions.pop(number), "duration": "-1s"} for number in found]
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
            status, answer = (
                (fault.status, {}) if fault.status else api.answer(self.command, self.path, headers, body)
            )
            content = json.dumps(answer).encode()
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
                self.wfile.write(content if fault.cut is None else content[: fault.cut])

        do_GET = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """Run a local API in a thread until the block ends."""
    api = FakeApi()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(api)) as server:
        api.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield api
        finally:
            api._closing.set()
            server.shutdown()
            thread.join()
