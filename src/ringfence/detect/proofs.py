"""Proofs: which responses to challenges prove their sender, and which nothing can prove.

``nonces`` knows where each nonce went. A proof holds for the whole session (:class:`~.session.Session`), for
its earlier attempts too. AMI may report a response before the wire shows its challenge, so such a response is
remembered. Bound: ``MOST_AWAITED`` responses, the oldest are discarded first.
"""

from collections import OrderedDict
from collections.abc import Sequence

from ringfence.detect.events import session_key, session_number
from ringfence.detect.findings import Finding, NewProof, UnprovableGuess
from ringfence.detect.nonces import Nonces
from ringfence.detect.recent import remember
from ringfence.detect.sender import SESSION_LIFE, Senders
from ringfence.model import Address, Challenge, Proof, SecurityEvent, Service, Transport

MOST_AWAITED = 1_024
_MOST_OF_NONCE = 256  # bytes of a nonce that are kept


class Proofs:
    """Proves the senders of sessions by the nonces in their responses."""

    def __init__(self, senders: Senders, nonces: Nonces) -> None:
        self._senders = senders
        self._nonces = nonces
        self._awaited: OrderedDict[bytes, tuple[str, Address, bytes]] = OrderedDict()

    def on_challenge(self, challenge: Challenge, now: float) -> Sequence[Finding]:
        """Return the proof of an address if the response to this challenge was reported earlier, else ()."""
        answered = self._awaited.pop(challenge.nonce, None) if self._awaited else None
        if answered is None or not self._nonces.proves(challenge.nonce, answered[1], now):
            return ()
        return self.prove(*answered, now)

    def on_response(self, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle a failed response to a challenge of PJSIP; return what its nonce shows.

        The nonce may prove the named address, or show that nothing can prove the guess: the named address had
        the nonce sent elsewhere. Then the guess stays a claim about the named address. The receiver of the
        nonce is never blamed, because anyone can have a challenge sent to it, by ``maddr`` in the Via header,
        and a SIP proxy forwards it to the next Via (RFC 3261 §16.7).
        """
        if event.service is not Service.PJSIP or event.tampered or event.forgeable:
            return ()
        if not event.challenge or event.remote.transport is not Transport.UDP:
            return ()
        nonces, address = self._nonces, event.remote.address
        sent_to = nonces.receivers(event.challenge, now)
        answered = event.source.asterisk, address, event.session
        if nonces.proves(event.challenge, address, now):
            return self.prove(*answered, now)
        if not sent_to:  # the event of AMI arrived before the challenge
            remember(self._awaited, event.challenge[:_MOST_OF_NONCE], answered, MOST_AWAITED)
        elif sent_to != (address,) and nonces.only_sender(event.challenge, now) == address:
            return (UnprovableGuess(address),)
        return ()

    def prove(self, asterisk: str, address: Address, call_id: bytes, now: float) -> Sequence[Finding]:
        """Record that ``address`` is proven for all its attempts in a session.

        Return the proof; () if the session was proven lately, or has no Call-ID.
        """
        if not call_id:
            return ()
        session = self._senders.session(address, session_key(call_id), now)
        if now - session.proven < SESSION_LIFE:
            return ()
        session.proven = now
        self._senders.record_proof(address, now)
        return (NewProof(asterisk, address, session_number(call_id), Proof.NONCE),)
