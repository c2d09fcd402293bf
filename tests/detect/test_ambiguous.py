"""Ambiguous lines: readings that a connection confirms, at once or a little later."""

from attrs import evolve
from tests.detect.driven import Driven
from tests.detect.events import NOTICES, SENDER, Connected, event

from ringfence.detect.ambiguous import MOST_LINES, PATIENCE, AmbiguousLines
from ringfence.detect.confirmation import UNBACKED, Backing, KnownSources
from ringfence.detect.judgement import Disposition
from ringfence.detect.rules import RULES
from ringfence.detect.sessions import Senders
from ringfence.values.attempt import Proof
from ringfence.values.event import EventKind, SecurityEvent, Service, Transport

VICTIM = "203.0.113.9"


def reading(address: str = SENDER, port: int = 5062) -> SecurityEvent:
    """Return the event of a notice of PJSIP that names ``address`` and ``port``."""
    named = event(
        EventKind.CHALLENGE_RESPONSE_FAILED,
        source=NOTICES,
        address=address,
        port=port,
        transport=Transport.UNKNOWN,
    )
    return evolve(named, forgeable=True)


TRUE, FALSE = reading(), reading(VICTIM, 5060)


def test_the_sender_counts_and_the_other_address_does_not() -> None:
    """Five lines that also name a stranger are five attempts of their sender, and none of the stranger."""
    detector = Driven(
        RULES, sources=KnownSources(frozenset({"pbx"})), connections=Connected((SENDER, TRUE.remote.port))
    )
    judged = []
    for number in range(5):
        session = b"call-%d" % number
        readings = tuple(evolve(one, session=session, time=float(number)) for one in (FALSE, TRUE))
        judged += detector.observe(evolve(readings[0], readings=readings), float(number))
        judged += detector.tick(number + 0.9, wire=True)

    assert {(j.attempt.address, j.attempt.proof) for j in judged} == {(TRUE.remote.address, Proof.HANDSHAKE)}
    assert [j.disposition for j in judged] == [Disposition.COUNTED] * 5


def test_a_connection_that_appears_late_counts() -> None:
    """A reading without a connection is tried once more, and then dropped."""
    kernel = Connected()
    lines = AmbiguousLines(Backing(kernel, Senders()))

    assert list(lines.backed([TRUE, FALSE], 0.0)) == []
    kernel.remotes = Connected((SENDER, TRUE.remote.port)).remotes
    assert list(lines.due(PATIENCE / 2)) == []
    assert list(lines.due(PATIENCE)) == [TRUE]
    assert list(lines.due(2 * PATIENCE)) == []


def test_wrong_ports_of_an_address_count_against_it() -> None:
    """After lines with many wrong ports of a victim, a right port of it confirms no line."""
    backing = Backing(Connected((VICTIM, 7), (SENDER, TRUE.remote.port)), Senders())
    lines = AmbiguousLines(backing)
    guessed = [reading(VICTIM, 5060), reading(VICTIM, 5061), TRUE]
    for _ in range(UNBACKED + 1):
        assert list(lines.backed(guessed, 0.0)) == [TRUE]
    assert list(lines.due(PATIENCE)) == []

    hit = reading(VICTIM, 7)
    assert list(lines.backed([hit, TRUE], 1.0)) == [hit, TRUE]
    assert not backing.confirms(hit.remote, Service.PJSIP, 1.0)
    assert backing.confirms(TRUE.remote, Service.PJSIP, 1.0)


def test_a_sender_cannot_spoil_its_own_lines() -> None:
    """Other ports of the sender's own address in its lines do not count against it."""
    backing = Backing(Connected((SENDER, TRUE.remote.port)), Senders())
    lines = AmbiguousLines(backing)
    for _ in range(UNBACKED + 1):
        assert list(lines.backed([reading(port=1), reading(port=2), TRUE], 0.0)) == [TRUE]
    assert list(lines.due(PATIENCE)) == []

    assert backing.confirms(TRUE.remote, Service.PJSIP, 1.0)


def test_the_oldest_lines_make_room() -> None:
    """Of more lines than may wait, the oldest are tried at once."""
    kernel = Connected()
    lines = AmbiguousLines(Backing(kernel, Senders()))
    for _ in range(MOST_LINES):
        assert list(lines.backed([TRUE], 0.0)) == []
    kernel.remotes = Connected((SENDER, TRUE.remote.port)).remotes

    assert list(lines.backed([FALSE], 0.0)) == [TRUE]
    assert list(lines.due(PATIENCE)) == [TRUE] * (MOST_LINES - 1)
