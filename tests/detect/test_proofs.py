"""Proofs: a nonce that comes back proves its session; one that went elsewhere does not."""

from ipaddress import ip_address

from attrs import evolve
from tests.detect.events import SENDER, event

from ringfence.detect.attribution import Attribution
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.findings import NewProof, UnprovableGuess, WrongAnswer
from ringfence.detect.nonces import MOST_AWAITED, Nonces, Proofs
from ringfence.detect.sessions import Senders
from ringfence.values.attempt import Proof
from ringfence.values.event import EventKind, Transport
from ringfence.values.packet import CopiedAnswer, CopiedRequest

BY, OTHER, HERE = ip_address(SENDER), ip_address("203.0.113.9"), ip_address("198.18.0.1")
ASKED = CopiedAnswer(BY, 5062, HERE, 5060, b"call-1", b"1/x", BY)
ANSWER = event(EventKind.CHALLENGE_RESPONSE_FAILED, challenge=b"1/x")


def proofs(*asked: CopiedAnswer) -> Proofs:
    """Return the proofs of a wire that saw these challenges."""
    senders, nonces = Senders(), Nonces()
    for challenge in asked:
        nonces.record(challenge, 0.0)
    return Proofs(senders, nonces)


def test_a_nonce_that_comes_back_proves_its_session_once() -> None:
    """The proof of a session is returned once, and again when it has expired."""
    known = proofs(ASKED)
    [proof] = known.on_response(ANSWER, 1.0)
    assert isinstance(proof, NewProof)
    assert (proof.address, proof.proof) == (BY, Proof.NONCE)
    assert list(known.on_response(ANSWER, 40.0)) == []
    assert len(known.prove("pbx", BY, b"call-1", 65.0)) == 1


def test_no_session_is_proven_without_a_call_id() -> None:
    """A response without a Call-ID proves nothing, because any sender may have none."""
    assert list(proofs(ASKED).on_response(evolve(ANSWER, session=b""), 1.0)) == []


def test_only_a_datagram_that_obeys_the_grammar_proves() -> None:
    """A tampered or forgeable event, or one of a stream, proves nothing."""
    for one in (
        evolve(ANSWER, tampered=True),
        evolve(ANSWER, forgeable=True),
        evolve(ANSWER, challenge=b""),
        evolve(ANSWER, remote=evolve(ANSWER.remote, transport=Transport.TCP)),
    ):
        assert list(proofs(ASKED).on_response(one, 1.0)) == []


def test_a_response_before_its_challenge_is_proven_when_the_challenge_comes() -> None:
    """AMI may be read before the wire. Waiting responses are bounded, and the oldest are discarded first."""
    known = proofs()
    assert list(known.on_response(ANSWER, 0.0)) == []
    known._nonces.record(ASKED, 0.1)
    assert len(known.on_challenge(ASKED, 0.1)) == 1
    known = proofs()
    for number in range(MOST_AWAITED + 1):
        known.on_response(evolve(ANSWER, challenge=b"%d" % number), 0.0)
    assert len(known._awaited) == MOST_AWAITED


def test_a_nonce_that_went_elsewhere_blames_no_receiver() -> None:
    """The guess is unprovable for the address that had the nonce sent elsewhere."""
    known = proofs(evolve(ASKED, address=OTHER))
    assert list(known.on_response(ANSWER, 1.0)) == [UnprovableGuess(BY)]
    assert list(proofs(evolve(ASKED, address=OTHER, sender=OTHER)).on_response(ANSWER, 1.0)) == []


def test_a_nonce_that_its_sender_had_sent_to_two_is_unprovable() -> None:
    """One sender that asks for a nonce at two addresses makes a guess that nothing can prove."""
    assert list(proofs(ASKED, evolve(ASKED, address=OTHER)).on_response(ANSWER, 1.0)) == [UnprovableGuess(BY)]
    both = proofs(ASKED, evolve(ASKED, address=OTHER, sender=OTHER))
    assert list(both.on_response(ANSWER, 1.0)) == []


def test_a_request_with_two_call_ids_proves_both_sessions() -> None:
    """PJSIP and chan_sip may read different ones of them."""
    attribution = Attribution(KnownSources(frozenset({"pbx"})))
    attribution.observe_answers([ASKED], 0.0, 0.0, "pbx")
    request = CopiedRequest(BY, 5062, (b"1/x",), (b"call-1", b"call-2"), (1,), credentials=True, digest=b"d")
    found = attribution.observe_requests([request], 1.0, "pbx")
    assert [type(one) for one in found] == [NewProof, NewProof]


def test_the_answer_to_a_call_without_credentials_names_its_asterisk() -> None:
    """An account is attacked at one Asterisk; another one may have the same name."""
    attribution = Attribution(KnownSources(frozenset({"pbx"})))
    tls = Transport.TLS
    call = evolve(event(EventKind.INVALID_ACCOUNT_ID, transport=tls), method="INVITE")
    found = [*attribution.observe(call, 0.0)]
    found += attribution.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, transport=tls), 0.1)
    assert [one.asterisk for one in found if isinstance(one, WrongAnswer)] == ["pbx"]
