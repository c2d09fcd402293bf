"""Findings: new attempts, and what the sources show of attempts that are known."""

from ipaddress import ip_address

from attrs import evolve
from tests.detect.events import NOTICES, PBX, SENDER, attempt, event

from ringfence.detect.attribution import Attribution
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.findings import AttributedAttempt, DuplicateReport, NewProof, duplicate_report
from ringfence.values.attempt import Proof
from ringfence.values.event import EventKind, Service
from ringfence.values.packet import CopiedAnswer

FAILED = EventKind.CHALLENGE_RESPONSE_FAILED
HERE = ip_address("198.18.0.1")


def test_the_first_report_is_an_attempt_and_the_next_a_duplicate_report() -> None:
    """The first source that reports an attempt makes it new, and the next one is recorded with it."""
    attribution = Attribution(KnownSources(frozenset({"pbx"})))
    [new] = attribution.observe(event(FAILED), 0.0)
    [known] = attribution.observe(evolve(event(FAILED), source=NOTICES), 0.1)

    assert isinstance(new, AttributedAttempt)
    assert isinstance(known, DuplicateReport)
    assert (known.address, known.source, known.session) == (
        new.attempt.address,
        NOTICES.name,
        new.attempt.session,
    )


def test_a_nonce_that_comes_back_is_a_proof_before_the_attempt() -> None:
    """A nonce that comes back proves its session, and the attempt that carries it comes last."""
    attribution = Attribution(KnownSources())
    sender = ip_address(SENDER)
    asked = CopiedAnswer(sender, 5062, HERE, 5060, b"call-1", b"1/x", sender)
    assert list(attribution.observe_answers([asked], 0.0, 0.0, "pbx")) == []
    proof, new = attribution.observe(event(FAILED, challenge=b"1/x"), 0.1)

    assert isinstance(new, AttributedAttempt)
    assert new.attempt.proof is Proof.NONCE
    assert proof == NewProof("pbx", sender, new.attempt.session, Proof.NONCE)


def test_a_duplicate_report_may_prove_an_attempt_of_chan_sip() -> None:
    """A duplicate report proves the attempt of chan_sip that it names; PJSIP proves whole sessions."""
    proven = attempt(proof=Proof.HANDSHAKE)
    for service, kinds in ((Service.SIP, [DuplicateReport, NewProof]), (Service.PJSIP, [DuplicateReport])):
        found = duplicate_report(proven, event(FAILED, service=service, source=PBX), 7, ami=True)
        assert [type(one) for one in found] == kinds


def test_a_line_explains_no_refusal_while_ami_is_connected() -> None:
    """AMI reports the reason of PJSIP. chan_sip's events may name another address than the line."""
    for service, source, ami, explains in (
        (Service.PJSIP, NOTICES, True, False),
        (Service.PJSIP, NOTICES, False, True),
        (Service.PJSIP, PBX, True, True),
        (Service.SIP, NOTICES, True, True),
    ):
        found = duplicate_report(attempt(), event(FAILED, service=service, source=source), 7, ami=ami)
        assert [one.explains for one in found if isinstance(one, DuplicateReport)] == [explains]
