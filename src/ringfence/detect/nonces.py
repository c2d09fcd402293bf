"""Whose nonce it was: what the wire saw leave, held against what a failed response carries.

A 401 or 407 carries a nonce, and a digest answers it: who answers has received it, or knows somebody who has.
The wire sees to which address each went, so a failed response whose nonce went to its address is *proven*.

chan_sip believes a Via ``maddr``: its events name whatever address the sender writes there, while the 401
goes to the true sender. There the nonce, 31 random bits for each dialogue, tells the true one. PJSIP's events
name the address that the packet came from, but its 401 goes where ``maddr`` says, and its nonce depends on
source and second alone (tried on 22.10.1): who forges a source can have its nonce sent to himself. So there
the wire only confirms, and only a nonce that went to that address and to nobody else.

A nonce that went to several addresses names none of them under chan_sip: whoever can forge a source may have
had it sent there. Bounds: 65 536 nonces, the oldest go first, which only loses proof.
"""

from collections import OrderedDict

from attrs import evolve

from ringfence.model import Address, Attempt, Challenge, Proof, Service, Transport

LIFE = 600.0
"""Seconds. PJSIP's nonces live 32 s, chan_sip's as long as the dialogue that a guesser keeps open."""

_MAX_NONCES = 65_536
_MAX_LENGTH = 256  # bytes of a nonce; Asterisk's have 8 (chan_sip) and 43 (PJSIP)
_SEVERAL = 2
_NEVER: tuple[float, tuple[Address, ...]] = (-LIFE, ())


class Nonces:
    """Which addresses each nonce went to. Times are monotonic seconds."""

    def __init__(self, max_nonces: int = _MAX_NONCES) -> None:
        self._max_nonces = max_nonces
        self._sent: OrderedDict[bytes, tuple[float, tuple[Address, ...]]] = OrderedDict()

    def __len__(self) -> int:
        """How many nonces are kept."""
        return len(self._sent)

    def note(self, challenge: Challenge, now: float) -> None:
        """Take what left on the wire at ``now``."""
        if 0 < len(challenge.nonce) <= _MAX_LENGTH:
            _, known = self._sent.pop(challenge.nonce, _NEVER)
            if len(known) < _SEVERAL and challenge.address not in known:
                known = (*known, challenge.address)
            self._sent[challenge.nonce] = now, known
        while self._sent and (
            len(self._sent) > self._max_nonces or now - next(iter(self._sent.values()))[0] >= LIFE
        ):
            self._sent.popitem(last=False)

    def receivers(self, nonce: bytes, now: float) -> tuple[Address, ...]:
        """Give the addresses that ``nonce`` went to, two at most; empty where none is known."""
        sent, addresses = self._sent.get(nonce, _NEVER)
        return addresses if now - sent < LIFE else ()

    def settled(self, attempt: Attempt, nonce: bytes, now: float) -> Attempt:
        """Give ``attempt``, a failed response that carried ``nonce``, with what the wire knows of it."""
        if attempt.transport is not Transport.UDP:
            return attempt
        receivers = self.receivers(nonce, now)
        if attempt.service is Service.PJSIP and receivers == (attempt.address,):
            return evolve(attempt, proof=Proof.NONCE)
        if attempt.service is Service.SIP and len(receivers) == 1:
            (address,) = receivers
            aimed_at = attempt.address if attempt.address != address else None
            return evolve(attempt, address=address, proof=Proof.NONCE, trusted=True, aimed_at=aimed_at)
        return attempt
