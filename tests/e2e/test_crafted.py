"""Requests that no tool makes, on a real Asterisk: what they hide is seen, and whom they name is left alone.

Each test has a source of its own. The guesses are real ones: with the right password they would be let in.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, guarded
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in
from tests.support.sip_wire import Challenge, Request, challenge_of

pytestmark = pytest.mark.asterisk

MOST = 2_000


class Guesser:
    """One socket of an attacker's; ``ask`` sends a request and gives the answer, None where none comes."""

    def __init__(self, sender: socket.socket, account: str) -> None:
        self._socket = sender
        self._account = account
        self._number = 0
        host, port = sender.getsockname()
        self._contact = f"{host}:{port}"

    def request(self, via: str = ";rport", call_id: bytes = b"{}") -> Request:
        """Give a REGISTER; in ``call_id`` ``{}`` becomes its number."""
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
        """Give the request with a wrong password."""
        return request.authorized(challenge, f"wrong-{self._number}", f"{request.branch}a", before)

    def challenged(self) -> Challenge:
        """Ask for a challenge."""
        challenge = challenge_of(self.ask(self.request().encode()) or b"")
        assert challenge is not None
        return challenge

    def send(self, message: bytes) -> None:
        """Send a datagram."""
        self._socket.sendto(message, (PBX_IPV4, 5060))

    def ask(self, message: bytes, seconds: float = 0.5) -> bytes | None:
        """Send a datagram and give what is answered."""
        self.send(message)
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(65_535)
        except TimeoutError:
            return None


@contextmanager
def guesser(lab: Lab, source: str, account: str = "alice") -> Iterator[Guesser]:
    """Give a guesser at ``source``."""
    with socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        yield Guesser(sender, account)


OTHER = Challenge(401, "asterisk", "12345678")


def test_a_challenge_that_chan_sip_sends_to_a_stranger_blames_its_sender(
    asterisk16: Lab, tmp_path: Path
) -> None:
    """Without `rport` chan_sip challenges whom a Via names: who wrote it is banned, and nobody there."""
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


def test_who_answers_a_nonce_of_his_own_is_banned(asterisk16: Lab, tmp_path: Path) -> None:
    """chan_sip checks his passwords, says `stale` to the right one, and tells of challenges only."""
    answered = 0
    with (
        guarded(asterisk16, tmp_path) as guard,
        guesser(asterisk16, "198.19.27.3", "bob") as bob,
    ):
        bob.ask(bob.request(call_id=b"one").encode())
        while answered < MOST and bob.ask(bob.guess(bob.request(call_id=b"one"), OTHER).encode()):
            answered += 1

        assert answered < MOST
        assert guard.banned() == {"198.19.27.3"}


# Asterisk passes over a digest for another realm, and its event of the wrong one cannot be written.
SILENCING = b'Authorization: Digest username="a", realm="other", nonce="\xff", uri="sip:x", response="0"\r\n'
BLAMING = b"\"x' failed for '203.0.113.9:5060' (callid: y\" "


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("198.19.27.4", lambda request: request),
        ("198.19.27.5", lambda request: replace(request, display=BLAMING)),
        ("198.19.27.6", lambda request: replace(request, call_id=b"L" * 8_200)),
        ("198.19.27.7", lambda request: replace(request, method="X" * 600, extension="100")),
    ],
    ids=["readable", "two-addresses", "cut", "long-method"],
)
def test_a_guess_that_no_event_and_no_readable_line_tells_of(
    asterisk22: Lab, tmp_path: Path, source: str, change: Callable[[Request], Request]
) -> None:
    """Whatever is done to the line in the log, its challenge shows it: guesses end, and blame no other."""
    answered = 0
    with guarded(asterisk22, tmp_path) as guard, guesser(asterisk22, source) as alice:
        challenge = alice.challenged()
        while answered < MOST and alice.ask(
            alice.guess(change(alice.request()), challenge, SILENCING).encode()
        ):
            answered += 1

        assert answered < MOST
        assert guard.banned() == {source}
