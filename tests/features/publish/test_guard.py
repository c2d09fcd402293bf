"""The list for routers: what is on it, and requests that are right, wrong, hostile or slow."""

import asyncio
import hashlib
import socket
import urllib.request
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import closing
from http.client import HTTPConnection
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.support.attempts import attempts
from tests.support.clock import SetClock
from tests.support.daemon import Guard, ami_server, until
from tests.support.kept import PHONE, Kept
from tests.support.web import free_port

from ringfence.config.converters import ListenAddress
from ringfence.features.metrics import server as metrics_server
from ringfence.features.metrics.server import MetricsServer
from ringfence.features.publish import guard as publish
from ringfence.features.publish.guard import FRESH, NOBODY, Publisher, outermost
from ringfence.friends.startup import SourceReadiness
from ringfence.ledger import Record, key_of
from ringfence.values.attempt import Proof
from ringfence.values.ban import Ban, Origin, Scope
from ringfence.values.network import Network, contains
from ringfence.values.secret import Secret

TOKEN = "0123456789abcdef"
BEARER = f"Authorization: Bearer {TOKEN}\r\n"


def basic(password: str, user: str = "router") -> str:
    """Return the header with which a router sends a password of its URL."""
    return f"Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


class Router:
    """A router that fetches the list from a real listener, in front of parts that guard."""

    def __init__(self, kept: Kept, most: int = 100) -> None:
        self.kept = kept
        self.publisher = Publisher(kept.side, Secret(TOKEN), most)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.where = ListenAddress(ip_address("127.0.0.1"), free.getsockname()[1])

    def know_the_phones(self) -> None:
        """End the start: all phones are known."""
        self.kept.side.exempt.friends.startup.update([SourceReadiness(since=0.0, roster_ready=True)], 0.0)

    def run(self, client: Callable[[], Awaitable[None]]) -> None:
        """Run ``client`` while the list is served."""
        server = MetricsServer(self.where, lambda: b"ringfence_friends 3.0\n", (), [self.publisher])

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(server.run())
                await asyncio.sleep(0.05)
                await asyncio.wait_for(client(), 20)
                task.cancel()

        asyncio.run(both())

    async def exchange(self, request: bytes) -> tuple[str, bytes]:
        """Send a request, and return the head and the body of the answer."""
        reader, writer = await asyncio.open_connection(str(self.where.address), self.where.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.decode(), body

    async def get(self, path: str = "/bans", headers: str = BEARER) -> tuple[str, bytes]:
        """Fetch a list, and return the head and the body of the answer."""
        return await self.exchange(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())

    def listed(self, path: str = "/bans") -> list[str]:
        """Return the lines of a list that is made now, without comments."""
        found: list[str] = []

        async def client() -> None:
            head, body = await self.get(path)
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            lines = body.decode().split("\n")
            assert lines.pop() == ""
            found.extend(line for line in lines if not line.startswith("#"))

        self.kept.now += FRESH
        self.run(client)
        return found


@pytest.fixture(name="router")
def _router(kept: Kept) -> Router:
    """Return a router in front of parts that are started and know the phones."""
    kept.side.start()
    router = Router(kept)
    router.know_the_phones()
    return router


def by_rule(kept: Kept, network: str, scope: Scope = Scope.FULL, proof: Proof = Proof.HANDSHAKE) -> None:
    """Place a ban as a rule does, with attempts of this proof."""
    made = tuple(evolve(attempt, proof=proof) for attempt in attempts(5))
    now = kept.now
    ban = Ban(
        ip_network(network),
        since=now,
        expires=now + 3_600.0,
        rule="guess",
        reason="",
        origin=Origin.RULE,
        attempts=made,
        scope=scope,
    )
    kept.add(ban)


def test_proven_bans_are_on_the_list(router: Router) -> None:
    """Full bans of rules and bans by administrators are listed, in order, one on each line."""
    kept = router.kept
    by_rule(kept, "203.0.113.7")
    by_rule(kept, "203.0.113.5", Scope.SIP)
    by_rule(kept, "2001:db8:1:2::/64")
    kept.ban("100.64.0.0/24")

    assert router.listed() == ["100.64.0.0/24", "203.0.113.5", "203.0.113.7", "2001:db8:1:2::/64"]
    assert router.listed("/bans/ipv4") == ["100.64.0.0/24", "203.0.113.5", "203.0.113.7"]
    assert router.listed("/bans/ipv6") == ["2001:db8:1:2::/64"]
    assert router.publisher.counts.published == 4


def test_no_claimed_ban_is_on_the_list(router: Router) -> None:
    """A ban on claimed attempts is not listed, nor one of unknown origin, nor one that is over."""
    kept, now = router.kept, router.kept.now
    by_rule(kept, "203.0.113.1", Scope.SIP_UDP, Proof.CLAIMED)
    by_rule(kept, "203.0.113.2", Scope.SIP_TCP)
    by_rule(kept, "203.0.113.3", Scope.FULL, Proof.CLAIMED)
    kept.add(
        Ban(
            ip_network("203.0.113.4"),
            since=now,
            expires=now + 60,
            rule="adopted",
            reason="",
            origin=Origin.ADOPTED,
        )
    )
    over = Ban(
        ip_network("203.0.113.6"),
        since=now - 60,
        expires=now - 1,
        rule="admin",
        reason="",
        origin=Origin.ADMIN,
    )
    kept.enforcer.ledger.put(key_of(over.network), Record.of(over))

    assert router.listed() == []


def test_no_friend_and_no_exempt_address_is_on_the_list(router: Router) -> None:
    """Networks with a phone, a former phone, an allowed address or one of this host are not listed."""
    kept = router.kept
    friends = kept.detector.friends
    friends.add(PHONE)
    friends.remember(evolve(PHONE, address=ip_address("192.0.2.129")))
    friends.add(evolve(PHONE, address=ip_address("2001:db8:1:2::7")))
    for network in ("192.0.2.1", "192.0.2.128/25", "2001:db8:1:2::/64", "192.0.0.0/22"):
        by_rule(kept, network)
    kept.ban("198.51.100.7", "198.51.0.0/16", "198.18.0.1", "198.18.0.0/24", force=True)
    by_rule(kept, "192.0.2.2")

    assert router.listed() == ["192.0.2.2"]


def test_a_new_friend_leaves_the_list_at_once(router: Router) -> None:
    """A list is made again when an address becomes a friend, or is allowed, however fresh the list is."""
    kept = router.kept
    for network in ("192.0.2.1", "192.0.2.2"):
        by_rule(kept, network)

    async def client() -> None:
        assert (await router.get())[1] == b"192.0.2.1\n192.0.2.2\n"
        kept.detector.friends.add(PHONE)
        assert (await router.get())[1] == b"192.0.2.2\n"
        kept.own_addresses_are("192.0.2.2")
        assert (await router.get())[1] == NOBODY.encode()

    router.run(client)


def test_friends_that_change_without_end_delay_the_list(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an address becomes a friend whenever the list is made, routers keep their list, and ask later."""
    made: list[float] = []
    make = router.publisher._make

    async def changing() -> None:
        await make()
        made.append(router.kept.now)
        router.kept.detector.friends.add(evolve(PHONE, account=str(len(made))))

    monkeypatch.setattr(router.publisher, "_make", changing)

    async def client() -> None:
        for _ in range(3):
            head, _ = await router.get()
            assert head.startswith("HTTP/1.1 503 Service Unavailable\r\n")
            assert "Retry-After: 10" in head
        assert len(made) == 3
        monkeypatch.setattr(router.publisher, "_make", make)
        router.kept.now += FRESH
        assert (await router.get())[0].startswith("HTTP/1.1 200 OK\r\n")

    router.run(client)


@pytest.mark.parametrize("path", ["/bans", "/bans/ipv4", "/bans/ipv6"])
def test_a_list_of_nobody_is_a_comment(router: Router, path: str) -> None:
    """An answer is never empty: pfSense keeps its last list then, and the last ban would last for ever."""

    async def client() -> None:
        head, body = await router.get(path)
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert body == b"# nobody is banned\n"

    router.run(client)
    assert router.publisher.counts.published == 0


def test_each_address_is_on_the_list_once(router: Router) -> None:
    """Two bans of a network are one line, and a network inside another one has none."""
    kept = router.kept
    by_rule(kept, "203.0.113.7", Scope.SIP)
    by_rule(kept, "203.0.113.7")
    by_rule(kept, "203.0.113.0/24")
    by_rule(kept, "2001:db8:1::/48")
    by_rule(kept, "2001:db8:1:2::/64")
    by_rule(kept, "203.0.112.255")

    assert router.listed() == ["203.0.112.255", "203.0.113.0/24", "2001:db8:1::/48"]


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0, 8, 20, 24, 31, 32])).map(
            lambda pair: ip_network((pair[0] % 4096, pair[1]), strict=False)
        ),
        max_size=30,
    )
)
def test_the_outermost_networks_cover_the_same_addresses(networks: list[Network]) -> None:
    """The remaining networks do not overlap, and contain every network that was given."""
    kept = list(outermost(4, {(int(one.network_address), one.prefixlen) for one in networks}))
    inner = {one for one in networks for other in networks if one != other and contains(other, one)}

    assert {*kept} == {*networks} - inner
    assert kept == sorted(kept, key=lambda one: int(one.network_address))


def test_a_full_list_keeps_the_latest_bans(kept: Kept) -> None:
    """The list has at most as many networks as are configured, and counts each other one once."""
    kept.side.start()
    router = Router(kept, most=2)
    router.know_the_phones()
    by_rule(kept, "203.0.113.9", Scope.SIP)
    for last in (9, 1, 5, 3):
        by_rule(kept, f"203.0.113.{last}")
    by_rule(kept, "2001:db8:1:2::/64")

    assert router.listed() == ["203.0.113.3", "203.0.113.5", "2001:db8:1:2::/64"]
    assert router.publisher.counts.left_out == 2


def test_bans_of_the_database_are_on_the_list(router: Router, tmp_path: Path) -> None:
    """A ban that the daemon restored after a restart is listed with the proof that it had."""
    kept = router.kept
    by_rule(kept, "203.0.113.7")
    by_rule(kept, "203.0.113.8", Scope.FULL, Proof.CLAIMED)
    kept.enforcer.ledger.clear()
    kept.enforcer.start(verified=False)

    assert router.listed() == ["203.0.113.7"]


def test_there_is_no_list_until_the_phones_are_known(kept: Kept) -> None:
    """Right after the start the answer is 503, so that routers keep their last list."""
    kept.side.start()
    router = Router(kept)
    by_rule(kept, "203.0.113.7")

    async def client() -> None:
        head, body = await router.get()
        assert head.startswith("HTTP/1.1 503 ")
        assert "\r\nRetry-After: 10" in head
        assert b"203" not in body
        router.know_the_phones()
        assert (await router.get())[1] == b"203.0.113.7\n"

    router.run(client)


def test_a_list_that_the_router_has_is_not_sent_again(router: Router) -> None:
    """A request with the list's ETag is answered with 304 until the list changes."""
    by_rule(router.kept, "203.0.113.7")
    text = b"203.0.113.7\n"
    tag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'

    async def client() -> None:
        head, body = await router.get()
        assert (body, f"ETag: {tag}" in head.split("\r\n")) == (text, True)
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*", f'"x"\r\nIf-None-Match: {tag}'):
            head, body = await router.get(headers=f"{BEARER}If-None-Match: {known}\r\n")
            assert head.split("\r\n") == [
                "HTTP/1.1 304 Not Modified",
                f"ETag: {tag}",
                "Cache-Control: no-cache",
                "Connection: close",
            ]
            assert body == b""
        for other in ('"other"', tag.strip('"'), "", tag[:-2] + '"'):
            head, body = await router.get(headers=f"{BEARER}If-None-Match: {other}\r\n")
            assert body == text
        by_rule(router.kept, "203.0.113.8")
        router.kept.now += FRESH
        assert (await router.get(headers=f"{BEARER}If-None-Match: {tag}\r\n"))[0].startswith("HTTP/1.1 200 ")

    router.run(client)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (BEARER, "200"),
        (BEARER.upper().replace(TOKEN.upper(), TOKEN), "200"),
        (basic(TOKEN), "200"),
        (basic(TOKEN, ""), "200"),
        ("", "401"),
        ("Authorization: \r\n", "401"),
        ("Authorization: Bearer\r\n", "401"),
        (f"Authorization: {TOKEN}\r\n", "401"),
        (f"Authorization: Digest {TOKEN}\r\n", "401"),
        (f"Authorization: Bearer {TOKEN[:-1]}\r\n", "401"),
        (f"Authorization: Bearer {TOKEN}0\r\n", "401"),
        (f"Authorization: Bearer {TOKEN.upper()}\r\n", "401"),
        (f"Authorization: Bearer {'x' * 7_000}\r\n", "401"),
        (f"Authorization: Bearer {'x' * 70_000}\r\n", "431"),
        ("Authorization: Basic !!!\r\n", "401"),
        ("Authorization: Basic \xff\xfe\r\n", "401"),
        (f"Authorization: Basic {b64encode(TOKEN.encode()).decode()}\r\n", "401"),
        (basic("wrong"), "401"),
        (basic("", TOKEN), "401"),
        (BEARER + BEARER, "401"),
        (f"X: Bearer {TOKEN}\r\n", "401"),
        (f"Host: evil.example.com\r\n{BEARER}", "421"),
    ],
)
def test_only_the_token_opens_the_list(router: Router, headers: str, status: str) -> None:
    """A request without the whole token, as Bearer or as a password, learns nothing of the bans."""
    by_rule(router.kept, "203.0.113.7")

    async def client() -> None:
        head, body = await router.get(headers=headers)
        assert head.split(" ")[1] == status
        assert (b"203.0.113.7" in body) is (status == "200")
        assert TOKEN not in head + body.decode("latin-1")
        assert ("WWW-Authenticate: Bearer, Basic" in head) is (status == "401")

    router.run(client)
    assert router.publisher.counts.refused == (status == "401")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (f"GET /bans/ HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n", "404"),
        (f"GET /bans/ipv5 HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n", "404"),
        (f"POST /bans HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n", "405"),
        (f"GET /bans?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n", "401"),
        (f"GET http://{TOKEN}@localhost/bans HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ],
)
def test_every_other_request_has_its_status(router: Router, request_: str, status: str) -> None:
    """A request for another page, by another method, or with a token in its URL is refused."""

    async def client() -> None:
        head, _ = await router.exchange(request_.encode())
        assert head.split(" ")[1] == status

    router.run(client)


def test_a_slow_client_is_cut_off(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends the token too slowly is disconnected, and others are served meanwhile."""
    monkeypatch.setattr(metrics_server, "EXCHANGE_WITHIN", 0.3)
    by_rule(router.kept, "203.0.113.7")

    async def client() -> None:
        reader, writer = await asyncio.open_connection(str(router.where.address), router.where.port)
        writer.write(f"GET /bans HTTP/1.1\r\nHost: localhost\r\n{BEARER}".encode())
        assert (await router.get())[1] == b"203.0.113.7\n"
        assert await reader.read() == b""
        writer.close()

    router.run(client)


def test_many_routers_share_one_list(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests within some seconds are answered with the same list, which is made once."""
    by_rule(router.kept, "203.0.113.7")
    made: list[object] = []
    select = Publisher._select

    async def counted(publisher: Publisher, pause: publish._Pauses) -> dict[int, set[tuple[int, int]]]:
        made.append(publisher)
        return await select(publisher, pause)

    monkeypatch.setattr(Publisher, "_select", counted)

    async def client() -> None:
        answers = await asyncio.gather(*(router.get() for _ in range(20)))
        assert {body for _, body in answers} == {b"203.0.113.7\n"}

    router.run(client)
    assert len(made) == 1


def test_other_work_runs_while_a_list_is_made(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many bans the list is made in slices, between which the daemon does other work."""
    kept = router.kept
    record = Record.of(
        Ban(
            ip_network("192.0.2.2"),
            since=kept.now,
            expires=kept.now + 60,
            rule="admin",
            reason="",
            origin=Origin.ADMIN,
        )
    )
    for number in range(5_000):
        kept.enforcer.ledger.put(key_of(ip_network(0x0A000000 + 2 * number)), record)
    monkeypatch.setattr(router.publisher, "_clock", SetClock(wall=lambda: kept.now))
    monkeypatch.setattr(publish, "SLICE", 0.0005)
    turns = 0

    async def client() -> None:
        nonlocal turns
        async with asyncio.TaskGroup() as group:
            task = group.create_task(router.publisher._list((4,)))
            while not task.done():
                turns += 1
                await asyncio.sleep(0)
        published = task.result()
        assert published is not None
        assert published.text.count(b"\n") == 100

    router.run(client)
    assert turns > 5


def test_a_daemon_serves_the_list(tmp_path: Path) -> None:
    """A running daemon serves the list to a program with the token, and none without the configuration."""
    place = f"127.0.0.1:{free_port()}"
    with ami_server() as pbx, Guard(tmp_path, ami={"port": pbx.port}, metrics={"listen": place}) as guard:
        until(lambda: "metrics.served" in guard.log, "the metrics")
        assert fetched(place) == (404, b"The metrics are at /metrics.\n")
        guard.stop()
        guard.configure(publish={"token": TOKEN})
        guard.start()
        guard.must("ban", "203.0.113.7")
        until(lambda: fetched(place) == (200, b"203.0.113.7\n"), "the list", pause=0.2)
        with urllib.request.urlopen(f"http://{place}/metrics", timeout=20) as answer:
            assert b"ringfence_published_networks 1.0\n" in answer.read()
        shown = guard.must("config", "show")

    assert TOKEN not in shown
    assert TOKEN not in guard.log


def fetched(place: str) -> tuple[int, bytes]:
    """Return the status and the list, or nothing while the daemon does not listen."""
    with closing(HTTPConnection(place, timeout=20)) as connection:
        try:
            connection.request("GET", "/bans", headers={"Authorization": f"Bearer {TOKEN}"})
        except ConnectionError:
            return 0, b""
        answer = connection.getresponse()
        return answer.status, answer.read()
