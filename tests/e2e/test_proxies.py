"""A SIP proxy on the PBX's host: its clients are banned, the proxy never."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_WIRE, guarded
from tests.support.kamailio import PORT, TARGET, Kamailio, why_no_kamailio
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in

from ringfence.sources.coverage_gaps import WITHOUT_CLIENTS

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.skipif(bool(why_no_kamailio()), reason=why_no_kamailio() or "Kamailio can be run"),
]

PROXIES = ["127.0.0.1"]
CHAN_SIP = ("--account", "bob")
DATAGRAMS = {"streams": False}
MANY = "2000"  # more guesses than a busy machine lets through before the ban
SILENT_DIGEST = (
    r'Authorization: Digest username="alice", realm="other", nonce="\xff", uri="sip:x", response="0"\r\n'
)


def rows_of(guard: Guard) -> list[tuple[Any, ...]]:
    """Return the address, rule, attempts and scope of each ban."""
    return [(row["address"], row["rule"], row["attempts"], row["scope"]) for row in guard.bans()]


@pytest.mark.parametrize(
    ("release", "asterisk", "proxy", "options"),
    [
        ("22", 5060, DATAGRAMS, ()),
        ("22", 5060, DATAGRAMS, ("--account", "nobody")),
        ("22", 5060, DATAGRAMS, ("--method", "INVITE")),
        ("22", 5060, DATAGRAMS, ("--via", ";xreceived=203.0.113.9;received=203.0.113.8;maddr=203.0.113.7")),
        ("22", 5060, {}, ()),
        ("22", 5060, {}, ("--transport", "TCP")),
        ("22", 5060, {"hop": "tcp"}, ()),
        ("22", 5060, {"hop": "tcp"}, ("--transport", "TCP")),
        ("16", 5060, DATAGRAMS, CHAN_SIP),
        ("16", 5060, {}, CHAN_SIP),
        ("16", 5060, {}, (*CHAN_SIP, "--transport", "TCP")),
        ("16", 5080, DATAGRAMS, ()),
        ("16", 5080, {}, ("--transport", "TCP")),
    ],
    ids=[
        "pjsip",
        "unknown",
        "invite",
        "via",
        "with-tcp",
        "tcp",
        "tcp-hop",
        "tcp-twice",
        "chan-sip",
        "chan-sip-with-tcp",
        "chan-sip-tcp",
        "pjsip-16",
        "pjsip-16-tcp",
    ],
)
def test_a_guesser_behind_a_proxy_is_banned_alone(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    release: str,
    asterisk: int,
    proxy: dict[str, Any],
    options: Sequence[str],
) -> None:
    """A client that guesses is banned, in full if the wire sees all challenges."""
    lab: Lab = request.getfixturevalue(f"asterisk{release}")
    with (
        Kamailio(lab.network, tmp_path, asterisk=asterisk, **proxy),
        guarded(lab, tmp_path, proxies=PROXIES) as guard,
    ):
        guess = ("--number", MANY, "--silences", "3", "--sources", "198.19.40.1")
        result = lab.attack("guess", *guess, *TARGET, *options)

        assert result.stopped == "silence"
        scope = "full" if proxy is DATAGRAMS else "sip-tcp" if "TCP" in options else "sip-udp"
        until(lambda: ("198.19.40.1", "guess", 5, scope) in rows_of(guard), "the ban")
        assert guard.banned() == {"198.19.40.1"}
        account = CHAN_SIP if "bob" in options else ()
        phone = lab.attack("register", "--sources", "198.19.40.2", *TARGET, *account)
        assert phone.statuses == {"200": 1}
        assert guard.status()["watched"] == []


def test_a_client_that_logs_in_is_a_friend(asterisk22: Lab, tmp_path: Path) -> None:
    """A phone behind the proxy becomes a friend under its own address."""
    with Kamailio(asterisk22.network, tmp_path), guarded(asterisk22, tmp_path, proxies=PROXIES) as guard:
        asterisk22.attack("register", "--sources", "198.19.41.1", *TARGET)
        until(lambda: "198.19.41.1" in guard.must("friends"), "the phone to become a friend")


def test_requests_without_an_answer_are_claims(asterisk22: Lab, tmp_path: Path) -> None:
    """A client that never answers a challenge gets a narrow ban, as without a proxy."""
    with Kamailio(asterisk22.network, tmp_path), guarded(asterisk22, tmp_path, proxies=PROXIES) as guard:
        asterisk22.attack(
            "probe", "--number", "8", "--account", "nobody{}", "--sources", "198.19.42.1", *TARGET
        )
        until(guard.bans, "the claimed ban")
        assert [(row["address"], row["scope"]) for row in guard.bans()] == [("198.19.42.1", "sip-udp")]


def test_clients_that_share_a_nonce_are_stopped_by_claims(asterisk22: Lab, tmp_path: Path) -> None:
    """Guessers that ask in the same seconds share PJSIP's nonces; each is banned, the proxy is not."""
    with Kamailio(asterisk22.network, tmp_path), guarded(asterisk22, tmp_path, proxies=PROXIES) as guard:
        sources = ("--sources", "198.19.43.1-198.19.43.3", "--parallel", "3")
        result = asterisk22.attack("guess", "--number", MANY, *sources, *TARGET)

        assert result.stopped == "silence"
        until(lambda: guard.banned() == {f"198.19.43.{last}" for last in (1, 2, 3)}, "the ban")


def test_without_the_wire_nobody_is_banned_and_status_reports_it(asterisk22: Lab, tmp_path: Path) -> None:
    """Without the wire no client is known; the proxy stays exempt, and the gap is reported."""
    with (
        Kamailio(asterisk22.network, tmp_path),
        guarded(asterisk22, tmp_path, proxies=PROXIES, wire=NO_WIRE) as guard,
    ):
        asterisk22.attack("guess", "--number", "8", "--sources", "198.19.48.1", "--timeout", "5", *TARGET)
        until(lambda: guard.status()["exempt"] == 8, "all attempts")
        assert guard.bans() == []
        assert f"pbx: {WITHOUT_CLIENTS}" in guard.status()["unseen"]


def test_the_ports_of_the_proxy_are_guarded(asterisk22: Lab, tmp_path: Path) -> None:
    """The limiter and narrow bans cover the proxy's port beside Asterisk's, and the proxy is shown."""
    with Kamailio(asterisk22.network, tmp_path), guarded(asterisk22, tmp_path, proxies=PROXIES) as guard:
        until(lambda: "asterisk.ports" in guard.log, "the ports")
        [line] = [line for line in guard.log.splitlines() if "asterisk.ports" in line]
        assert str(PORT) in line
        assert "proxies   127.0.0.1: never banned" in guard.must("status")
        assert "ok  pbx: proxies 127.0.0.1:" in guard.command("check").stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--call-id", r"{}\xff"),
        ("--call-id", r"{}\xff", "--transport", "TCP"),
        ("--before-digest", SILENT_DIGEST, "--pause", "0.2"),
    ],
    ids=["hidden", "by-tcp", "two-digests"],
)
def test_a_guesser_that_suppresses_the_events_is_banned(
    asterisk22: Lab, tmp_path: Path, options: Sequence[str]
) -> None:
    """Bytes that are not UTF-8 hide a guess from AMI, and the leg to the client still shows it."""
    with Kamailio(asterisk22.network, tmp_path), guarded(asterisk22, tmp_path, proxies=PROXIES) as guard:
        guess = ("--number", MANY, "--silences", "3", "--sources", "198.19.44.1")
        assert asterisk22.attack("guess", *guess, *TARGET, *options).stopped == "silence"
        until(lambda: guard.banned() == {"198.19.44.1"}, "the ban")


def test_a_401_that_the_proxy_forwards_frames_nobody(asterisk22: Lab, tmp_path: Path) -> None:
    """A guesser that sends copies of its challenges through the proxy to a bystander is banned itself."""
    guesser, bystander = "198.19.45.1", "198.19.45.2"
    with (
        Kamailio(asterisk22.network, tmp_path, streams=False),
        guarded(asterisk22, tmp_path, proxies=PROXIES) as guard,
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


def test_a_forged_source_causes_a_claimed_ban_at_most(asterisk22: Lab, tmp_path: Path) -> None:
    """A sender that asks and answers under another source, with a nonce of its own, gets no full ban."""
    forged, own = "198.19.46.1", "198.19.46.2"
    with (
        Kamailio(asterisk22.network, tmp_path, streams=False),
        guarded(asterisk22, tmp_path, proxies=PROXIES) as guard,
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
