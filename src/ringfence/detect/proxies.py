"""SIP proxies on this host: which client behind a proxy made an attempt.

Asterisk sees every client of a proxy under the proxy's address. But the wire (the source that reads the
challenges, as the kernel copies them) shows each challenge twice: on the *hop* from Asterisk to the proxy,
and on the *leg* from the proxy to the client. A proxy that keeps transactions sends the leg to the source of
the request (Kamailio, ``tm/t_lookup.c:init_rb``). So the destination of the first leg of a hop is the client;
no text of a sender is needed. A leg belongs to a hop if it leaves from a socket of the proxy within
``RELAYED`` with the same Call-ID, nonce and opaque. PJSIP chooses the opaque at random for each challenge,
and chan_sip the nonce. So a sender can copy them only from a leg, and its copy is not the first.

Any other 401 that leaves from a socket of the proxy names no client: anyone can send a 401 to a proxy, which
forwards it to the address in the second Via (RFC 3261 §16.7). If chan_sip sends a nonce twice, only the first
leg with it counts. Otherwise a sender could prevent the second leg, by answering its own request before
Asterisk does, and send a copy of the first leg instead. (A proxy without transactions sends the leg to an
address in the client's Via, which the client chooses. The wire does not show this, so the documentation
excludes such proxies.)

**What a client proves.** The wire cannot read a leg by TLS, and may miss one by TCP. The receiver of such a
leg can make the proxy forward a copy of it to another address. The wire then takes the copy for the first
leg. So all attempts through a proxy are claims, unless no proxy listens on TCP: then the wire sees all legs.
In this case, an answer with a nonce that was sent to one client alone proves this client (``nonces.py``), in
any session. If the wire shows no leg for an attempt, as by TLS, the attempt is unconfirmed.

The proxy adds the source of each request to its Via, as the parameter ``received``, but this proves nothing.
Kamailio does not add it if the text before the port begins with the source (``msg_translator.c``). And PJSIP
unescapes the names of parameters. So a sender can write a ``received`` that PJSIP reads and Kamailio does not
recognise.

**Other answers.** A proxy forwards a 401 of any sender to any address. So with a proxy, an answer counts as
Asterisk's only if it does not leave from a socket of a proxy. While these sockets are unknown, no answer
counts. (By TCP, the kernel copies answers only from the SIP ports. So the wire does not see an answer by a
connection that the proxy opened.)

**Events.** The client of an event of PJSIP is the receiver of the leg with its Call-ID and nonce. Without
such a leg, it is the only receiver of its nonce, or else the latest client of its Call-ID. chan_sip's events
name no Call-ID, and their address may be that of a Via ``maddr``. So only the nonce of a hop shows that an
event of chan_sip came through a proxy. chan_sip's other events are handled as if there were no proxy. Log
lines that name a proxy are left out, because they repeat what AMI reports. An event waits ``PATIENCE`` for
its leg.

A sender that forges the source of a client can cause a claimed ban of that client, as without a proxy. So can
a sender that knows the client's Call-ID, a sender whose own legs the wire does not see, and a sender that
predicts the opaque (PJSIP takes it from ``rand``) and wins a race. Such a ban is short, blocks the transport
of the leg on the SIP ports only, and never affects a friend.

Bounds: ``MOST`` hops, as many marks of hops whose leg has left, and as many clients; the oldest are discarded
first. At most ``MOST_WAITING`` events wait; beyond that, the wait of the oldest ends early. ``evicted``
counts both. Times are monotonic seconds.
"""

import enum
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from math import inf
from typing import TypeVar

from attrs import define, frozen

from ringfence.detect.nonces import LIFE, Nonces
from ringfence.detect.sessions import Role, role_of
from ringfence.event_values import evolve
from ringfence.model import (
    Address,
    Challenge,
    Endpoint,
    EventKind,
    SecurityEvent,
    Service,
    Transport,
)
from ringfence.networks import NetworkSet

RELAYED = 1.0
"""How long a proxy may take to relay a challenge (seconds)."""

PATIENCE = 2.0
"""How long an event waits for the *leg*, the challenge from the proxy that names the client (seconds).

This is longer than ``RELAYED``, because AMI may report an event before the wire shows its *hop*, the
challenge from Asterisk to the proxy.
"""

MOST = 16_384
MOST_WAITING = 4_096

_MAX_NONCE = 256  # bytes
# Bytes. An event with a longer one does not wait for the challenge that names its client: such a challenge is
# evasive, and so an attempt by itself.
_MAX_CALL_ID = 512
_MOST_AWAITED = 64  # sessions that wait for a proof by one nonce

_Mark = tuple[Service, bytes, bytes, bytes]
"""What a challenge to a proxy (a hop) and the relayed one (its leg) share.

These are the service, the Call-ID, the nonce and the opaque.
"""
_Session = tuple[Service, bytes]
"""The service, and what identifies a session there: PJSIP's Call-ID, or chan_sip's nonce."""
_ProvenSession = tuple[str, Address, bytes]
"""The name of an Asterisk, a client and a Call-ID."""
_UDP, _PJSIP, _SIP = Transport.UDP, Service.PJSIP, Service.SIP


class Passage(enum.Enum):
    """The way of a challenge: without a proxy, to a proxy, or from a proxy."""

    DIRECT = enum.auto()  # from Asterisk to the sender of the request
    HOP = enum.auto()  # from Asterisk to a proxy
    LEG = enum.auto()  # from a proxy


@frozen
class _Dated:
    at: float


@frozen
class _Hop(_Dated):
    service: Service
    nonce: bytes
    transport: Transport
    address: Address
    port: int


@frozen
class _Client(_Dated):
    """The receiver of the latest leg (challenge from a proxy to a client) of a session.

    All legs of the session since ``alone_since`` (monotonic seconds) went to this address. The value is -inf
    if all legs of the session did.
    """

    remote: Endpoint
    alone_since: float


_K = TypeVar("_K")
_D = TypeVar("_D", bound=_Dated)


@define(eq=False)
class _Waiting:
    at: float
    event: SecurityEvent
    done: bool = False


@frozen
class ProxyEvent:
    """An event whose request may have come through a proxy; it arrived at ``at`` (monotonic seconds).

    If ``known``, the event has the address of the client, otherwise that of the proxy. ``proven``: the event
    reports an answer with a nonce that was sent to this client alone. ``alone``: this session has had no
    other client for ten minutes.
    """

    event: SecurityEvent
    at: float
    known: bool = False
    proven: bool = False
    alone: bool = False


@frozen
class Leg:
    """A challenge of Asterisk that a proxy has relayed to a client, and the events that waited for it.

    ``challenge`` is the challenge as if Asterisk had sent it to the client itself. ``events`` came before the
    leg, which alone names their client. ``proven`` are the sessions that this client has now proven.
    """

    challenge: Challenge
    events: Sequence[ProxyEvent]
    proven: Sequence[_ProvenSession]


class Proxies:
    """Finds the clients of the proxies at ``networks``; ``nonces`` knows the receivers of all challenges."""

    def __init__(self, networks: NetworkSet, nonces: Nonces) -> None:
        self.networks = networks
        self.evicted = 0
        self._nonces = nonces
        self._sockets: frozenset[tuple[Address | None, int]] = frozenset()
        self._streams = True  # whether a proxy may listen on TCP; True while the sockets are unknown
        self._stream_at = -LIFE
        self._hops: OrderedDict[_Mark, _Hop] = OrderedDict()
        self._open: Counter[bytes] = Counter()  # by nonce, how many challenges are not relayed yet
        self._awaited: dict[bytes, list[_ProvenSession]] = {}  # the sessions whose proof waits, by nonce
        self._marks: OrderedDict[_Mark, _Hop] = OrderedDict()  # hops that the proxy has relayed
        self._clients: OrderedDict[tuple[_Session, bytes], _Client] = OrderedDict()
        self._queue: deque[_Waiting] = deque()
        self._waiting: dict[_Session, list[_Waiting]] = {}

    def set_sockets(self, sockets: frozenset[Endpoint]) -> None:
        """Set the sockets on which the proxies listen.

        A socket with an unspecified address listens on all addresses of this host.
        """
        self._sockets = frozenset(
            (None if one.address.is_unspecified else one.address, one.port) for one in sockets
        )
        self._streams = not sockets or any(one.transport is not _UDP for one in sockets)

    # -- challenges -------------------------------------------------------------------------------------

    def passage(self, challenge: Challenge) -> Passage:
        """Return the way of a challenge. While the sockets of the proxies are unknown, it is LEG for all.

        A sender can direct its own challenge to the proxy by a Via ``maddr``. Such a challenge is DIRECT,
        because the proxy did not send the request.
        """
        address, port = challenge.local_address, challenge.local_port
        if not self._sockets or (address, port) in self._sockets or (None, port) in self._sockets:
            return Passage.LEG
        sender = challenge.sender if challenge.transport is _UDP else challenge.address
        covers = self.networks.covers
        hop = sender is not None and covers(challenge.address) and covers(sender)
        return Passage.HOP if hop else Passage.DIRECT

    def observe_hop(self, challenge: Challenge, now: float) -> None:
        """Record a challenge from Asterisk to a proxy."""
        self._expire(now)
        nonce, mark = challenge.nonce, _mark_of(challenge)
        if not 0 < len(nonce) <= _MAX_NONCE or not challenge.relayed:
            return  # one Via: the proxy itself sent the request, such as OPTIONS
        if mark in self._hops or mark in self._marks:  # Asterisk sends its answer again
            return
        self._hops[mark] = _Hop(
            now,
            challenge.service,
            nonce,
            challenge.transport,
            challenge.local_address,
            challenge.local_port,
        )
        self._open[nonce] += 1

    def observe_leg(self, challenge: Challenge, now: float) -> Leg | None:
        """Record a challenge that left from a proxy.

        Return it if the proxy relays a challenge of Asterisk (a hop) for the first time, otherwise None.
        """
        self._expire(now)
        if self.networks.covers(challenge.address):
            return None  # it goes to another proxy, or a sender made the proxy forward a 401
        mark = _mark_of(challenge)
        hop = self._hops.pop(mark, None)
        if hop is None:
            self._nonces.record_copy(challenge.nonce, challenge.address)
            return None
        self._marks[mark] = hop
        if hop.transport is not _UDP:
            self._stream_at = now
        sent = evolve(
            challenge,
            sender=challenge.address,
            local_address=hop.address,
            local_port=hop.port,
            relayed=challenge.relayed or not self._sees_all_legs(now),
        )
        self._nonces.record(sent, now)
        self._record_client(sent, now)
        proven = [one for one in self._close(hop) if self._proves(hop.nonce, one[1], now)]
        waited = self._waiting.pop(_session(sent.service, sent.call_id, sent.nonce), [])
        for one in waited:
            one.done = True
        return Leg(sent, [self._with_client(one.event, one.at, now) for one in waited], proven)

    def _record_client(self, leg: Challenge, now: float) -> None:
        remote = Endpoint(leg.address, leg.port, leg.transport)
        session = _session(leg.service, leg.call_id, leg.nonce)
        for key in ((session, b""), (session, leg.nonce)):
            before = self._clients.pop(key, None)
            alone = -inf if before is None else before.alone_since
            if before is not None and before.remote.address != remote.address:
                alone = now
            self._clients[key] = _Client(now, remote, alone)

    def _close(self, hop: _Hop) -> list[_ProvenSession]:
        """Record that a hop (challenge to a proxy) is over: its leg (to the client) has left, or it expired.

        Return the sessions whose proof waited for the legs with its nonce. Return [] while another hop with
        this nonce is open, because its leg may go to another client.
        """
        self._open[hop.nonce] -= 1
        if self._open[hop.nonce]:
            return []
        del self._open[hop.nonce]
        return self._awaited.pop(hop.nonce, [])

    def _expire(self, now: float) -> None:
        """Discard old entries.

        If a challenge to a proxy (a hop) expires before the wire has seen it leave to a client, the receiver
        of its nonce is unknown. So the nonce proves no address.
        """
        while self._hops:
            hop = next(iter(self._hops.values()))
            is_young = now - hop.at < RELAYED
            if is_young and len(self._hops) <= MOST:
                break
            self.evicted += is_young
            self._hops.popitem(last=False)
            self._nonces.record_unseen(hop.nonce, hop.service, now)
            self._close(hop)
        self._discard_old(self._marks, now)
        self._discard_old(self._clients, now)

    def _discard_old(self, table: OrderedDict[_K, _D], now: float) -> None:
        while table:
            is_young = now - next(iter(table.values())).at < LIFE
            if is_young and len(table) <= MOST:
                break
            self.evicted += is_young
            table.popitem(last=False)

    def _sees_all_legs(self, now: float) -> bool:
        """Whether the wire sees each leg (challenge from a proxy to a client).

        It does if no proxy listens on TCP, and no request has come through a proxy by TCP or TLS for ten
        minutes (``LIFE``).
        """
        return not self._streams and now - self._stream_at >= LIFE

    # -- events -----------------------------------------------------------------------------------------

    def takes(self, event: SecurityEvent, now: float) -> bool:
        """Whether the request of an event came, or may have come, through a proxy."""
        if event.service not in (_PJSIP, _SIP) or not self.networks.covers(event.remote.address):
            return False
        if event.service is _PJSIP or self._client_of(event, now) is not None:
            return True
        if not event.challenge:
            return event.source.text
        return not self._nonces.receivers(event.challenge, now)

    def observe(self, event: SecurityEvent, now: float) -> Iterator[ProxyEvent]:
        """Handle an event whose request may have come through a proxy.

        Yield the events that need not wait any longer for the challenge that names their client. These may
        also be earlier events.
        """
        if event.source.text:
            return
        if event.remote.transport is not _UDP:
            self._stream_at = now
        if self._client_of(event, now) is not None or len(event.session) > _MAX_CALL_ID:
            yield self._with_client(event, now, now)
            return
        waiting = _Waiting(now, event)
        self._queue.append(waiting)
        self._waiting.setdefault(_session_of(event), []).append(waiting)
        if len(self._queue) > MOST_WAITING:
            self.evicted += not self._queue[0].done
            yield from self._give_up(now)

    def due(self, now: float) -> Iterator[ProxyEvent]:
        """Yield the events whose wait is over, with the client if a challenge has shown it by now."""
        self._expire(now)
        while self._queue and (self._queue[0].done or now - self._queue[0].at >= PATIENCE):
            yield from self._give_up(now)

    def release(self, challenge: Challenge) -> list[SecurityEvent]:
        """End the wait of chan_sip's events with the nonce of ``challenge``, and return these events.

        The challenge did not go through a proxy, so no leg will follow.
        """
        if challenge.service is not _SIP or not self._waiting:
            return []
        waited = self._waiting.pop(_session(_SIP, b"", challenge.nonce), [])
        for one in waited:
            one.done = True
        return [one.event for one in waited]

    def _give_up(self, now: float) -> Iterator[ProxyEvent]:
        """End the wait of the oldest event; yield it, unless it was yielded or released before."""
        oldest = self._queue.popleft()
        if oldest.done:
            return
        session = _session_of(oldest.event)
        others = self._waiting[session]
        others.remove(oldest)
        if not others:
            del self._waiting[session]
        yield self._with_client(oldest.event, oldest.at, now)

    def _client_of(self, event: SecurityEvent, now: float) -> _Client | None:
        session, nonce = _session_of(event), event.challenge
        found = (
            self._clients.get((session, nonce))
            or self._only_receiver(event, now)
            or self._clients.get((session, b""))
        )
        return found if found is not None and now - found.at < LIFE else None

    def _only_receiver(self, event: SecurityEvent, now: float) -> _Client | None:
        """Return the client of an event of PJSIP whose nonce proves this client, or None.

        This finds the client even if the proxy relayed no challenge with its Call-ID. (A sender can prevent
        that: it answers its own request before Asterisk does.)
        """
        receivers = self._nonces.receivers(event.challenge, now) if event.service is _PJSIP else ()
        if len(receivers) != 1 or event.challenge in self._open:
            return None
        if not self._proves(event.challenge, receivers[0], now):
            return None
        return _Client(now, Endpoint(receivers[0], 0, _UDP), now)

    def _with_client(self, event: SecurityEvent, at: float, now: float) -> ProxyEvent:
        client = self._client_of(event, now)
        if client is None:
            return ProxyEvent(event, at)
        event = evolve(event, remote=client.remote)
        alone = now - client.alone_since >= LIFE
        return ProxyEvent(event, at, known=True, proven=self._is_proof(event, now), alone=alone)

    def _is_proof(self, event: SecurityEvent, now: float) -> bool:
        """Whether an event proves the client that it names: it reports an answer with this client's nonce.

        The nonce must have been sent to this client alone. Of chan_sip's events, only InvalidPassword names
        the nonce of the answer. If another leg with the nonce may follow, return False. For PJSIP, the proof
        then waits for this leg.
        """
        if role_of(event) is not Role.FAILED or not event.response or event.forgeable or event.tampered:
            return False
        if event.service is _SIP and event.kind is not EventKind.INVALID_PASSWORD:
            return False
        nonce, client = event.challenge, event.remote.address
        if nonce in self._open:  # the proxy may still relay the nonce to another client
            if event.service is _PJSIP:
                awaited = self._awaited.setdefault(nonce, [])
                if len(awaited) < _MOST_AWAITED:
                    awaited.append((event.source.asterisk, client, event.session))
            return False
        return self._proves(nonce, client, now)

    def _proves(self, nonce: bytes, client: Address, now: float) -> bool:
        return self._sees_all_legs(now) and self._nonces.proves(nonce, client, now)


def _mark_of(challenge: Challenge) -> _Mark:
    return challenge.service, challenge.call_id, challenge.nonce, challenge.opaque


def _session(service: Service, call_id: bytes, nonce: bytes) -> _Session:
    return service, call_id if service is _PJSIP else nonce


def _session_of(event: SecurityEvent) -> _Session:
    return _session(event.service, event.session, event.challenge)
