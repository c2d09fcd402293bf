"""Nonces: what proves an address, which sender chan_sip's event has, and what proves nothing."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import SENDER, attempt

from ringfence.detect.nonces import AFTER_LOSS, LIFE, PJSIP_LIFE, Nonces
from ringfence.values.attempt import Attempt, Proof
from ringfence.values.event import Service, Transport
from ringfence.values.packet import CopiedAnswer

STRANGER = "203.0.113.9"
NONCE = b"1e479481"


def sent(to: str, nonce: bytes = NONCE, *, by: str | None = "") -> CopiedAnswer:
    """Return a challenge that left for ``to``, and that ``by`` asked for: ``to`` itself if empty."""
    sender = ip_address(by or to) if by is not None else None
    return CopiedAnswer(ip_address(to), 5060, ip_address("198.18.0.1"), 5060, b"call-1", nonce, sender)


def blamed(address: str, service: Service) -> Attempt:
    """Return an attempt for which Asterisk names ``address``, as the fold returns it."""
    return evolve(attempt(address, trusted=service is not Service.SIP), service=service)


@pytest.fixture
def nonces() -> Nonces:
    """Return a Nonces that has recorded no challenge."""
    return Nonces()


def test_an_attempt_at_chan_sip_is_of_its_nonces_receiver(nonces: Nonces) -> None:
    """An attempt at chan_sip is of its nonce's receiver, proven and trusted, whatever the event names."""
    nonces.record(sent(SENDER), 0.0)
    forged = blamed(STRANGER, Service.SIP)

    assert nonces.settled(forged, NONCE, 0.0) == evolve(
        forged,
        address=ip_address(SENDER),
        proof=Proof.NONCE,
        trusted=True,
        forged_address=ip_address(STRANGER),
    )
    honest = blamed(SENDER, Service.SIP)
    assert nonces.settled(honest, NONCE, 0.0) == evolve(honest, proof=Proof.NONCE, trusted=True)


def test_an_unreturned_nonce_names_its_requester(nonces: Nonces) -> None:
    """A nonce that did not come back names the address that asked for it, unproven, and not its receiver.

    The challenge went where a Via directs it, and the requester wrote the Via.
    """
    aimed = blamed(STRANGER, Service.SIP)
    nonces.record(sent(STRANGER, by=None), 0.0)
    assert nonces.settled(aimed, NONCE, 0.0, came_back=False) == aimed

    nonces.record(sent(STRANGER, b"another", by=SENDER), 0.0)
    assert nonces.settled(aimed, b"another", 0.0, came_back=False) == evolve(
        aimed, address=ip_address(SENDER), trusted=True, forged_address=ip_address(STRANGER)
    )
    nonces.record(sent(STRANGER, b"another", by="192.0.2.99"), 0.0)
    assert nonces.settled(aimed, b"another", 0.0, came_back=False) == aimed


def test_a_nonce_that_another_address_asked_for_proves_no_address(nonces: Nonces) -> None:
    """An attempt with a nonce that another address asked for is that other's, unproven.

    The other may have the same nonce by TLS, which the wire does not see.
    """
    nonces.record(sent(SENDER, by=STRANGER), 0.0)
    guess = blamed(SENDER, Service.SIP)

    assert nonces.settled(guess, NONCE, 0.0) == evolve(
        guess, address=ip_address(STRANGER), trusted=True, forged_address=ip_address(SENDER)
    )
    assert not nonces.proves(NONCE, ip_address(SENDER), 0.0)


def test_a_nonce_of_an_unknown_sender_proves_its_receiver_under_chan_sip(nonces: Nonces) -> None:
    """A nonce of unknown sender proves its receiver at chan_sip, so a long Via hides no guess.

    chan_sip cuts a long Via.
    """
    nonces.record(sent(SENDER, by=None), 0.0)
    guess = blamed(SENDER, Service.SIP)

    assert nonces.settled(guess, NONCE, 0.0) == evolve(guess, proof=Proof.NONCE, trusted=True)


def test_a_nonce_that_chan_sip_also_sent_by_a_stream_proves_no_address(nonces: Nonces) -> None:
    """A nonce that chan_sip also sent by TLS proves no address: it repeats one by UDP under one Call-ID."""
    nonces.record_elsewhere(NONCE, 0.0)
    nonces.record(evolve(sent(SENDER), service=Service.SIP), 0.0)
    guess = blamed(SENDER, Service.SIP)

    assert nonces.settled(guess, NONCE, 0.0) == evolve(guess, trusted=True)
    assert not nonces.proves(NONCE, ip_address(SENDER), 0.0)


@pytest.mark.parametrize("seconds", [-9.0, -AFTER_LOSS / 2, 0.0, AFTER_LOSS / 2, AFTER_LOSS])
def test_pjsips_nonces_before_a_loss_or_soon_after_it_prove_no_address(
    nonces: Nonces, seconds: float
) -> None:
    """The guesser may have received the same nonce in a packet that the wire lost."""
    pjsip = evolve(sent(SENDER), service=Service.PJSIP)
    nonces.record(evolve(pjsip, nonce=b"far"), 1.0)
    if seconds < 0:
        nonces.record(pjsip, 10.0 + seconds)
    nonces.record_loss(10.0)
    if seconds >= 0:
        nonces.record(pjsip, 10.0 + seconds)

    assert nonces.proves(NONCE, ip_address(SENDER), 12.0) is (seconds >= AFTER_LOSS)


def test_a_nonce_of_pjsip_that_is_seen_again_after_a_loss_still_proves_no_address(nonces: Nonces) -> None:
    """The lost packet may have been between the two."""
    pjsip = evolve(sent(SENDER), service=Service.PJSIP)
    nonces.record(pjsip, 9.0)
    nonces.record_loss(10.0)
    nonces.record(pjsip, 10.0 + AFTER_LOSS)
    assert not nonces.proves(NONCE, ip_address(SENDER), 12.0)


def test_pjsip_is_only_confirmed(nonces: Nonces) -> None:
    """A nonce that went to the named address alone proves it; one that went elsewhere changes nothing."""
    nonces.record(sent(SENDER), 0.0)
    guess = blamed(SENDER, Service.PJSIP)
    elsewhere = blamed(STRANGER, Service.PJSIP)

    assert nonces.settled(guess, NONCE, 0.0) == evolve(guess, proof=Proof.NONCE)
    assert nonces.settled(elsewhere, NONCE, 0.0) == elsewhere
    nonces.record(sent(STRANGER), 0.0)
    assert nonces.settled(guess, NONCE, 0.0) == guess


def test_a_nonce_with_two_receivers_names_no_address_under_chan_sip(nonces: Nonces) -> None:
    """A nonce that went to two addresses names neither, as a forger may have had it sent to a stranger."""
    nonces.record(sent(SENDER), 0.0)
    nonces.record(sent(STRANGER), 0.0)

    for address in (SENDER, STRANGER):
        guess = blamed(address, Service.SIP)
        assert nonces.settled(guess, NONCE, 0.0) == guess


@pytest.mark.parametrize("nonce", [b"", b"never-sent", b"x" * 10_000])
def test_an_unknown_nonce_proves_nothing(nonces: Nonces, nonce: bytes) -> None:
    """A nonce that was never sent, is empty, or is too long for Asterisk's leaves the attempt unchanged."""
    for left in (NONCE, b"", b"x" * 10_000):
        nonces.record(sent(SENDER, left), 0.0)
    guess = blamed(SENDER, Service.SIP)

    assert nonces.settled(guess, nonce, 0.0) == guess
    assert len(nonces) == 1


def test_what_was_sent_by_tcp_alone_proves_a_handshake(nonces: Nonces) -> None:
    """A nonce that was sent by TCP alone proves a handshake; one that also went by UDP does not.

    chan_sip answers by the connection of the request.
    """
    by_tcp = evolve(sent(SENDER), transport=Transport.TCP, service=Service.SIP)
    nonces.record(by_tcp, 0.0)
    guess = evolve(blamed(SENDER, Service.SIP), transport=Transport.TCP)
    assert nonces.settled(guess, NONCE, 0.0).proof is Proof.HANDSHAKE

    nonces.record(evolve(by_tcp, transport=Transport.UDP), 0.0)
    assert nonces.settled(guess, NONCE, 0.0).proof is Proof.NONCE


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
def test_a_relayed_challenge_proves_no_address(nonces: Nonces, service: Service) -> None:
    """A relayed challenge proves no address: its receiver forwards it by the next Via."""
    nonces.record(evolve(sent(SENDER), relayed=True, service=service), 0.0)
    guess = blamed(SENDER, service)

    assert nonces.settled(guess, NONCE, 0.0) == guess
    assert not nonces.proves(NONCE, ip_address(SENDER), 0.0)


def test_an_empty_nonce_is_not_recorded(nonces: Nonces) -> None:
    """A report without a nonce, or with one that is too long, changes nothing."""
    for nonce in (b"", b"x" * 100_000):
        nonces.record_elsewhere(nonce, 0.0)
    assert len(nonces) == 0


def test_what_is_kept_is_bounded_by_number_and_age() -> None:
    """The oldest nonce goes when there are too many, and each nonce expires when its life is over."""
    nonces = Nonces(max_nonces=2)
    for number in range(3):
        nonces.record(sent(SENDER, b"%d" % number), 0.0)

    assert (len(nonces), nonces.receivers(b"0", 0.0)) == (2, ())
    assert nonces.receivers(b"2", PJSIP_LIFE - 1) == (ip_address(SENDER),)
    assert nonces.receivers(b"2", PJSIP_LIFE) == ()
    nonces.record(evolve(sent(SENDER, b"of chan_sip"), service=Service.SIP), 0.0)
    nonces.record(sent(SENDER, b"new"), PJSIP_LIFE)
    assert len(nonces) == 2
    assert nonces.receivers(b"of chan_sip", LIFE - 1) == (ip_address(SENDER),)
    assert nonces.receivers(b"of chan_sip", LIFE) == ()
