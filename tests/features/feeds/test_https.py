"""One request by HTTPS: what is accepted, and everything that has an end."""

import socket
import ssl
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.features.feeds.server import Publisher, Reply, publisher

from ringfence.features.feeds import https
from ringfence.features.feeds.https import HttpAnswer, Limits, get, is_public
from ringfence.features.feeds.plan import FetchError
from ringfence.values.network import Address

BODY = b"198.51.100.1\n"


def fetched(
    server: Publisher, path: str = "/list", limits: Limits | None = None, *, trusts_all: bool = False
) -> HttpAnswer:
    """Request a path; ``trusts_all``: redirects may lead to this host."""

    def any_address(_: Address) -> bool:
        return True

    public = any_address if trusts_all else is_public
    return get(server.url(path), {"X-Test": "1"}, server.context(), limits, public)


@pytest.mark.parametrize("reply", [Reply(), Reply(chunked=True)])
def test_a_whole_answer(tmp_path: Path, reply: Reply) -> None:
    """Status, headers and body come back; the request names the program and asks for plain bytes."""
    with publisher(tmp_path, list=reply) as server:
        answer = fetched(server)

        assert (answer.status, answer.body) == (200, BODY)
        [(path, headers)] = server.requests
        assert (path, headers["x-test"], headers["accept-encoding"]) == ("/list", "1", "identity")
        assert headers["user-agent"].startswith("ringfence/")


def test_any_status_is_an_answer(tmp_path: Path) -> None:
    """The caller decides what a status means."""
    with publisher(tmp_path) as server:
        assert fetched(server, "/x").status == 404


def test_blanks_around_the_value_of_a_header_are_left_out(tmp_path: Path) -> None:
    """They do not belong to the value: a server may send one behind the seconds of Retry-After."""
    with publisher(tmp_path, list=Reply(503, headers={"Retry-After": "120 \t"})) as server:
        assert fetched(server).headers["retry-after"] == "120"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(cut=5), "the answer ended too early"),
        (Reply(cut=5, chunked=True), "the answer ended too early"),
        (Reply(length=False), "the answer does not say how long it is"),
        (Reply(headers={"Content-Encoding": "gzip"}), "the answer is compressed"),
        (Reply(body=b"x" * 2_000), "the answer has more than 1000 bytes"),
        (Reply(body=b"x" * 2_000, chunked=True), "the answer has more than 1000 bytes"),
    ],
)
def test_what_is_not_whole_is_an_error(tmp_path: Path, reply: Reply, error: str) -> None:
    """A cut, endless or compressed answer is refused, and the error names the host."""
    with publisher(tmp_path, list=reply) as server, pytest.raises(FetchError, match=f"127.0.0.1: {error}"):
        fetched(server, limits=Limits(1_000, 10.0))


@pytest.mark.parametrize(
    "slow", [Reply(slow=0.2), Reply(slow=5.0), Reply(slow=0.2, headers={"Connection": "close"})]
)
def test_a_slow_answer_ends(tmp_path: Path, slow: Reply) -> None:
    """A server that sends a byte now and then is given up after the maximum time."""
    with publisher(tmp_path, list=slow) as server:
        began = time.monotonic()
        with pytest.raises(FetchError, match="did not answer in time"):
            fetched(server, limits=Limits(1_000, 0.5))
        assert time.monotonic() - began < 30


def test_a_wrong_certificate_is_an_error(tmp_path: Path) -> None:
    """Nothing is requested from a server without a trusted certificate."""
    with publisher(tmp_path, list=Reply()) as server:
        with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
            get(server.url(), {}, ssl.create_default_context())
        assert server.requests == []


def test_an_absent_server_is_an_error(tmp_path: Path) -> None:
    """The error names the host and the reason."""
    with publisher(tmp_path) as server:
        pass
    with pytest.raises(FetchError, match=r"127\.0\.0\.1: .*refused"):
        fetched(server)


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose first address leads nowhere is asked at another one."""
    monkeypatch.setattr(https, "CONNECT_SECONDS", 1.0)
    with publisher(tmp_path, list=Reply()) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        places = [("127.0.0.1", port) for port in (silent.getsockname()[1], server.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

        assert fetched(server, limits=Limits(1_000, 20.0)).body == BODY


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    """A redirect to another page by HTTPS is followed, a few times."""
    here = Reply(302, headers={"Location": "/list"})
    with publisher(
        tmp_path, old=here, list=Reply(), ever=Reply(301, headers={"Location": "/ever"})
    ) as server:
        assert fetched(server, "/old", trusts_all=True).body == BODY
        with pytest.raises(FetchError, match="redirects more than 5 times"):
            fetched(server, "/ever", trusts_all=True)


@pytest.mark.parametrize(
    "target", ["http://198.51.100.1/", "file:///etc/passwd", "//[", "https://x\u00e4/", "/a b"]
)
def test_a_redirect_to_another_scheme_is_an_error(tmp_path: Path, target: str) -> None:
    """A redirect never leads away from HTTPS."""
    with publisher(tmp_path, list=Reply(302, headers={"Location": target})) as server:
        with pytest.raises(FetchError):
            fetched(server, trusts_all=True)
        assert len(server.requests) == 1


def test_a_redirect_to_a_private_address_is_an_error(tmp_path: Path) -> None:
    """A publisher cannot make the fetcher ask a server of the own network."""
    with publisher(tmp_path, list=Reply(302, headers={"Location": "/other"}), other=Reply()) as server:
        with pytest.raises(FetchError, match="an address that is not public"):
            fetched(server)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.8.8.8", True),
        ("2a00::1", True),
        ("::ffff:8.8.8.8", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.1.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.1.2.3", False),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::10.1.2.3", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::8.8.8.8", False),
        ("2002:a01:203::1", False),
        ("2001:0:4136:e378::1", False),
        ("::10.1.2.3", False),
        ("fec0::1", False),
    ],
)
def test_public_addresses(text: str, expected: bool) -> None:  # noqa: FBT001 - a case
    """Addresses of the own network are not public, however they are written."""
    assert is_public(ip_address(text)) is expected
