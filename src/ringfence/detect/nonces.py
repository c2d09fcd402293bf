"""Whose nonce it was: what the wire saw leave, held against what a failed response carries.

A 401 or 407 carries a nonce, and a digest answers it: who answers has received it, or knows somebody who has.
The wire sees to which address each went, so a failed response whose nonce went to its address is *proven*.

chan_sip believes a Via ``maddr``: its events name whatever address the sender writes there, and where he
writes no ``rport``, the 401 goes there too (tried on 16.28 with its default settings). But its nonce, 31
random bits for each challenge, tells the true one in two ways:

- ``InvalidPassword`` carries the nonce that *came back* in the guess. Who sent it back is whom it went to.
- Its other events carry the nonce that Asterisk has just sent, whatever came: that it went to an address says
  nothing of who made it go there. He is whom the challenge notes as its sender (``parse/challenge.py``).

PJSIP's events name the address that the packet came from, but its 401 goes where ``maddr`` says, and its
nonce depends on the source's address and the second alone, not on port or transport
(``res_pjsip_authenticator_digest.c:build_nonce``; tried on 22.10.1). So who forges a source can have its
nonce sent to himself; and who asks by TCP as well, which the wire does not see, can have his own sent to a
stranger. A nonce that went to the named address and to nobody else confirms it, since nobody asks by TCP from
an address that is not his. Any other is a claim, for the named one and for whom it went to.

A nonce that several addresses had to do with names none of them under chan_sip: whoever can forge a source
may have had it sent there. Bounds: 65 536 nonces, the oldest go first, which only loses proof.
"""

from collections import OrderedDict

from attrs import evolve, frozen

from ringfence.model import Address, Attempt, Challenge, Proof, Service, Transport

LIFE = 600.0
"""Seconds. chan_sip's nonces live as long as the dialogue that a guesser keeps open."""

PJSIP_LIFE = 64.0
"""Seconds. PJSIP's live half of it, so a million senders in an hour leave few of them here."""

_MAX_NONCES = 65_536
_MAX_LENGTH = 256  # bytes of a nonce; Asterisk's have 8 (chan_sip) and 43 (PJSIP)
_SEVERAL = 2


@frozen
class _Sent:
    """When a nonce was sent last, to whom, and who had asked for it; of both two at most."""

    at: float = -LIFE
    receivers: tuple[Address, ...] = ()
    senders: tuple[Address | None, ...] = ()


_NEVER = _Sent()


class Nonces:
    """Whom each nonce went to, and who asked for it. Times are monotonic seconds."""

    def __init__(self, max_nonces: int = _MAX_NONCES) -> None:
        self._max_nonces = max_nonces
        self._sent: OrderedDict[bytes, _Sent] = OrderedDict()
        self._of_pjsip: OrderedDict[bytes, _Sent] = OrderedDict()

    def __len__(self) -> int:
        """How many nonces are kept."""
        return len(self._sent) + len(self._of_pjsip)

    def note(self, challenge: Challenge, now: float) -> None:
        """Take what left on the wire at ``now``."""
        nonce, sender = challenge.nonce, challenge.sender
        if 0 < len(nonce) <= _MAX_LENGTH:
            short = challenge.service is Service.PJSIP
            table = self._of_pjsip if short else self._sent
            known = table.pop(nonce, _NEVER)
            receivers, senders = known.receivers, known.senders
            if len(receivers) < _SEVERAL and challenge.address not in receivers:
                receivers = (*receivers, challenge.address)
            if len(senders) < _SEVERAL and sender not in senders:
                senders = (*senders, sender)
            table[nonce] = _Sent(now, receivers, senders)
        for table, life in ((self._sent, LIFE), (self._of_pjsip, PJSIP_LIFE)):
            while table and (len(table) > self._max_nonces or now - next(iter(table.values())).at >= life):
                table.popitem(last=False)

    def receivers(self, nonce: bytes, now: float) -> tuple[Address, ...]:
        """Give the addresses that ``nonce`` went to, as many as are kept; empty where none is known."""
        return self._known(nonce, now).receivers

    def settled(self, attempt: Attempt, nonce: bytes, now: float, *, came_back: bool = True) -> Attempt:
        """Give ``attempt``, told of by an event that carried ``nonce``, with what the wire knows of it.

        ``came_back`` says that under chan_sip the nonce is the one in the guess.
        """
        if attempt.transport is not Transport.UDP:
            return attempt
        known = self._known(nonce, now)
        if attempt.service is Service.PJSIP and known.receivers == (attempt.address,):
            return evolve(attempt, proof=Proof.NONCE)
        if attempt.service is not Service.SIP:
            return attempt
        whose = known.receivers if came_back else known.senders
        address = whose[0] if len(whose) == 1 else None
        if address is None:
            return attempt
        proof = Proof.NONCE if came_back else Proof.CLAIMED
        aimed_at = attempt.address if attempt.address != address else None
        return evolve(attempt, address=address, proof=proof, trusted=True, aimed_at=aimed_at)

    def _known(self, nonce: bytes, now: float) -> _Sent:
        sent = self._of_pjsip.get(nonce)
        if sent is not None:
            return sent if now - sent.at < PJSIP_LIFE else _NEVER
        sent = self._sent.get(nonce, _NEVER)
        return sent if now - sent.at < LIFE else _NEVER
