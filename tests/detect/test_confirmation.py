"""Confirmation: which sources show that a log line names the right address, and when a line needs that."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, PBX, SENDER, Connected, event
from tests.support.listening import connected

from ringfence.detect.confirmation import (
    Answers,
    Backing,
    Confirmation,
    Connections,
    KnownSources,
    NoConnections,
)
from ringfence.detect.conversation import Conversations
from ringfence.detect.nonces import Nonces
from ringfence.detect.sessions import Senders, attempt_from
from ringfence.values.attempt import AttemptKind, Proof
from ringfence.values.event import EventKind, SecurityEvent, Transport
from ringfence.values.packet import CopiedAnswer

BY, HERE = ip_address(SENDER), ip_address("198.18.0.1")
ASKED = CopiedAnswer(BY, 5062, HERE, 5060, b"call-1", b"1/x", BY)
FAILED = EventKind.CHALLENGE_RESPONSE_FAILED


class Parts:
    """A confirmation with all its parts."""

    def __init__(self, connections: Connections | None = None, assumed: Proof = Proof.CLAIMED) -> None:
        sources = KnownSources(corroborated=frozenset({"pbx"}), assumed=assumed)
        self.senders, self.nonces = Senders(), Nonces()
        backing = Backing(connections or NoConnections(), self.senders)
        self.confirmation = Confirmation(
            self.senders,
            self.nonces,
            Answers(self.senders),
            backing,
            Conversations(),
            sources,
        )

    def proof(self, one: SecurityEvent, now: float = 0.0) -> Proof | None:
        """Return the proof of a confirmed event, or None."""
        confirmed = self.confirmation.confirmed(attempt_from(one, AttemptKind.GUESS), one, now)
        return confirmed.proof if confirmed is not None else None


def line(transport: Transport = Transport.UDP, nonce: bytes = b"") -> SecurityEvent:
    """Return a line of a wrong password."""
    return event(FAILED, source=NOTICES, transport=transport, challenge=nonce)


def test_a_challenge_confirms_a_line_as_a_claim_and_its_nonce_as_proven() -> None:
    """A challenge to the address and Call-ID confirms a line; the nonce of that challenge proves it."""
    parts = Parts()
    assert parts.proof(line()) is None
    parts.confirmation.sees_wire = True
    assert parts.proof(line()) is None
    parts.senders.session(BY, b"call-1", 0.0).challenged = 0.0
    parts.nonces.record(ASKED, 0.0)
    assert parts.proof(line()) is Proof.CLAIMED
    assert parts.proof(line(nonce=b"1/x")) is Proof.NONCE


def test_a_connection_confirms_a_line_by_a_stream() -> None:
    """The kernel's connection is a handshake, but proves nothing about a datagram."""
    parts = Parts(Connected((SENDER, 5062)))
    assert parts.proof(line(Transport.TLS)) is Proof.HANDSHAKE
    assert parts.proof(line()) is None


@pytest.mark.parametrize(
    ("wire", "ami", "hint"), [(True, None, True), (False, 1.0, True), (False, None, False)]
)
def test_a_line_is_a_hint_while_another_source_delivers(*, wire: bool, ami: float | None, hint: bool) -> None:
    """A datagram's line needs confirmation while AMI or the wire delivers; an event of AMI never does."""
    parts = Parts()
    parts.confirmation.tick(0.0, 0.0, connected(ami), wire=wire)
    for one, expected in ((line(), hint), (event(FAILED, source=PBX), False), (line(Transport.TCP), True)):
        attempt = attempt_from(one, AttemptKind.GUESS)
        assert parts.confirmation.is_hint(one, attempt) is expected
    assert parts.confirmation.confirms_login(line(), 0.0) is not hint


def test_a_proven_session_proves_its_datagrams() -> None:
    """An attempt has the proof of its session, unless it came by a stream or the proof is old."""
    parts = Parts()
    parts.confirmation.sees_wire = True
    parts.senders.session(BY, b"call-1", 0.0).proven = 0.0
    attempt = attempt_from(event(FAILED), AttemptKind.GUESS)
    for one, now, proof in (
        (attempt, 63.9, Proof.NONCE),
        (attempt, 64.0, Proof.CLAIMED),
        (evolve(attempt, transport=Transport.TCP), 0.0, Proof.CLAIMED),
    ):
        assert parts.confirmation.in_session(one, event(FAILED), now).proof is proof


def test_a_replay_assumes_the_proof_that_only_the_wire_could_give() -> None:
    """Without a wire, a replay of logs assumes the proof of each trusted attempt."""
    parts = Parts(assumed=Proof.NONCE)
    attempt = attempt_from(event(FAILED), AttemptKind.GUESS)
    assert parts.confirmation.with_proof(attempt, event(FAILED), 0.0).proof is Proof.NONCE
    assert parts.confirmation.in_session(evolve(attempt, trusted=False), event(FAILED), 0.0) is not None


def test_only_a_whole_wire_or_the_kernel_refutes_a_line() -> None:
    """A line is refuted while the wire sees every challenge and lost none; by a stream, by the kernel."""
    parts = Parts(Connected())
    parts.confirmation.sees_wire = True
    assert not parts.confirmation.would_have_been_seen(line(), 0.0)
    parts.confirmation.tick(0.0, 0.0, connected(None), wire=True)
    assert parts.confirmation.would_have_been_seen(line(), 0.0)
    assert parts.confirmation.would_have_been_seen(line(Transport.TLS), 0.0)
    parts.confirmation.lost_at = 0.0
    assert not parts.confirmation.would_have_been_seen(line(), 9.9)
    parts = Parts()
    parts.confirmation.sees_wire = True
    parts.confirmation.tick(0.0, 0.0, connected(None), wire=True)
    assert not parts.confirmation.would_have_been_seen(line(Transport.TLS), 0.0)
