"""Requests to a local API that fails in many ways."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from ipaddress import ip_network
from typing import Any

import pytest
from attrs import evolve
from tests.features.fleet.server import KEY, MACHINE, PASSWORD, FakeApi, Fault, fake_api
from tests.support.attempts import attempts, ban_of
from tests.support.clock import SetClock

import ringfence
from ringfence.bounded_http import Deadline, open_connection
from ringfence.clock import Clock
from ringfence.features.fleet.api import Api
from ringfence.features.fleet.channel import FleetError
from ringfence.features.fleet.messages import facts_of
from ringfence.features.fleet.settings import Access
from ringfence.features.fleet.sync import Beat, OwnBan, Pull, Push, Withdraw
from ringfence.values.secret import Secret

ONE = ip_network("198.51.100.7")
BAN = OwnBan(ONE, "guess", 3_600.0, facts_of(ban_of("198.51.100.7", made=attempts(3))))
STREAM = "/v1/decisions/stream"


@pytest.fixture(name="server")
def _server() -> Iterator[FakeApi]:
    """Return a server without faults."""
    with fake_api() as server:
        yield server


def access(server: FakeApi, password: str = PASSWORD, key: str = KEY) -> Access:
    """Return the access to a server."""
    return Access(server.url, MACHINE, lambda: Secret(password), lambda: Secret(key))


def client(server: FakeApi, seconds: float = 5.0) -> Api:
    """Return a client of a server."""
    return Api(access(server), Clock(), seconds)


def failure(api: Api, request: Pull | Push | Withdraw | Beat) -> FleetError:
    """Return why a request fails."""
    with pytest.raises(FleetError) as caught:
        api.send(request, 0.0)
    assert PASSWORD not in str(caught.value)
    return caught.value


def test_every_request(server: FakeApi) -> None:
    """A ban is stored and deleted, and decisions are read; the User-Agent is what CrowdSec demands."""
    api = client(server)
    api.send(Push((BAN, evolve(BAN, network=ip_network("2001:db8::/64")))), 0.0)
    api.send(Beat(), 0.0)
    page = api.send(Pull(full=True), 0.0)
    assert page is not None
    assert [(str(one.network), one.scenario, one.origin) for one in page.new] == [
        ("198.51.100.7/32", "ringfence/guess", f"ringfence:{MACHINE}"),
        ("2001:db8::/64", "ringfence/guess", f"ringfence:{MACHINE}"),
    ]
    api.send(Withdraw(ONE, "ringfence/guess"), 0.0)
    api.send(Pull(full=False), 0.0)

    assert server.values() == {("ringfence/guess", "2001:db8::/64")}
    assert server.agents == {f"ringfence/{ringfence.__version__}"}
    assert server.requests == [
        "POST /v1/watchers/login",
        "POST /v1/alerts",
        "GET /v1/heartbeat",
        "GET /v1/decisions/stream?startup=true&scopes=ip,range&dedup=false",
        "DELETE /v1/decisions?value=198.51.100.7&scenario=ringfence%2Fguess",
        "GET /v1/decisions/stream?startup=false&scopes=ip,range&dedup=false",
    ]


def test_an_alert_has_accounts_and_proof(server: FakeApi) -> None:
    """The alert names the accounts and the proofs, and its decision lasts as long as the ban."""
    client(server).send(Push((BAN,)), 600.0)
    [alert] = server.alerts

    assert alert["message"] == "198.51.100.7: 3 attempts, 0 of them proven, accounts alice"
    assert {"key": "target_user", "value": "alice"} in alert["events"][0]["meta"]
    assert {"key": "proof", "value": "claimed"} in alert["events"][0]["meta"]
    assert alert["decisions"][0]["duration"] == "3000s"
    assert (alert["source"]["scope"], alert["simulated"]) == ("Ip", False)


def test_a_token_is_used_until_it_ends(server: FakeApi) -> None:
    """One login serves many requests; a token that ends within a minute is replaced before."""
    api = client(server)
    for _ in range(3):
        api.send(Beat(), 0.0)
    assert server.logins == 1
    server.expires = 30.0
    short = client(server)
    for _ in range(2):
        short.send(Beat(), 0.0)
    assert server.logins == 3


def test_a_token_that_the_api_no_longer_accepts_is_replaced(server: FakeApi) -> None:
    """After a restart of the API with another key, the next request logs in again, and succeeds."""
    api = client(server)
    api.send(Beat(), 0.0)
    server.forget_tokens()
    api.send(Push((BAN,)), 0.0)

    assert (server.logins, len(server.alerts)) == (2, 1)
    server.always = Fault(status=401, only="/v1/heartbeat")
    assert failure(api, Beat()).status == 401
    assert server.logins == 3  # one more login, not one after the other


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_host_with_another_clock(server: FakeApi, hours: int) -> None:
    """A ban is sent with the API's time, which decides about its end; a token serves for its whole life."""
    api = Api(access(server), SetClock(wall=lambda: time.time() + hours * 3_600), 5.0)
    for _ in range(3):
        api.send(Push((BAN,)), 0.0)
    told = [datetime.fromisoformat(alert["stop_at"]).timestamp() for alert in server.alerts]
    assert all(abs(one - time.time()) < 60 for one in told)
    assert [one["duration"] for alert in server.alerts for one in alert["decisions"]] == ["3600s"] * 3
    assert server.logins == 1


@pytest.mark.parametrize(
    "date", ["", "now", "Wed, 25 Nov 99999 10:00:00 GMT", "Wed, 31 Nov 2026 10:00:00 GMT", "\x80" * 70]
)
def test_a_server_that_does_not_tell_its_time(server: FakeApi, date: str) -> None:
    """Without a valid time in its answers, the time of this host counts."""
    server.date = date
    client(server).send(Push((BAN,)), 0.0)
    assert abs(datetime.fromisoformat(server.alerts[0]["stop_at"]).timestamp() - time.time()) < 60


def test_wrong_credentials(server: FakeApi) -> None:
    """A wrong password and a wrong key are named as such."""
    wrong = Api(access(server, "wrong", "wrong"), Clock())

    assert str(failure(wrong, Beat())) == "status 401: the machine's name or password is wrong"
    assert str(failure(wrong, Pull(full=True))).startswith("status 403: the key of the bouncer")
    broken = Api(access(server, key="a\r\nX-Other: b"), Clock())
    assert str(failure(broken, Pull(full=True))) == "the key has characters that no key has"

    def unreadable() -> Secret:
        raise ValueError("crowdsec.password_file: /x cannot be read: Permission denied")

    lost = Api(evolve(access(server), password=unreadable), Clock())
    assert str(failure(lost, Beat())) == "crowdsec.password_file: /x cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("fault", "text", "pause"),
    [
        (Fault(status=429, pause="7"), "status 429: too many requests", 7.0),
        (Fault(status=429, pause="7 \t"), "status 429: too many requests", 7.0),
        (Fault(status=503, pause="soon"), "status 503: Service Unavailable", 0.0),
        (Fault(status=500), "status 500: Internal Server Error", 0.0),
        (Fault(status=502), "status 502: Bad Gateway", 0.0),
        (Fault(status=403), "status 403: the key of the bouncer, or the machine, is not accepted", 0.0),
        (Fault(status=400), "status 400: Bad Request", 0.0),
        (Fault(status=302), "status 302: Found", 0.0),
        (Fault(cut=0), "the answer ended too early", 0.0),
    ],
)
@pytest.mark.parametrize("request_", [Pull(full=True), Push((BAN,)), Withdraw(ONE, "x")])
def test_each_fault_is_an_error(
    server: FakeApi, fault: Fault, text: str, pause: float, request_: Pull | Push | Withdraw
) -> None:
    """Each bad status and each cut answer is an error with a text, and the next request works."""
    api = client(server)
    api.send(Beat(), 0.0)
    server.faults = [fault]
    error = failure(api, request_)

    assert (str(error), error.pause, error.refused) == (text, pause, fault.status == 400)
    api.send(request_, 0.0)


def test_a_refused_login_refuses_no_ban(server: FakeApi) -> None:
    """The API may accept the ban when it accepts the login again."""
    server.always = Fault(status=400, only="/v1/watchers/login")
    error = failure(client(server), Push((BAN,)))

    assert (error.status, error.refused) == (400, False)


def test_an_answer_that_is_cut_at_every_hundredth_byte(server: FakeApi) -> None:
    """Wherever an answer is cut, it is an error, and never a shorter list of decisions."""
    for number in range(40):
        server.add(f"198.51.100.{number}")
    api = client(server)
    page = api.send(Pull(full=True), 0.0)
    assert page is not None
    assert len(page.new) == 40
    for cut in range(0, 5_000, 100):
        server.faults = [Fault(cut=cut)]
        assert str(failure(api, Pull(full=True))) == "the answer ended too early"


@pytest.mark.parametrize("fault", [Fault(silent=True), Fault(drip=True), Fault(drip=True, closes=True)])
def test_a_server_that_hangs_is_given_up(server: FakeApi, fault: Fault) -> None:
    """A silent server, and one that sends a byte now and then, ends after the time for a request."""
    server.always = fault
    began = time.monotonic()

    assert str(failure(client(server, 0.3), Pull(full=True))) == "no answer in time"
    assert time.monotonic() - began < 30.0


@contextmanager
def answering(answer: bytes) -> Iterator[Access]:
    """Run a server that answers one request with these bytes; return the access to it."""

    def serve() -> None:
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):  # otherwise the rest of the request resets the connection
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Access(url, MACHINE, lambda: Secret(PASSWORD), lambda: Secret(KEY))
        finally:
            thread.join()


_LOGIN = b'{"token": "x", "expire": "a-key"}'


@pytest.mark.parametrize(
    ("request_", "answer", "text"),
    [
        (
            Pull(full=True),
            b"HTTP/1.1 503 a-key\r\nContent-Length: 0\r\n\r\n",
            "status 503: Service Unavailable",
        ),
        (Pull(full=True), b"HTTP/1.1 599 a-key\r\nContent-Length: 0\r\n\r\n", "status 599: unknown"),
        (Pull(full=True), b"a-key is wrong\r\n\r\n", "the answer is not HTTP (BadStatusLine)"),
        (Beat(), b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n" + _LOGIN, "the token has no end"),
    ],
)
def test_an_answer_that_repeats_the_key(request_: Pull | Beat, answer: bytes, text: str) -> None:
    """No error has text of the answer, which people see who may not have the key."""
    assert KEY == "a-key"
    with answering(answer) as address:
        assert str(failure(Api(address, Clock(), 5.0), request_)) == text


@contextmanager
def drawn_out() -> Iterator[tuple[Access, threading.Event]]:
    """Run a server that answers the handshake of TLS by a byte now and then.

    Return the access to it, and an event that is set when a handshake has begun.
    """
    begun, over = threading.Event(), threading.Event()

    def serve() -> None:
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.recv(1)  # the client is in its handshake
                connection.sendall(b"\x16\x03\x03\x40\x00")
                begun.set()
                while not over.wait(0.05):
                    connection.sendall(b"\x00")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Access(url, MACHINE, lambda: Secret(PASSWORD), lambda: Secret(KEY)), begun
        finally:
            over.set()
            thread.join()


def test_a_drawn_out_handshake_is_given_up() -> None:
    """The time for a request holds for the handshake of TLS too, however slowly its bytes come."""
    with drawn_out() as (address, _):
        began = time.monotonic()
        assert str(failure(Api(address, Clock(), 0.3), Pull(full=True))) == "no answer in time"
        assert time.monotonic() - began < 20.0


@contextmanager
def stopped_after(begun: threading.Event, api: Api) -> Iterator[None]:
    """Stop the client from another thread once ``begun`` is set."""

    def stop() -> None:
        begun.wait(20)
        api.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    yield
    stopping.join()


def test_a_drawn_out_handshake_ends_with_the_client() -> None:
    """A stop of the client ends a handshake at once."""
    with drawn_out() as (address, begun):
        api = Api(address, Clock(), 60.0)
        with stopped_after(begun, api):
            began = time.monotonic()
            assert "no answer in time" not in str(failure(api, Pull(full=True)))
            assert time.monotonic() - began < 20.0


def test_a_test_decision_tries_both_credentials(server: FakeApi) -> None:
    """The test decision is stored, looked up and deleted; whatever fails, it does not stay."""
    client(server).prove()
    assert (len(server.alerts), server.values()) == (1, set())

    with pytest.raises(FleetError, match=r"^status 403: the key"):
        Api(access(server, key="wrong"), Clock()).prove()
    with pytest.raises(FleetError, match=r"^status 401: the machine"):
        Api(access(server, password="wrong"), Clock()).prove()
    server.faults = [Fault(cut=10, only="/v1/decisions?ip")]
    with pytest.raises(FleetError, match="ended too early"):
        client(server).prove()
    assert server.values() == set()


def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of a request includes the resolution of the name, which has no time limit of its own."""
    over = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        over.wait(120)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    with pytest.raises(TimeoutError), Deadline(0.1) as deadline:
        open_connection("api.example", 443, 5.0, deadline)
    over.set()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("host", ["name.invalid", "x" * 300, ".."])
def test_a_name_without_an_address_is_an_error(host: str) -> None:
    """The error of the resolver is that of the request."""
    with pytest.raises((OSError, UnicodeError)), Deadline(20.0) as deadline:
        open_connection(host, 443, 5.0, deadline)


def test_nobody_listens() -> None:
    """A closed port is an error."""
    with fake_api() as server:
        url = server.url
    closed = Api(Access(url, MACHINE, lambda: Secret(PASSWORD), lambda: Secret(KEY)), Clock())

    assert "Connection refused" in str(failure(closed, Pull(full=True)))


def test_a_stopped_client_sends_nothing(server: FakeApi) -> None:
    """After its stop, a client sends no request."""
    api = client(server)
    api.stop()

    assert str(failure(api, Pull(full=True))) == "stopped"
    assert server.requests == []


def test_a_client_stopped_while_it_connects_closes_its_socket(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is stopped while it connects sends no request, and closes the socket."""
    api = client(server)
    opened: list[socket.socket] = []

    def connect(*arguments: Any) -> socket.socket | None:  # noqa: ANN401 - those of open_connection
        sock = open_connection(*arguments)
        assert sock is not None
        opened.append(sock)
        api.stop()
        return sock

    monkeypatch.setattr("ringfence.features.fleet.api.open_connection", connect)

    assert str(failure(api, Pull(full=True))) == "stopped"
    assert [sock.fileno() for sock in opened] == [-1]
    assert server.requests == []


def test_a_client_stopped_during_a_look_up_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's stop does not wait for name servers that do not answer."""
    begun, over = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        begun.set()
        over.wait(120)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    url = "http://api.example:8080"
    api = Api(Access(url, MACHINE, lambda: Secret(PASSWORD), lambda: Secret(KEY)), Clock(), 60.0)
    with stopped_after(begun, api):
        began = time.monotonic()
        assert str(failure(api, Pull(full=True))) == "stopped"
        assert time.monotonic() - began < 30
    over.set()


def test_a_client_stopped_before_the_handshake_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is stopped when its socket is connected does not wait for a server that sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}"
        api = Api(Access(url, MACHINE, lambda: Secret(PASSWORD), lambda: Secret(KEY)), Clock(), 60.0)
        wrap = ssl.SSLContext.wrap_socket

        def stop(*arguments: Any, **more: Any) -> ssl.SSLSocket:  # noqa: ANN401 - those of wrap_socket
            wrapped = wrap(*arguments, **more)
            api.stop()
            return wrapped

        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", stop)
        began = time.monotonic()
        assert str(failure(api, Pull(full=True))) == "stopped"
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"new": 7}'])
def test_an_answer_of_something_else(server: FakeApi, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of another program is an error."""
    monkeypatch.setattr("ringfence.features.fleet.api._body_of", lambda _: body)

    assert str(failure(client(server), Pull(full=True)))
