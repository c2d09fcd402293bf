"""A SIP proxy on the PBX's host: its clients are banned, the proxy never."""

import itertools
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_WIRE, SharedGuard, end_shared, shared
from tests.support.kamailio import PORT, TARGET, Kamailio, why_no_kamailio
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in

from ringfence.sources.state import WITHOUT_CLIENTS

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.skipif(bool(why_no_kamailio()), reason=why_no_kamailio() or "Kamailio can be run"),
]

PROXIES = ["127.0.0.1"]
CHAN_SIP = ("--account", "bob")
DATAGRAMS: dict[str, Any] = {"streams": False}
BY_TCP = ("--transport", "TCP")
VIAS = ";xreceived=203.0.113.9;received=203.0.113.8;maddr=203.0.113.7"
MANY = "2000"  # more guesses than a busy machine lets through before the ban
SILENT_DIGEST = (
    r'Authorization: Digest username="alice", realm="other", nonce="\xff", uri="sip:x", response="0"\r\n'
)

FOLDED = r"X-Folded: a\r\n b\r\n"


class Front:
    """A proxy in front of an Asterisk, and the daemon that knows it, until a test wants another proxy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self._now: tuple[object, ...] = ()

    def guarded(
        self,
        lab: Lab,
        *,
        wire: Mapping[str, object] | None = None,
        asterisk: int = 5060,
        hop: str = "udp",
        streams: bool = True,
    ) -> AbstractContextManager[SharedGuard]:
        """Guard an Asterisk behind a proxy with these settings."""
        proxy: Mapping[str, Any] = {"asterisk": asterisk, "hop": hop, "streams": streams}
        wanted = (lab.network.pbx, proxy)
        if self._now != wanted:
            self.end()
            end_shared(lab)  # a daemon learns the proxy's ports when it starts
            folder = self._folder / str(next(self._numbers))
            folder.mkdir()
            self._stack.enter_context(Kamailio(lab.network, folder, **proxy))
            self._now = wanted
        return shared(lab, proxies=PROXIES, **({} if wire is None else {"wire": wire}))

    def network(self) -> str:
        """Return the first three numbers of addresses that no other test has."""
        return f"198.19.{128 + next(self._numbers)}"

    def end(self) -> None:
        """Stop the proxy."""
        self._stack.close()
        self._now = ()


@pytest.fixture(name="front", scope="module")
def _front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    front = Front(tmp_path_factory.mktemp("proxies"))
    yield front
    front.end()


def watched(guard: Guard) -> set[str]:
    """Return the addresses with attempts that led to no ban."""
    return {row["address"] for row in guard.status()["watched"]}


def rows_of(guard: Guard) -> list[tuple[Any, ...]]:
    """Return the address, rule, attempts and scope of each ban."""
    return [(row["address"], row["rule"], row["attempts"], row["scope"]) for row in guard.bans()]


@pytest.mark.parametrize(
    ("release", "asterisk", "proxy", "options"),
    [
        pytest.param("16", 5060, {}, CHAN_SIP, id="chan-sip-with-tcp", marks=pytest.mark.long),
        pytest.param("16", 5060, {}, (*CHAN_SIP, *BY_TCP), id="chan-sip-tcp"),
        pytest.param("16", 5060, DATAGRAMS, CHAN_SIP, id="chan-sip"),
        pytest.param("16", 5080, DATAGRAMS, (), id="pjsip-16"),
        pytest.param("16", 5080, {}, BY_TCP, id="pjsip-16-tcp", marks=pytest.mark.long),
        pytest.param("22", 5060, {"hop": "tcp"}, (), id="tcp-hop"),
        pytest.param("22", 5060, {"hop": "tcp"}, BY_TCP, id="tcp-twice"),
        pytest.param("22", 5060, DATAGRAMS, (), id="pjsip"),
        pytest.param("22", 5060, DATAGRAMS, ("--account", "nobody"), id="unknown"),
        pytest.param("22", 5060, DATAGRAMS, ("--method", "INVITE"), id="invite"),
        pytest.param("22", 5060, DATAGRAMS, ("--via", VIAS), id="via"),
        pytest.param("22", 5060, {}, (), id="with-tcp"),
        pytest.param("22", 5060, {}, BY_TCP, id="tcp"),
    ],
)
def test_a_guesser_behind_a_proxy_is_banned_alone(
    request: pytest.FixtureRequest,
    front: Front,
    release: str,
    asterisk: int,
    proxy: dict[str, Any],
    options: Sequence[str],
) -> None:
    """A client that guesses is banned, in full if the wire sees all challenges."""
    lab: Lab = request.getfixturevalue(f"asterisk{release}")
    net = front.network()
    with front.guarded(lab, asterisk=asterisk, **proxy) as guard:
        before = watched(guard)
        guess = ("--number", MANY, "--silences", "3", "--sources", f"{net}.1")
        result = lab.attack("guess", *guess, *TARGET, *options)

        assert result.stopped == "silence"
        scope = "sip" if proxy is DATAGRAMS else "sip-tcp" if "TCP" in options else "sip-udp"
        until(lambda: (f"{net}.1", "guess", 5, scope) in rows_of(guard), "the ban")
        assert guard.banned() == {f"{net}.1"}
        account = CHAN_SIP if "bob" in options else ()
        phone = lab.attack("register", "--sources", f"{net}.2", *TARGET, *account)
        assert phone.statuses == {"200": 1}
        assert watched(guard) <= before


@pytest.mark.parametrize("options", [(), BY_TCP], ids=["udp", "tcp"])
def test_a_client_that_logs_in_is_a_friend(asterisk22: Lab, front: Front, options: Sequence[str]) -> None:
    """A phone behind the proxy becomes a friend under its own address."""
    with front.guarded(asterisk22) as guard:
        source = f"{front.network()}.1"
        asterisk22.attack("register", "--sources", source, *TARGET, *options)
        until(lambda: source in guard.friends(), "the phone to become a friend")


def test_a_guesser_at_the_address_of_a_phone_is_banned(asterisk22: Lab, front: Front) -> None:
    """A friend's requests are copied too, and the nonces in AMI's events name and prove its address.

    The ban of a friend covers the transport that was misused.
    """
    with front.guarded(asterisk22, **DATAGRAMS) as guard:
        source = f"{front.network()}.1"
        asterisk22.attack("register", "--sources", source, *TARGET)
        until(lambda: source in guard.friends(), "the friend")
        guess = ("--number", MANY, "--silences", "3", "--sources", source, "--account", "nobody{}")
        assert asterisk22.attack("guess", *guess, *TARGET).stopped == "silence"
        until(lambda: source in guard.banned(), "the ban")
        assert {row["scope"] for row in guard.bans()} == {"sip-udp"}


def test_requests_without_an_answer_are_claims(asterisk22: Lab, front: Front) -> None:
    """A client that never answers a challenge gets a narrow ban, as without a proxy."""
    with front.guarded(asterisk22) as guard:
        asterisk22.attack(
            "probe", "--number", "8", "--account", "nobody{}", "--sources", "198.19.42.1", *TARGET
        )
        until(guard.bans, "the claimed ban")
        assert [(row["address"], row["scope"]) for row in guard.bans()] == [("198.19.42.1", "sip-udp")]


def test_clients_that_share_a_nonce_are_stopped_by_claims(asterisk22: Lab, front: Front) -> None:
    """Guessers that ask in the same seconds share PJSIP's nonces; each is banned, the proxy is not."""
    with front.guarded(asterisk22) as guard:
        sources = ("--sources", "198.19.43.1-198.19.43.3", "--parallel", "3")
        result = asterisk22.attack("guess", "--number", MANY, *sources, *TARGET)

        assert result.stopped == "silence"
        until(lambda: guard.banned() == {f"198.19.43.{last}" for last in (1, 2, 3)}, "the ban")


def test_the_ports_of_the_proxy_are_guarded(asterisk22: Lab, front: Front) -> None:
    """The limiter and narrow bans cover the proxy's port beside Asterisk's, and the proxy is shown."""
    with front.guarded(asterisk22) as guard:
        until(lambda: "asterisk.ports" in guard.log, "the ports")
        [*_, line] = [line for line in guard.log.splitlines() if "asterisk.ports" in line]
        assert str(PORT) in line
        assert "proxies   127.0.0.1: never banned" in guard.must("status")
        assert "ok  pbx: proxies 127.0.0.1:" in guard.command("check").stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--call-id", r"{}\xff"),
        ("--call-id", r"{}\xff", "--transport", "TCP"),
        ("--before-digest", SILENT_DIGEST, "--pause", "0.2"),
        ("--before-digest", FOLDED, "--transport", "TCP"),
        ("--before-digest", FOLDED, "--call-id", r"{}\xff", "--transport", "TCP"),
    ],
    ids=["hidden", "by-tcp", "two-digests", "unread", "unread-and-hidden"],
)
def test_a_guesser_that_evades_a_source_is_banned(
    asterisk22: Lab, front: Front, options: Sequence[str]
) -> None:
    """Bytes that are not UTF-8 hide a guess from AMI, and a folded line makes a connection unread."""
    with front.guarded(asterisk22) as guard:
        source = f"{front.network()}.1"
        guess = ("--number", MANY, "--silences", "3", "--sources", source)
        assert asterisk22.attack("guess", *guess, *TARGET, *options).stopped == "silence"
        until(lambda: guard.banned() == {source}, "the ban")
        assert {row["rule"] for row in guard.bans()} == {"guess"}


def test_without_the_wire_nobody_is_banned_and_status_reports_it(asterisk22: Lab, front: Front) -> None:
    """Without the wire no client is known; the proxy stays exempt, and the gap is reported."""
    with front.guarded(asterisk22, wire=NO_WIRE) as guard:
        asterisk22.attack("guess", "--number", "8", "--sources", "198.19.48.1", "--timeout", "5", *TARGET)
        until(lambda: guard.status()["exempt"] >= 8, "all attempts")
        assert guard.bans() == []
        assert f"pbx: {WITHOUT_CLIENTS}" in guard.status()["unseen"]


@pytest.mark.parametrize("proxy", [DATAGRAMS, {}], ids=["by-udp", "with-tcp"])
def test_a_401_that_the_proxy_forwards_frames_nobody(
    asterisk22: Lab, front: Front, proxy: dict[str, Any]
) -> None:
    """A guesser that sends copies of its challenges through the proxy to a bystander is banned itself."""
    net = front.network()
    guesser, bystander = f"{net}.1", f"{net}.2"
    with (
        front.guarded(asterisk22, **proxy) as guard,
        caller(asterisk22, guesser) as attacker,
        caller(asterisk22, bystander) as receiver,
    ):
        forwarded = 0
        for number in range(8):
            call_id = f"forwarded-{number}" + "\xff" * (number % 2)
            challenge = attacker.ask(register(guesser, attacker.port, call_id, 1))
            if challenge is None:
                break
            above, _, rest = challenge.partition(b"Via: ")
            via, _, rest = rest.partition(b"\r\n")
            to_bystander = via.replace(guesser.encode(), bystander.encode())
            to_bystander = to_bystander.replace(b":%d" % attacker.port, b":%d" % receiver.port)
            to_bystander = to_bystander.replace(b"rport=%d" % attacker.port, b"rport=%d" % receiver.port)
            own = f"SIP/2.0/UDP {PBX_IPV4}:{PORT};branch=z9hG4bKx{number}".encode()
            hop = f"SIP/2.0/UDP 127.0.0.1:{PORT};branch=z9hG4bKy{number}".encode()
            for vias in ((own, hop, to_bystander), (own, to_bystander)):
                head = b"".join(b"Via: %s\r\n" % one for one in vias)
                attacker.send(above + head + rest)
            forwarded += receiver.receive() is not None
            attacker.ask(register(guesser, attacker.port, call_id, 2, digest_of(challenge)))

        assert forwarded >= 3
        until(lambda: guard.banned() == {guesser}, "the ban of the guesser")


def test_a_forged_source_causes_a_claimed_ban_at_most(asterisk22: Lab, front: Front) -> None:
    """A sender that asks and answers under another source, with a nonce of its own, gets no full ban."""
    forged, own = "198.19.46.1", "198.19.46.2"
    with (
        front.guarded(asterisk22, **DATAGRAMS) as guard,
        caller(asterisk22, forged) as blind,
        caller(asterisk22, own) as attacker,
    ):
        for number in range(8):
            blind.send(register(forged, blind.port, f"forged-{number}", 1))
            challenge = attacker.ask(register(own, attacker.port, f"own-{number}", 1))
            assert challenge is not None
            blind.send(register(forged, blind.port, f"forged-{number}", 2, digest_of(challenge)))
            time.sleep(0.02)

        until(guard.bans, "the claimed ban")
        assert [(row["address"], row["scope"]) for row in guard.bans()] == [(forged, "sip-udp")]


class Caller:
    """A UDP socket of the attacker's side that speaks to the proxy."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.port: int = connected.getsockname()[1]

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._socket.send(message)

    def ask(self, message: bytes) -> bytes | None:
        """Send a request and return its answer."""
        self.send(message)
        return self.receive()

    def receive(self) -> bytes | None:
        """Return the next message; None if there is none."""
        try:
            return self._socket.recv(65_536)
        except TimeoutError:
            return None


@contextmanager
def caller(lab: Lab, address: str) -> Iterator[Caller]:
    """Yield a caller with this source address."""
    with socket_in(lab.network.attacker, kind=socket.SOCK_DGRAM) as bound:
        bound.bind((address, 0))
        bound.connect((PBX_IPV4, PORT))
        bound.settimeout(2.0)
        yield Caller(bound)


def register(address: str, port: int, call_id: str, number: int, digest: str = "") -> bytes:
    """Return a REGISTER of alice."""
    lines = [
        f"REGISTER sip:{PBX_IPV4} SIP/2.0",
        f"Via: SIP/2.0/UDP {address}:{port};rport;branch=z9hG4bK{abs(hash((call_id, number)))}",
        "Max-Forwards: 70",
        f"From: <sip:alice@{PBX_IPV4}>;tag=1",
        f"To: <sip:alice@{PBX_IPV4}>",
        f"Call-ID: {call_id}",
        f"CSeq: {number} REGISTER",
        f"Contact: <sip:alice@{address}:{port}>",
        *([f"Authorization: {digest}"] if digest else []),
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def digest_of(challenge: bytes) -> str:
    """Return a wrong answer to a challenge."""
    nonce = challenge.partition(b'nonce="')[2].partition(b'"')[0].decode()
    answer = f'Digest username="alice", realm="asterisk", nonce="{nonce}", uri="sip:{PBX_IPV4}"'
    return f'{answer}, response="{"0" * 32}", algorithm=MD5'
