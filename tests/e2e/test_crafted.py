"""Requests that no common tool makes, on a real Asterisk: the daemon sees hidden guesses and bans no victim.

Each test has its own source. The guesses are real: with the right password they would succeed.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, guarded, shared
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in
from tests.support.sip_wire import Challenge, Request, challenge_of

pytestmark = pytest.mark.asterisk

MOST = 2_000


class Guesser:
    """One socket of an attacker."""

    def __init__(self, sender: socket.socket, account: str) -> None:
        self._socket = sender
        self._account = account
        self._number = 0
        host, port = sender.getsockname()
        self._contact = f"{host}:{port}"

    def request(self, via: str = ";rport", call_id: bytes = b"{}") -> Request:
        """Return a REGISTER; its number replaces ``{}`` in ``call_id``."""
        self._number += 1
        number = b"%d-%s" % (self._number, self._contact.encode())
        return Request(
            method="REGISTER",
            account=self._account,
            host=PBX_IPV4,
            contact=self._contact,
            transport="UDP",
            branch=f"z9hG4bK{self._number}",
            call_id=call_id.replace(b"{}", number),
            sequence=self._number,
            via=via,
        )

    def guess(self, request: Request, challenge: Challenge, before: bytes = b"") -> Request:
        """Return the request with a digest of a wrong password."""
        return request.authorized(challenge, f"wrong-{self._number}", f"{request.branch}a", before)

    def challenged(self) -> Challenge:
        """Request a challenge and return it."""
        challenge = challenge_of(self.ask(self.request().encode()) or b"")
        assert challenge is not None
        return challenge

    def send(self, message: bytes) -> None:
        """Send a datagram."""
        self._socket.sendto(message, (PBX_IPV4, 5060))

    def ask(self, message: bytes, seconds: float = 2.0) -> bytes | None:
        """Send a datagram and return the answer, or None."""
        self.send(message)
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(65_535)
        except TimeoutError:
            return None


@contextmanager
def guesser(lab: Lab, source: str, account: str = "alice") -> Iterator[Guesser]:
    """Yield a guesser at ``source``."""
    with socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        yield Guesser(sender, account)


OTHER = Challenge(401, "asterisk", "12345678")


def test_a_challenge_that_chan_sip_sends_to_a_stranger_counts_for_its_sender(
    asterisk16: Lab, tmp_path: Path
) -> None:
    """Without `rport` chan_sip challenges the address in a Via: its sender is banned, that address is not."""
    via = ";maddr=198.19.27.2"
    with (
        guarded(asterisk16, tmp_path, logs=NO_LOGS) as guard,
        guesser(asterisk16, "198.19.27.1", "bob") as bob,
    ):
        for _ in range(20):
            request = bob.request(via)
            bob.send(request.encode())
            bob.send(bob.guess(replace(request, username="another"), OTHER).encode())
        until(lambda: guard.banned() != set(), "a ban")

        assert guard.banned() == {"198.19.27.1"}


def test_a_sender_that_answers_an_invented_nonce_is_banned(asterisk16: Lab, tmp_path: Path) -> None:
    """chan_sip checks its passwords, answers `stale` to the right one, and reports only challenges."""
    answered = 0
    with (
        guarded(asterisk16, tmp_path) as guard,
        guesser(asterisk16, "198.19.27.3", "bob") as bob,
    ):
        bob.ask(bob.request(call_id=b"one").encode())
        while answered < MOST and bob.ask(bob.guess(bob.request(call_id=b"one"), OTHER).encode()):
            answered += 1
            guard.take_turn()

        assert answered < MOST
        until(lambda: guard.banned() == {"198.19.27.3"}, "the ban")


# Asterisk ignores a digest for another realm, and cannot write its event about the wrong one.
SILENCING = b'Authorization: Digest username="a", realm="other", nonce="\xff", uri="sip:x", response="0"\r\n'
BLAMING = b"\"x' failed for '203.0.113.9:5060' (callid: y\" "


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("198.19.111.1", lambda request: request),
        ("198.19.112.1", lambda request: replace(request, display=BLAMING)),
        ("198.19.113.1", lambda request: replace(request, call_id=b"L" * 8_200)),
        ("198.19.114.1", lambda request: replace(request, method="X" * 600, extension="100")),
    ],
    ids=["readable", "two-addresses", "cut", "long-method"],
)
def test_a_guess_without_an_event_and_a_readable_line(
    asterisk22: Lab, source: str, change: Callable[[Request], Request]
) -> None:
    """Whatever disturbs the log line, the challenge shows the guess: only the guesser is banned."""
    answered = 0
    with shared(asterisk22) as guard, guesser(asterisk22, source) as alice:
        challenge = alice.challenged()
        while answered < MOST and alice.ask(
            alice.guess(change(alice.request()), challenge, SILENCING).encode()
        ):
            answered += 1
            guard.take_turn()

        assert answered < MOST
        until(lambda: guard.banned() == {source}, "the ban")


@pytest.mark.parametrize(("source", "ends"), [("198.19.115.1", "closes"), ("198.19.116.1", "resets")])
def test_guesses_hidden_from_ami_by_tcp_that_hang_up_after_each(
    asterisk22: Lab, source: str, ends: str
) -> None:
    """The kernel reports the closed connection of each line, so the guesses count and cause a full ban."""
    answered = 0
    with shared(asterisk22) as guard:
        while answered < MOST:
            with socket_in(asterisk22.network.attacker) as sender:
                sender.settimeout(2)
                sender.bind((source, 0))
                try:
                    sender.connect((PBX_IPV4, 5060))
                    alice = Guesser(sender, "100")
                    hidden = replace(alice.request(via="", call_id=b"{}\xff"), transport="TCP")
                    sender.sendall(hidden.encode())
                    challenge = challenge_of(sender.recv(4096))
                    assert challenge is not None
                    sender.sendall(alice.guess(hidden, challenge).encode())
                    sender.recv(4096)
                except OSError:
                    break
                if ends == "resets":
                    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            answered += 1
            time.sleep(0.05)  # the daemon reads Asterisk's log in between
            guard.take_turn()

        assert answered < MOST
        until(lambda: guard.banned() == {source}, "the ban")
        assert " 5 of 5 " in guard.must("bans", source)
