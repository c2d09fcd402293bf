"""Whose nonce it was: proof, chan_sip's true sender, and what nothing may be concluded from."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import SENDER, attempt

from ringfence.detect.nonces import LIFE, PJSIP_LIFE, Nonces
from ringfence.model import Attempt, Challenge, Proof, Service, Transport

STRANGER = "203.0.113.9"
NONCE = b"1e479481"


def sent(to: str, nonce: bytes = NONCE, *, by: str | None = None) -> Challenge:
    """Give a challenge that left for ``to``, and that ``by`` had asked for."""
    sender = ip_address(by) if by is not None else None
    return Challenge(ip_address(to), 5060, ip_address("198.18.0.1"), 5060, b"call-1", nonce, sender)


def blamed(address: str, service: Service) -> Attempt:
    """Give an attempt that Asterisk blames on ``address``, as the fold gives it."""
    return evolve(attempt(address, trusted=service is not Service.SIP), service=service)


@pytest.fixture
def nonces() -> Nonces:
    """Nothing has left yet."""
    return Nonces()


def test_chan_sip_is_told_who_it_was(nonces: Nonces) -> None:
    """Whomever the event blames, the attempt is of him whom the nonce went to, proven, and may ban."""
    nonces.note(sent(SENDER), 0.0)
    forged = blamed(STRANGER, Service.SIP)

    assert nonces.settled(forged, NONCE, 0.0) == evolve(
        forged,
        address=ip_address(SENDER),
        proof=Proof.NONCE,
        trusted=True,
        aimed_at=ip_address(STRANGER),
    )
    honest = blamed(SENDER, Service.SIP)
    assert nonces.settled(honest, NONCE, 0.0) == evolve(honest, proof=Proof.NONCE, trusted=True)


def test_a_nonce_that_did_not_come_back_names_who_asked_for_it(nonces: Nonces) -> None:
    """It went where a Via says: that blames nobody, and him who wrote the Via though nothing proves it."""
    aimed = blamed(STRANGER, Service.SIP)
    nonces.note(sent(STRANGER), 0.0)
    assert nonces.settled(aimed, NONCE, 0.0, came_back=False) == aimed

    nonces.note(sent(STRANGER, b"another", by=SENDER), 0.0)
    assert nonces.settled(aimed, b"another", 0.0, came_back=False) == evolve(
        aimed, address=ip_address(SENDER), trusted=True, aimed_at=ip_address(STRANGER)
    )
    nonces.note(sent(STRANGER, b"another", by="192.0.2.99"), 0.0)
    assert nonces.settled(aimed, b"another", 0.0, came_back=False) == aimed


def test_a_nonce_that_came_back_names_whom_it_went_to(nonces: Nonces) -> None:
    """Whoever had asked for it."""
    nonces.note(sent(SENDER, by=STRANGER), 0.0)
    guess = blamed(SENDER, Service.SIP)

    assert nonces.settled(guess, NONCE, 0.0) == evolve(guess, proof=Proof.NONCE, trusted=True)


def test_pjsip_is_only_confirmed(nonces: Nonces) -> None:
    """A nonce that went to the blamed address alone proves it; one that went elsewhere changes nothing."""
    nonces.note(sent(SENDER), 0.0)
    guess = blamed(SENDER, Service.PJSIP)
    elsewhere = blamed(STRANGER, Service.PJSIP)

    assert nonces.settled(guess, NONCE, 0.0) == evolve(guess, proof=Proof.NONCE)
    assert nonces.settled(elsewhere, NONCE, 0.0) == elsewhere
    nonces.note(sent(STRANGER), 0.0)
    assert nonces.settled(guess, NONCE, 0.0) == guess


def test_a_nonce_that_went_to_two_names_nobody_under_chan_sip(nonces: Nonces) -> None:
    """Who can forge a source may have had his nonce sent to a stranger too: then neither is named."""
    nonces.note(sent(SENDER), 0.0)
    nonces.note(sent(STRANGER), 0.0)

    for address in (SENDER, STRANGER):
        guess = blamed(address, Service.SIP)
        assert nonces.settled(guess, NONCE, 0.0) == guess


@pytest.mark.parametrize("nonce", [b"", b"never-sent", b"x" * 10_000])
def test_an_unknown_nonce_proves_nothing(nonces: Nonces, nonce: bytes) -> None:
    """A nonce that was never sent, is empty, or is longer than any of Asterisk's leaves all as it is."""
    for left in (NONCE, b"", b"x" * 10_000):
        nonces.note(sent(SENDER, left), 0.0)
    guess = blamed(SENDER, Service.SIP)

    assert nonces.settled(guess, nonce, 0.0) == guess
    assert len(nonces) == 1


def test_only_datagrams_are_settled(nonces: Nonces) -> None:
    """The wire is that of UDP: an attempt by TCP is left as it is."""
    nonces.note(sent(SENDER), 0.0)
    guess = evolve(blamed(SENDER, Service.SIP), transport=Transport.TCP)

    assert nonces.settled(guess, NONCE, 0.0) == guess


def test_what_is_kept_is_bounded_by_number_and_age() -> None:
    """The oldest nonce goes when there are too many, and each when its life is over."""
    nonces = Nonces(max_nonces=2)
    for number in range(3):
        nonces.note(sent(SENDER, b"%d" % number), 0.0)

    assert (len(nonces), nonces.receivers(b"0", 0.0)) == (2, ())
    assert nonces.receivers(b"2", PJSIP_LIFE - 1) == (ip_address(SENDER),)
    assert nonces.receivers(b"2", PJSIP_LIFE) == ()
    nonces.note(evolve(sent(SENDER, b"of chan_sip"), service=Service.SIP), 0.0)
    nonces.note(sent(SENDER, b"new"), PJSIP_LIFE)
    assert len(nonces) == 2
    assert nonces.receivers(b"of chan_sip", LIFE - 1) == (ip_address(SENDER),)
    assert nonces.receivers(b"of chan_sip", LIFE) == ()
