"""Confirmation: whether something other than the sender's text shows that a reported address is right.

The head of ``attribution`` lists the ways of confirmation. That module also decides what follows from a
confirmed or an unconfirmed address.
"""

from attrs import Factory, frozen

from ringfence.detect.answers import Answers
from ringfence.detect.backing import Backing
from ringfence.detect.events import session_key
from ringfence.detect.nonces import Nonces
from ringfence.detect.sender import SESSION_LIFE, Senders
from ringfence.detect.wire import Listening, Wire
from ringfence.event_values import evolve
from ringfence.model import Attempt, EventKind, Proof, SecurityEvent, Service, Transport
from ringfence.networks import NetworkSet

# Module-level aliases: enum member lookups are slow in the per-event hot path.
_PJSIP, _SIP, _UDP, _HIDDEN = Service.PJSIP, Service.SIP, Transport.UDP, EventKind.HIDDEN
_CLAIMED, _NONCE, _HANDSHAKE = Proof.CLAIMED, Proof.NONCE, Proof.HANDSHAKE
_DATAGRAMS = (Transport.UDP, Transport.UNKNOWN)


@frozen
class KnownSources:
    """Facts about the sources of each Asterisk that the attribution needs.

    ``several`` names the Asterisks that have several sources: their reports may be duplicates. At any other
    Asterisk, each report is a new attempt. ``corroborated`` names the Asterisks that have AMI or the wire as
    a source: their log lines need confirmation. None means the same Asterisks as ``several``. ``assumed`` is
    for a replay of logs, which has no wire to prove addresses: each claimed attempt gets this proof instead.
    Outside of replays it is CLAIMED. ``proxies`` are the addresses of SIP proxies on this host; Asterisk's
    events name them instead of their clients.
    """

    several: frozenset[str] = frozenset()
    corroborated: frozenset[str] | None = None
    assumed: Proof = Proof.CLAIMED
    proxies: NetworkSet = Factory(NetworkSet)


class Confirmation:
    """Decides whether the address in a report is really the sender's, and how well it is proven.

    ``sees_wire``: the wire source (answers that leave this host, copied by the kernel) has delivered a
    packet, so addresses can be proven. ``wire_sees_all``: at present the wire sees every challenge.
    """

    def __init__(
        self,
        senders: Senders,
        nonces: Nonces,
        wire: Wire,
        answers: Answers,
        backing: Backing,
        sources: KnownSources,
    ) -> None:
        self.sources = sources
        self.sees_wire = False
        self.wire_sees_all = False
        self._listening: Listening | None = None  # unknown until the first tick
        self._senders = senders
        self._nonces = nonces
        self._wire = wire
        self._answers = answers
        self._backing = backing

    def tick(self, listening: Listening, *, wire: bool) -> None:
        """Record which sources deliver now; ``wire`` is whether the wire sees every challenge."""
        self.wire_sees_all, self._listening = wire, listening

    def is_hint(self, event: SecurityEvent, attempt: Attempt) -> bool:
        """Whether a report needs confirmation: it is a log line, and another source could confirm it.

        A line about a request by TCP or TLS always needs it, because the kernel knows the connections (except
        in a replay). Any other line needs it while AMI or the wire reports its Asterisk.
        """
        stream = attempt.transport not in _DATAGRAMS and self.sources.assumed is _CLAIMED
        return event.source.text and (stream or self._is_corroborated(event.source.asterisk))

    def _is_corroborated(self, asterisk: str) -> bool:
        """Whether AMI or the wire reports an Asterisk now, so that a log line needs confirmation."""
        sources = self.sources
        if asterisk not in (sources.several if sources.corroborated is None else sources.corroborated):
            return False
        return self.wire_sees_all or self._listening is None or self._listening(asterisk) is not None

    def confirms_login(self, event: SecurityEvent, now: float) -> bool:
        """Whether to believe the address in the log line of a login.

        It must be confirmed, unless only logs report this Asterisk now.
        """
        if not self._is_corroborated(event.source.asterisk):
            return True
        seen = self.sees_wire and bool(event.session) and self._wire.confirms(event, now)
        return seen or self._backing.confirms(event.remote, event.service, now)

    def confirmed(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt | None:
        """Return the attempt with the address and proof that the wire or the kernel confirms.

        Return None if neither confirms it.
        """
        seen = self._confirmed_by_wire(attempt, event, now) if self.sees_wire else None
        if seen is not None:
            return seen
        if self._backing.confirms(event.remote, event.service, now):
            transport = Transport.TCP if attempt.transport is Transport.UNKNOWN else attempt.transport
            return evolve(attempt, trusted=True, transport=transport, proof=_HANDSHAKE)
        return None

    def _confirmed_by_wire(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt | None:
        wire, service = self._wire, event.service
        if service is _SIP and event.challenge:
            came_back = event.kind is EventKind.INVALID_PASSWORD and bool(event.response)
            settled = self._nonces.settled(attempt, event.challenge, now, came_back=came_back)
            return settled if settled is not attempt else None
        if service is _PJSIP and event.session:
            seen = wire.confirms(event, now) or wire.could_have_guessed(attempt.address, now)
        else:
            seen = service in (_SIP, _PJSIP) and self._answers.confirms(event, now)
        if not seen:
            return None
        claim = evolve(attempt, trusted=True, transport=_UDP, proof=_CLAIMED)
        return self._nonces.settled(claim, event.challenge, now)

    def would_have_been_seen(self, event: SecurityEvent, now: float) -> bool:
        """Whether a log line that nothing confirms is certainly forged.

        A line about a request by UDP is forged, because the wire would have seen the challenge of a true
        attempt. Any other line is forged if the kernel knows that the address had no connection. Return False
        while the wire may miss challenges.
        """
        if not self.sees_wire or not self.wire_sees_all or now < self._wire.blind_until:
            return False
        return event.remote.transport is _UDP or self._backing.excludes(event.remote.address)

    def with_proof(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt:
        """Return an attempt, whose address is reliable, with the best proof of this address.

        A claimed attempt by TCP could only lead to a ban of UDP, which would not stop it. So it becomes
        unconfirmed (not ``trusted``) unless the kernel confirms its connection. This does not apply to a
        replay, which has no kernel to ask.
        """
        if self.sees_wire:
            attempt = self._nonces.settled(attempt, event.challenge, now)
        if (
            attempt.proof is _CLAIMED
            and attempt.transport not in _DATAGRAMS
            and self.sources.assumed is _CLAIMED
        ):
            backed = self._backing.confirms(event.remote, event.service, now)
            return evolve(attempt, proof=_HANDSHAKE) if backed else evolve(attempt, trusted=False)
        return self.in_session(attempt, event, now)

    def in_session(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt:
        """Return an attempt; it is proven if an answered challenge has proven its session.

        Only the sender knows the Call-ID of a session, so no other sender can add attempts to it. In a
        replay, a claimed attempt gets the proof ``assumed`` of :class:`KnownSources` instead.
        """
        if self.sources.assumed is not _CLAIMED and attempt.trusted and attempt.proof is _CLAIMED:
            return evolve(attempt, proof=self.sources.assumed)
        if not self.sees_wire or attempt.proof is _NONCE or not has_session(attempt):
            return attempt
        session = self._senders.find_session(attempt.address, session_key(event.session))
        proven = session is not None and now - session.proven < SESSION_LIFE
        return evolve(attempt, proof=_NONCE) if proven else attempt


def has_session(attempt: Attempt) -> bool:
    """Whether a proof of the attempt's session also proves the attempt.

    It does for an attempt by UDP, if the attempt is of PJSIP or hidden (reported by the wire alone).
    """
    return attempt.transport is _UDP and (attempt.service is _PJSIP or attempt.event is _HIDDEN)
