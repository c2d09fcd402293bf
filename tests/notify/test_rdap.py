"""The RDAP client against a real HTTP server on loopback: redirects, delays, failures, and what it asks."""

import json
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from tests.support.certificate import certificate_in
from tests.support.peers import free_port, raw_server
from tests.support.registry import FOUND, Answer, answer, entity, registry

from ringfence.notify import rdap
from ringfence.notify.rdap import MAX_ADDRESSES, MAX_ANSWER, MAX_REDIRECTS, add_registrations, is_public


def bans(*subjects: str, **known: str) -> dict[str, Any]:
    """Return the content of a message with bans."""
    return {"events": [{"event": "ban", "subject": subject, **known} for subject in subjects]}


def contacts(content: dict[str, Any]) -> list[str | None]:
    """Return the contact of each event."""
    return [event.get("abuse") for event in content["events"]]


def one(server: str, timeout: float = 30.0) -> tuple[str | None, str]:
    """Return the contact of one banned address, and the reason if there is none."""
    content = bans("9.0.0.1")
    failure = add_registrations(content, server, timeout)
    return contacts(content)[0], failure


def test_a_ban_gets_the_contact() -> None:
    """The query is that of RFC 9082. Country and name are added, because no database has them."""
    content = bans("9.0.0.1")
    with registry() as server:
        assert add_registrations(content, f"{server.base}/base/", 30.0) == ""

    assert server.asked == ["/base/ip/9.0.0.1"]
    assert content["events"][0] == {
        "event": "ban", "subject": "9.0.0.1",
        "abuse": "abuse@example.net", "country": "DE", "organisation": "EXAMPLE-NET",
    }  # fmt: skip


def test_a_database_knows_better() -> None:
    """Country and organisation of a database stay."""
    content = bans("9.0.0.1", country="FR", organisation="Mine")
    with registry() as server:
        add_registrations(content, server.base, 30.0)

    [event] = content["events"]
    assert (event["country"], event["organisation"], event["abuse"]) == ("FR", "Mine", "abuse@example.net")


def test_one_query_for_each_network() -> None:
    """Bans of one network share an answer, and an IPv6 network is asked for by its first address."""
    v6 = answer(entity("six@example.net"), startAddress="2a00:2381::", endAddress="2a00:2381:ffff::")
    content = bans("9.0.0.1", "9.0.3.0/24", "2a00:2381:1:2::/64", "9.1.0.1", "2a00:2381:1:3::/64", "9.0.0.1")
    with registry(lambda path: (200, {}, json.dumps(v6).encode() if ":" in path else FOUND)) as server:
        add_registrations(content, server.base, 30.0)

    assert server.asked == ["/ip/9.0.0.1", "/ip/2a00:2381:1:2::", "/ip/9.1.0.1"]
    four, six = "abuse@example.net", "six@example.net"
    assert contacts(content) == [four, four, six, None, six, four]  # 9.1.0.1 is in another network


def test_an_answer_without_a_network_is_about_the_address() -> None:
    """An answer about a block of the registry holds for the address that was asked for, and for no other."""
    wide = answer(entity("abuse@example.net"), startAddress="8.0.0.0", endAddress="15.255.255.255")
    content = bans("9.0.0.1", "9.0.0.2")
    with registry(lambda _: (200, {}, json.dumps(wide).encode())) as server:
        add_registrations(content, server.base, 30.0)

    assert len(server.asked) == 2
    assert contacts(content) == ["abuse@example.net"] * 2


def test_the_number_of_queries_is_bounded() -> None:
    """The first addresses of a message are asked for; a failed query counts too, and is not repeated."""
    content = bans(*(f"9.{at}.0.1" for at in range(MAX_ADDRESSES + 5)), "9.0.0.1")
    with registry(lambda _: (404, {}, b"")) as server:
        failure = add_registrations(content, server.base, 30.0)

    assert server.asked == [f"/ip/9.{at}.0.1" for at in range(MAX_ADDRESSES)]
    assert failure == f"RDAP: {MAX_ADDRESSES} of {MAX_ADDRESSES} queries failed: it answers 404"


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.0.1", "192.168.0.1", "127.0.0.1", "169.254.1.1", "100.64.0.1", "192.0.2.1",
        "198.18.0.1", "198.51.100.1", "203.0.113.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::", "fd00::", "fec0::", "2001:db8::", "3fff::", "64:ff9b::a00:1", "64:ff9b:1::",
        "2002:a00:1::", "2001::", "ff0e::", "100::", "4000::",
    ],
)  # fmt: skip
def test_no_local_address_is_asked_for(address: str) -> None:
    """Private, loopback, link-local, shared, documentation, translated and multicast addresses stay here."""
    assert not is_public(ip_address(address))
    with registry() as server:
        assert add_registrations(bans(address), server.base, 30.0) == ""
    assert server.asked == []


def test_other_events_are_not_asked_for() -> None:
    """Only bans have an address of a sender."""
    content = {"events": [{"event": "unban", "subject": "9.0.0.1"}, {"event": "alarm", "subject": "204"}]}
    with registry() as server:
        add_registrations(content, server.base, 30.0)
    assert server.asked == []


def test_redirects_are_followed() -> None:
    """rdap.org redirects to the registry of the address; a relative target is possible too."""

    def respond(path: str) -> Answer:
        hop = int(path.rpartition("/")[2]) if path.startswith("/hop") else 0
        return (302, {"Location": f"/hop/{hop + 1}"}, b"x" * 100) if hop < MAX_REDIRECTS else (200, {}, FOUND)

    with registry(respond) as server:
        assert one(server.base) == ("abuse@example.net", "")
    assert len(server.asked) == 1 + MAX_REDIRECTS


def test_endless_redirects_end() -> None:
    """A loop ends after the last redirect that is allowed."""
    with registry(lambda path: (307, {"Location": path}, b"")) as server:
        assert one(server.base) == (None, "RDAP: 1 of 1 queries failed: it redirects too often")
    assert len(server.asked) == 1 + MAX_REDIRECTS


@pytest.mark.parametrize(
    "target",
    [
        *(
            "http://9.9.9.9/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "data:,x",
            "//[",
            "http://localhost.x/",
        ),
        *("http://127.0.0.1:1/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https:///p"),
        *("https://169.254.169.254/x", "https://10.0.0.1:8443/", "https://intern/", "https://9.9.9.9/"),
        *("https://rdap.example:8443/", "https://user@rdap.example/", "https://0x7f.1/"),
    ],
)
def test_a_redirect_elsewhere_is_refused(target: str) -> None:
    """A redirect leads to the same server, or by https to the name of another host, at the usual port."""
    with registry(lambda _: (302, {"Location": target}, b"")) as server:
        contact, failure = one(server.base)
    assert contact is None
    assert failure.startswith("RDAP: 1 of 1 queries failed: ")
    assert len(server.asked) == 1


def test_a_redirect_has_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Location that would write a second request is refused before anything is sent."""
    monkeypatch.setattr("http.server.BaseHTTPRequestHandler.send_header", _unchecked)
    with registry(lambda _: (302, {"Location": "/x y\x01\x7f"}, b"")) as server:
        contact, failure = one(server.base)
    assert (contact, len(server.asked)) == (None, 1)
    assert failure


def _unchecked(handler: BaseHTTPRequestHandler, name: str, value: str) -> None:
    """Write a header as it is."""
    handler._headers_buffer.append(f"{name}: {value}\r\n".encode("latin-1"))  # type: ignore[attr-defined]


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with an unknown certificate is not asked, and one with a known certificate is."""
    certificate = certificate_in(tmp_path)
    with registry(certificate=certificate) as server:
        contact, failure = one(server.base)
        assert (contact, server.asked) == (None, [])
        assert "certificate verify failed" in failure.lower().replace("_", " ")

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert one(server.base) == ("abuse@example.net", "")


def test_https_never_becomes_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect from https to a server without it on another host is refused."""
    certificate = certificate_in(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with registry(lambda _: (302, {"Location": "http://9.9.9.9/"}, b""), certificate) as server:
        assert one(server.base)[1].endswith("it redirects to an address that is not asked")
    assert not rdap._is_allowed("http://127.0.0.1/", "https://rdap.example")


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"{}", "it answers 404"),
        (429, b"{}", "it answers 429"),
        (500, FOUND, "it answers 500"),
        (200, b"<html>", "its answer is not that of an RDAP server"),
        (200, b"[" * 100_000, "its answer is not that of an RDAP server"),
        (200, b" " * (MAX_ANSWER + 1) + FOUND, "its answer is too long"),
    ],
)
def test_a_bad_answer_is_no_contact(status: int, body: bytes, reason: str) -> None:
    """Whatever the server sends, the reason is reported and nothing else happens."""
    with registry(lambda _: (status, {}, body)) as server:
        assert one(server.base) == (None, f"RDAP: 1 of 1 queries failed: {reason}")


def test_a_large_answer_is_read() -> None:
    """An answer of the longest size is complete."""
    with registry(lambda _: (200, {}, FOUND.ljust(MAX_ANSWER))) as server:
        assert one(server.base) == ("abuse@example.net", "")


def test_a_refusal_is_no_contact() -> None:
    """Nothing listens, or the name does not exist."""
    assert one(f"http://127.0.0.1:{free_port()}") == (None, "RDAP: 1 of 1 queries failed: Connection refused")


def test_an_answer_without_contact_is_no_failure() -> None:
    """Many networks have none."""
    with registry(lambda _: (200, {}, json.dumps(answer()).encode())) as server:
        assert one(server.base) == (None, "")


def _hang(connection: socket.socket) -> None:
    """Never answer."""


def _drip(connection: socket.socket) -> None:
    """Send a byte of the answer now and then, so that each read is in time."""
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    for _ in range(600):  # half a minute, unless the client leaves
        try:
            connection.sendall(b" ")
        except OSError:
            return
        time.sleep(0.05)


def _drip_headers(connection: socket.socket) -> None:
    """Send headers without end, slowly."""
    connection.sendall(b"HTTP/1.0 200 OK\r\n")
    for at in range(600):
        try:
            connection.sendall(b"X-%d: x\r\n" % at)
        except OSError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("behave", [_hang, _drip, _drip_headers])
def test_a_slow_server_has_its_time_and_no_more(
    behave: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs or drips is left after the time of one query."""
    monkeypatch.setattr(rdap, "EACH", 0.3)
    with raw_server(behave) as port:
        began = time.monotonic()
        assert one(f"http://127.0.0.1:{port}") == (None, "RDAP: 1 of 1 queries failed: no answer in time")
        assert time.monotonic() - began < 15  # the answer takes half a minute


def test_a_name_server_that_hangs_has_its_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library waits for a name as long as it wants; the message does not."""
    over = Event()

    def hang(*_: object) -> None:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(rdap, "EACH", 0.2)
    began = time.monotonic()

    assert one("https://rdap.example")[1].endswith("no answer in time")
    assert time.monotonic() - began < 15
    over.set()


@pytest.mark.parametrize(("in_all", "timeout"), [(0.5, 30.0), (8.0, 1.0)])
def test_all_queries_have_a_time_too(in_all: float, timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queries of a message take at most their time in all, and half of the channel's timeout."""
    monkeypatch.setattr(rdap, "EACH", 0.3)
    monkeypatch.setattr(rdap, "IN_ALL", in_all)
    content = bans(*(f"9.{at}.0.1" for at in range(5)))
    with raw_server(_hang) as port:
        failure = add_registrations(content, f"http://127.0.0.1:{port}", timeout)

    # There is time for two of the five queries, or for one if the machine is busy.
    assert failure in {f"RDAP: {n} of {n} queries failed: no answer in time" for n in (1, 2)}


def test_a_late_query_follows_no_redirect() -> None:
    """A query whose time is over asks no further server."""

    def respond(path: str) -> Answer:
        time.sleep(0.15)
        return 302, {"Location": path}, b""

    with registry(respond) as server:
        assert rdap.ask(server.base, ip_address("9.0.0.1"), 0.2) == "no answer in time"
    assert len(server.asked) <= 2


def test_the_reason_of_a_failure_is_short() -> None:
    """A server that is no HTTP server writes text into the reason."""

    def behave(connection: socket.socket) -> None:
        connection.sendall("ü".encode() * 30_000 + b"\r\n\r\n")

    with raw_server(behave) as port:
        contact, failure = one(f"http://127.0.0.1:{port}")
    assert contact is None
    assert len(failure) < 200


def test_a_process_without_threads_has_no_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit limits the number of threads; the message is sent anyway."""

    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)
    assert one("https://rdap.example") == (None, "RDAP: 1 of 1 queries failed: can't start new thread")


def test_a_proxy_of_the_environment_is_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this host is asked directly; https goes by the proxy that the unit sets."""
    with registry(lambda _: (501, {}, b"")) as proxy, registry() as server:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy.base)
        assert one(server.base) == ("abuse@example.net", "")
        assert one("https://rdap.example")[1].startswith("RDAP: 1 of 1 queries failed: Tunnel connection")
        server.answer = lambda _: (302, {"Location": "https://rdap.example"}, b"")
        assert one(server.base)[1].startswith("RDAP: 1 of 1 queries failed: Tunnel connection")
