"""Witnesses: what becomes of events and challenges together, as the detector judges it.

That every interleaving of recordings counts the same is the matter of test_interleaved.
"""

from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SENDER, event

from ringfence.detect.detector import Detector, Standing
from ringfence.detect.doubts import PATIENCE
from ringfence.detect.hidden import WAIT
from ringfence.detect.rules import RULES, Rule
from ringfence.detect.unanswered import ANSWERED, MANY, SETTLED, SURE_AFTER
from ringfence.detect.witnesses import DOUBTFUL
from ringfence.model import (
    Challenge,
    Endpoint,
    EventKind,
    Proof,
    SecurityEvent,
    Service,
    Transport,
)

GUESS = RULES[0]
HERE = ip_address("198.18.0.1")
STRANGER = "203.0.113.9"
AT_ONCE = (evolve(GUESS, attempts=1),)


def challenge(address: str = SENDER, *, call_id: bytes = b"call-1", veiled: bool = False) -> Challenge:
    """Give a challenge that ``address`` asked PJSIP for, and got."""
    there = ip_address(address)
    return Challenge(there, 5062, HERE, 5060, call_id, b"1/x", there, veiled, "alice")


def line(address: str = SENDER, session: bytes = b"call-1") -> SecurityEvent:
    """Give a line of PJSIP's that blames ``address``."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, address=address, session=session)
    return evolve(told, hearsay=True)


def always(_: str) -> float:
    """Say that AMI was heard for long."""
    return -SURE_AFTER


def joining(rules: tuple[Rule, ...] = RULES) -> Detector:
    """Give a detector of a PBX that several sources tell of."""
    return Detector(rules, several=frozenset({"pbx"}))


def test_a_line_counts_at_once_where_its_challenge_was_seen() -> None:
    """Whether the challenge is seen before the line comes or after it."""
    for first in ("wire", "line"):
        detector = joining(AT_ONCE)
        judged = detector.see([challenge()], 0.0, 0.0, "pbx") if first == "wire" else []
        judgement = detector.observe(line(), 0.0)
        judged += [judgement] if judgement else []
        judged += detector.see([challenge()], 0.1, 0.1, "pbx") if first == "line" else []

        assert [(j.subject, j.standing) for j in judged] == [(ip_network(SENDER), Standing.COUNTED)]
        assert detector.tend(PATIENCE, wire=True) == []


def test_a_line_without_a_challenge_names_nobody() -> None:
    """Nobody is listed for it while the wire sees all; where it does not, he is listed and not banned."""
    for blind, wire, standing in (
        (None, True, Standing.FORGED),
        (0.0, True, Standing.WITHHELD),
        (None, False, Standing.WITHHELD),
    ):
        detector = joining(AT_ONCE)
        detector.see([challenge(call_id=b"another")], 0.0, 0.0, "pbx")
        if blind is not None:
            detector.blind(blind)
        assert detector.observe(line(), 0.0) is None
        (judgement,) = detector.tend(PATIENCE, wire=wire)
        assert (judgement.standing, judgement.decision) == (standing, None)
        assert bool(detector.watched(PATIENCE)) is (standing is Standing.WITHHELD)


def test_a_line_without_a_challenge_may_name_who_asked_before() -> None:
    """Who has his answers sent to nowhere guesses all the same; who has a phone here is not suspected."""
    for succeeds, standing in ((False, Standing.COUNTED), (True, Standing.FORGED)):
        detector = joining(AT_ONCE)
        detector.see([challenge(call_id=b"another")], 1.0, 1.0, "pbx")
        detector.observe(event(EventKind.CHALLENGE_SENT, session=b"another"), 1.0)
        by = SENDER if succeeds else STRANGER
        detector.observe(event(EventKind.SUCCESSFUL_AUTH, address=by, session=b"another"), 1.0)
        assert detector.tend(1.5, wire=True, listening=always) == []
        judged = [detector.observe(line(), 1.0 + ANSWERED)]
        judged += detector.tend(1.0 + ANSWERED + PATIENCE, wire=True, listening=always)
        assert [j.standing for j in judged if j] == [standing]


def test_who_asks_without_end_is_counted() -> None:
    """Whatever keeps his guesses from being told of: his challenges are not answered by a success."""
    detector = joining()
    detector.see([challenge(STRANGER)], 0.0, 0.0, "pbx")
    detector.observe(event(EventKind.SUCCESSFUL_AUTH, address=STRANGER), 0.5)
    for number in range(MANY + GUESS.attempts + 1):
        detector.see([challenge(call_id=b"%d" % number)], 1.0, 1.0, "pbx")
        detector.observe(event(EventKind.CHALLENGE_SENT, session=b"%d" % number), 1.0)
    judged = detector.tend(1.0 + SETTLED, listening=always)

    assert [j.decision.subject for j in judged if j.decision] == [ip_network(SENDER)]
    assert detector.counts.hidden >= GUESS.attempts


def test_a_phone_of_chan_sips_may_have_a_hundred_lamps() -> None:
    """Its subscriptions are challenged, and no success of theirs is told: that is no guessing."""
    detector = joining()
    detector.observe(event(EventKind.CHALLENGE_SENT, service=Service.SIP), 0.5)
    for number in range(2 * MANY):
        detector.see([evolve(challenge(call_id=b"%d" % number), service=Service.SIP)], 1.0, 1.0, "pbx")

    assert detector.tend(1.0 + SETTLED, listening=lambda _: 0.0) == []


def test_who_is_banned_already_gets_no_challenge() -> None:
    """So a line of his that comes late is late, and no forgery."""
    detector = joining()
    detector.see([challenge(call_id=b"another")], 0.0, 0.0, "pbx")
    detector.hold(ip_network(SENDER), 100.0)
    assert detector.observe(line(), 1.0) is None

    assert [j.standing for j in detector.tend(1.0 + PATIENCE, wire=True)] == [Standing.LATE]


def test_what_is_veiled_counts_by_itself() -> None:
    """Each request but the one that an opener's answer may be: nobody else can tell of them."""
    detector = joining()
    judged = detector.see([challenge(call_id=b"%d\xff" % n, veiled=True) for n in range(5)], 0.0, 7.0, "pbx")

    assert [j.standing for j in judged] == [Standing.COUNTED] * 5
    assert (judged[4].decision is not None, judged[0].attempt.time) == (True, 7.0)
    assert (judged[0].attempt.account, judged[0].attempt.event) == ("alice", EventKind.HIDDEN)
    assert detector.counts.hidden == 5


def test_a_veiled_guess_that_others_tell_of_counts_once() -> None:
    """ESC in a display name silences nobody: AMI tells of the same call."""
    detector = joining()
    detector.see([challenge(veiled=True)], 0.0, 0.0, "pbx")
    assert detector.observe(event(EventKind.INVALID_ACCOUNT_ID), 0.0) is None
    assert detector.counts.attempts == 1


def test_a_challenge_whose_sender_is_not_known_blames_nobody() -> None:
    """Neither chan_sip's nor another server's is evidence by itself."""
    detector = joining(AT_ONCE)
    assert detector.see([evolve(challenge(veiled=True), sender=None)], 0.0, 0.0, "pbx") == []
    assert detector.counts.attempts == 0


def test_what_ami_does_not_tell_of_counts_when_its_time_is_over() -> None:
    """A challenge that AMI was heard and did not tell of is an attempt of whoever asked for it."""
    detector = joining(AT_ONCE)
    detector.see([challenge(call_id=b"before")], 0.0, 0.0, "pbx")
    detector.observe(event(EventKind.CHALLENGE_SENT, session=b"before"), 0.0)
    detector.see([challenge()], 1.0, 1.0, "pbx")

    assert detector.tend(1.0 + WAIT - 0.1, listening=lambda _: 0.0) == []
    (judgement,) = detector.tend(1.0 + WAIT, 6.0, listening=lambda _: 0.0)
    assert (judgement.subject, judgement.standing) == (ip_network(SENDER), Standing.COUNTED)


def test_chan_sips_event_is_its_lines_attempt() -> None:
    """A line that names another address tells whom the event was aimed at, and counts once."""
    detector = joining()
    aimed = event(EventKind.INVALID_PASSWORD, service=Service.SIP, address=STRANGER)
    true = event(EventKind.INVALID_PASSWORD, service=Service.SIP, source=NOTICES, session=b"")
    assert detector.observe(aimed, 0.0) is None
    judgement = detector.observe(true, 0.0)
    assert judgement is not None
    assert judgement.standing is Standing.COUNTED

    (forged,) = detector.tend(PATIENCE)
    assert (forged.standing, str(forged.attempt.address)) == (Standing.FORGED, SENDER)
    assert str(forged.attempt.aimed_at) == STRANGER
    assert (detector.counts.attempts, detector.counts.forged) == (1, 1)


@pytest.mark.parametrize("kind", [EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_PASSWORD])
def test_chan_sips_challenge_that_went_to_a_stranger_blames_who_asked(kind: EventKind) -> None:
    """A Via can name a stranger in the event and have the challenge sent to him: its nonce proves nothing."""
    detector = joining(AT_ONCE)
    sent = evolve(challenge(STRANGER), nonce=b"n", sender=ip_address(SENDER), service=Service.SIP)
    detector.see([sent], 0.0, 0.0, "pbx")
    judgement = detector.observe(event(kind, service=Service.SIP, address=STRANGER, challenge=b"n"), 0.0)

    assert judgement is not None
    assert (judgement.subject, judgement.standing) == (ip_network(SENDER), Standing.COUNTED)
    assert judgement.attempt.proof is Proof.CLAIMED


def test_chan_sips_challenges_back_no_line_of_pjsips() -> None:
    """They are another server's, whoever asked for them."""
    detector = joining(AT_ONCE)
    detector.see([evolve(challenge(), service=Service.SIP)], 0.0, 0.0, "pbx")
    assert detector.observe(line(), 0.0) is None
    assert [j.standing for j in detector.tend(PATIENCE, wire=True)] == [Standing.FORGED]


def test_chan_sips_event_without_a_line_is_listed() -> None:
    """Nobody has said whose it is."""
    detector = joining(AT_ONCE)
    assert detector.observe(event(EventKind.INVALID_PASSWORD, service=Service.SIP), 0.0) is None
    assert [j.standing for j in detector.tend(PATIENCE)] == [Standing.WITHHELD]


def test_lines_of_chan_sip_are_remembered_up_to_a_bound() -> None:
    """Whoever makes ever new accounts fail fills no memory, and can only have a stranger listed."""
    detector = joining()
    for number in range(2_000):
        true = event(EventKind.INVALID_PASSWORD, service=Service.SIP, source=NOTICES, account=str(number))
        detector.observe(true, 0.0)
    assert len(detector._witnesses._lines) == 1_024


def test_a_line_of_who_is_connected_counts_when_nobody_else_tells() -> None:
    """By TCP or TLS the sender has shaken hands from just that port; the proof says so."""
    detector = Detector(AT_ONCE, several=frozenset({"pbx"}), connected=lambda remote: remote.port == 5062)
    assert detector.observe(line(), 0.0) is None
    (judgement,) = detector.tend(PATIENCE, wire=True)
    assert judgement.decision is not None
    assert (judgement.attempt.proof, judgement.attempt.transport) == (Proof.HANDSHAKE, Transport.TCP)


def test_the_kernel_is_asked_of_nobody_whom_others_tell_of() -> None:
    """It takes the time of several guesses, and most lines are told by AMI too."""
    asked: list[Endpoint] = []

    def connected(remote: Endpoint) -> bool:
        asked.append(remote)
        return True

    detector = Detector(RULES, several=frozenset({"pbx"}), connected=connected)
    detector.observe(line(), 0.0)
    detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED), 0.0)
    assert (detector.tend(PATIENCE, wire=True), asked) == ([], [])


def test_who_tries_ports_is_not_believed() -> None:
    """After a line about an address that nothing stood behind, its connection proves nothing for a while."""
    detector = Detector(AT_ONCE, several=frozenset({"pbx"}), connected=lambda remote: remote.port == 5062)
    wrong = evolve(line(STRANGER), remote=evolve(line(STRANGER).remote, port=5061))
    assert detector.observe(wrong, 0.0) is None
    assert detector.observe(line(STRANGER), 0.0) is None
    assert [j.decision for j in detector.tend(PATIENCE)] == [None, None]
    assert detector.observe(line(STRANGER), DOUBTFUL - 0.1) is None
    assert [j.decision for j in detector.tend(PATIENCE + DOUBTFUL - 0.1)] == [None]

    assert detector.observe(line(STRANGER), 3 * DOUBTFUL) is None
    (judgement,) = detector.tend(PATIENCE + 3 * DOUBTFUL)
    assert judgement.decision is not None
