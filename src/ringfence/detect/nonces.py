"""Nonces: matches the challenges that the wire saw with the nonces of failed responses.

The *wire* is the source that reads the challenges (401, 407) that leave this host, copied by the kernel. A
challenge carries a nonce, and the response contains a digest of it. So the sender of the response received
the nonce, or knows a receiver. The wire sees the destination of each nonce. So the address of a failed
response is *proven* if its nonce was sent to this address only.

chan_sip believes a Via ``maddr``: its events name the address that the sender writes there. Without an
``rport`` the 401 goes there too (tried on 16.28 with its default settings). But chan_sip's nonce, 31 random
bits for each challenge, shows the true sender in two ways:

- ``InvalidPassword`` carries the nonce that *came back* in the guess. The address to which the nonce was sent
  is proven as the sender of the guess, if this address also asked for the nonce and the wire saw each
  destination of the nonce.
- The other events of chan_sip carry the nonce that Asterisk has just sent. The destination of that nonce does
  not show the sender, but the challenge itself names the sender (``parse/answers.py``).

PJSIP's events name the source address of the packet, but its 401 goes to the ``maddr``. PJSIP's nonce depends
on the source address and the time in whole seconds alone, not on port or transport
(``res_pjsip_authenticator_digest.c:build_nonce``; tried on 22.10.1). This allows two attacks. A sender that
forges a source address can have the nonce for that address sent to itself. And a sender can get its own nonce
by TLS, which the wire cannot read, and have the same nonce sent by UDP to a stranger. So a nonce proves the
address in an event only if it was sent to this address alone. With any other nonce, the attempt remains a
claim: neither the named address nor the receiver is proven.

Under chan_sip, an attempt whose nonce has several receivers or senders is attributed to none of them: a
sender with a forged source may have asked for the nonce. A nonce also proves no address if its receiver may
have forwarded it (``relays``).

If the wire loses packets, a nonce with one known receiver may have had another one, the guesser. So all
nonces of PJSIP that were read before the loss prove no address, and neither do those of the next
``AFTER_LOSS`` seconds. Packets that wait unread while an event is judged count as lost.

Over TCP the challenge uses the connection of its request, so the receiver is the sender of the request, and
the kernel has completed a handshake with it. Bounds: 32 768 nonces of each of chan_sip and PJSIP. The oldest
are discarded first; then they prove nothing.
"""

from collections import OrderedDict
from collections.abc import Sequence

from attrs import frozen

from ringfence.detect.findings import Finding, NewProof, UnprovableGuess
from ringfence.detect.sessions import SESSION_LIFE, Senders, remember, session_number
from ringfence.values.attempt import Attempt, Proof
from ringfence.values.event import SecurityEvent, Service, Transport
from ringfence.values.fast import evolve
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer

LIFE = 600.0
"""How long a nonce (of a challenge) that chan_sip sent is remembered (seconds).

chan_sip accepts it as long as the guesser keeps the dialogue open.
"""

PJSIP_LIFE = 48.0
"""How long a nonce (of a challenge) that PJSIP sent is remembered (seconds). PJSIP accepts it for 32 s.

A short time keeps the table small if there are a million senders an hour. It is also shorter than the minute
for which closed connections are remembered. So while a nonce is known, a TLS connection that received it is
known too, and its guess is not attributed to another address.
"""

AFTER_LOSS = 2.0
"""PJSIP's nonces of this time (seconds) after a loss of copied packets prove no address.

PJSIP sends the same nonce for up to one second, so the lost packets may also have contained it. No nonce from
before the loss proves an address either, however old it is: a reader that is late may need many seconds for
the challenges of one.
"""

_MAX_NONCES = 32_768
_MAX_LENGTH = 256  # bytes of a nonce; Asterisk's have 8 (chan_sip) and 43 (PJSIP)
_SEVERAL = 2


@frozen
class _Sent:
    """When Asterisk last sent a nonce, the addresses that got it, and the senders that asked for it.

    Only the first two receivers and the first two senders are kept.
    """

    at: float = -LIFE
    receivers: tuple[Address, ...] = ()
    senders: tuple[Address | None, ...] = ()
    relayed: bool = False  # a receiver may be unknown: a relay may have forwarded the challenge
    stream: bool = True  # the nonce was sent only by TCP
    elsewhere: bool = False  # chan_sip also sent it by TCP or TLS, which the wire may miss

    @property
    def is_whole(self) -> bool:
        """Whether all receivers of the nonce are known: the kernel copied each packet with it, by UDP."""
        return not (self.relayed or self.stream or self.elsewhere)


_NEVER = _Sent()


class Nonces:
    """Remembers for each nonce who got it, and who asked for it. Times are monotonic seconds."""

    def __init__(self, max_nonces: int = _MAX_NONCES) -> None:
        self._max_nonces = max_nonces
        self._sent: OrderedDict[bytes, _Sent] = OrderedDict()
        self._of_pjsip: OrderedDict[bytes, _Sent] = OrderedDict()
        self._lost_at = -LIFE

    def __len__(self) -> int:
        """Return the number of nonces that are remembered."""
        return len(self._sent) + len(self._of_pjsip)

    def record(self, challenge: CopiedAnswer, now: float) -> None:
        """Record the nonce and receiver of a challenge (401 or 407) that left at ``now`` (monotonic)."""
        nonce, sender = challenge.nonce, challenge.sender
        if 0 < len(nonce) <= _MAX_LENGTH:
            short = challenge.service is Service.PJSIP
            table = self._of_pjsip if short else self._sent
            known = table.pop(nonce, _NEVER)
            receivers, senders = known.receivers, known.senders
            first = now if known is _NEVER else known.at
            relayed = known.relayed or challenge.relayed or (short and first - self._lost_at < AFTER_LOSS)
            stream = known.stream and challenge.transport is not Transport.UDP
            if len(receivers) < _SEVERAL and challenge.address not in receivers:
                receivers = (*receivers, challenge.address)
            if len(senders) < _SEVERAL and sender not in senders:
                senders = (*senders, sender)
            if receivers == senders:
                senders = receivers  # nearly always: one tuple takes half the memory
            table[nonce] = _Sent(now, receivers, senders, relayed, stream, known.elsewhere)
        self._expire(now)

    def record_elsewhere(self, nonce: bytes, now: float) -> None:
        """Record that chan_sip reported to have sent ``nonce`` by TCP or TLS, whose packets may not be read.

        Then the nonce proves no address. An attacker may read it by TLS, and then send a request by UDP with
        the same Call-ID and a stranger's address in the Via. chan_sip sends the same nonce to that address
        (tried on 16.28).
        """
        if 0 < len(nonce) <= _MAX_LENGTH:
            known = self._sent.pop(nonce, _NEVER)
            self._sent[nonce] = evolve(known, at=now, elsewhere=True)
            self._expire(now)

    def _expire(self, now: float) -> None:
        for table, life in ((self._sent, LIFE), (self._of_pjsip, PJSIP_LIFE)):
            while table and (len(table) > self._max_nonces or now - next(iter(table.values())).at >= life):
                table.popitem(last=False)

    def record_loss(self, now: float) -> None:
        """Record a loss of copied packets at ``now`` (monotonic): PJSIP's nonces until then prove no address.

        The reader of these packets also reports a loss when it starts. A loss is ignored while no nonce is
        known. An attacker could exploit this only by guessing the second in which the daemon starts.
        """
        if self._of_pjsip:
            self._lost_at = now

    def receivers(self, nonce: bytes, now: float) -> tuple[Address, ...]:
        """Return the addresses that ``nonce`` was sent to, two at most; empty if none is known."""
        return self._known(nonce, now).receivers

    def proves(self, nonce: bytes, address: Address, now: float) -> bool:
        """Whether ``nonce`` was sent to ``address`` only, so that its use proves that address.

        No other sender may have requested it, because that sender may also have received it by TLS. It must
        have been sent by UDP: by TCP, text of another sender may be mistaken for a challenge.
        """
        sent = self._known(nonce, now)
        return sent.receivers == sent.senders == (address,) and sent.is_whole

    def only_sender(self, nonce: bytes, now: float) -> Address | None:
        """Return the only address that asked for ``nonce``; None if several did, or if it is unknown."""
        senders = self._known(nonce, now).senders
        return senders[0] if len(senders) == 1 else None

    def settled(self, attempt: Attempt, nonce: bytes, now: float, *, came_back: bool = True) -> Attempt:
        """Return ``attempt`` with what copied packets show about ``nonce``, which the attempt's event names.

        The packets may add a proof and, for chan_sip, the true address. Without either, return the same
        object. ``came_back`` matters only for chan_sip: it means that the guess contained the nonce.
        Otherwise Asterisk sent the nonce in its answer to the guess.
        """
        if attempt.service is Service.PJSIP:
            proven = attempt.proof is Proof.CLAIMED and self.proves(nonce, attempt.address, now)
            return evolve(attempt, proof=Proof.NONCE) if proven else attempt
        if attempt.service is not Service.SIP:
            return attempt
        known = self._known(nonce, now)
        # A sender is unknown (None) if chan_sip truncated a long Via. Then the only receiver is proven, too.
        proves = came_back and known.is_whole and known.senders in (known.receivers, (None,))
        whose = known.receivers if known.stream or proves else known.senders
        address = whose[0] if len(whose) == 1 else None
        if address is None or known.relayed:
            return attempt
        proof = Proof.HANDSHAKE if known.stream else Proof.NONCE if proves else Proof.CLAIMED
        forged = attempt.address if attempt.address != address else None
        return evolve(attempt, address=address, proof=proof, trusted=True, forged_address=forged)

    def _known(self, nonce: bytes, now: float) -> _Sent:
        sent = self._of_pjsip.get(nonce)
        if sent is not None:
            if now - sent.at >= PJSIP_LIFE:
                return _NEVER
            return evolve(sent, relayed=True) if sent.at - self._lost_at < AFTER_LOSS else sent
        sent = self._sent.get(nonce, _NEVER)
        return sent if now - sent.at < LIFE else _NEVER


# -- proofs: which responses to challenges prove their sender, and which nothing can prove
#
# A proof holds for the whole session (:class:`~.sessions.Session`), for its earlier attempts too. AMI may
# report a response before the wire shows its challenge, so such a response is remembered. Bound:
# ``MOST_AWAITED`` responses, the oldest are discarded first.


MOST_AWAITED = 1_024


class Proofs:
    """Proves the sender of a session (a Call-ID) by the nonce in its response to a challenge."""

    def __init__(self, senders: Senders, nonces: Nonces) -> None:
        self._senders = senders
        self._nonces = nonces
        self._awaited: OrderedDict[bytes, tuple[str, Address, bytes]] = OrderedDict()

    def on_challenge(self, challenge: CopiedAnswer, now: float) -> Sequence[Finding]:
        """Return the proof of an address if AMI reported the response to ``challenge`` earlier, else ()."""
        answered = self._awaited.pop(challenge.nonce, None) if self._awaited else None
        if answered is None or not self._nonces.proves(challenge.nonce, answered[1], now):
            return ()
        return self.prove(*answered, now)

    def on_response(self, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle a failed response to a challenge of PJSIP; return what its nonce shows.

        The nonce may prove the named address, or show that nothing can prove the guess: the named address had
        the nonce sent elsewhere, or may have had it sent there. Then the guess stays a claim about the named
        address. The receiver of the nonce is never blamed, because anyone can have a challenge sent to it, by
        ``maddr`` in the Via header, and a SIP proxy forwards it to the next Via (RFC 3261 §16.7).
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
            remember(self._awaited, event.challenge[:_MAX_LENGTH], answered, MOST_AWAITED)
        elif nonces.only_sender(event.challenge, now) == address:
            return (UnprovableGuess(address, elsewhere=sent_to != (address,)),)
        return ()

    def prove(self, asterisk: str, address: Address, call_id: bytes, now: float) -> Sequence[Finding]:
        """Record a proof that all attempts in a session that name ``address`` really came from it.

        Return the proof for the detector; () if the session was proven lately, or has no Call-ID.
        """
        if not call_id:
            return ()
        session = self._senders.session(address, call_id, now)
        if now - session.proven < SESSION_LIFE:
            return ()
        session.proven = now
        self._senders.record_proof(address, now)
        return (NewProof(asterisk, address, session_number(call_id), Proof.NONCE),)
