"""SIP proxies on this host: which answers and events are about a proxy's clients.

Asterisk sees every client of a proxy under the proxy's address. So its answers to the proxy, and its events
that name the proxy, show no client. The evidence is the client's conversation with the proxy, which the
kernel copies like one with Asterisk (``conversation``): a request with credentials, and a refusal that
answers it.

    client    REGISTER with credentials   ->  proxy               of the client: copied
              401                         <-  proxy               of the client: copied
                      proxy   REGISTER    ->  Asterisk            shows no client
                      proxy   401         <-  Asterisk            shows no client, but the nonce is Asterisk's
                              AMI: ChallengeResponseFailed of the proxy's address

An event of PJSIP belongs to the client that asked last under its Call-ID, one of chan_sip to the client that
repeated its nonce last. A friend's requests are copied too (``Detector.observed``): otherwise none of its
logins would renew it. Those of an address that is only allowed are not. So without a client, an event
belongs to the address that its nonce proves. An event without both is unconfirmed: its client uses TLS, which
the wire cannot read. If a stranger's TCP connection is unread, an event of PJSIP belongs to this connection
if the refusal with its Call-ID leaves by it. Log lines that name a proxy are left out, because they repeat
what AMI reports.

**Text of other senders.** Anyone can send an answer to a proxy, which forwards it to the address in the
second Via (RFC 3261 §16.7). So an answer that leaves from a proxy is nothing by itself: it confirms no line
and shows no hidden attempt. It counts only as the answer to a request of its receiver (or by an unread
connection). Then the receiver sent this request, or another sender forged its address.

**What a client proves.** By TCP, another sender can have a refusal forwarded over the client's connection. So
attempts by TCP are claims. By UDP, a nonce proves a client if it was sent to this client alone. That needs
two things. The wire must see all answers of the proxy, so no proxy may listen on TCP. And Asterisk must have
sent this nonce to the proxy by UDP: any other nonce may be known to the sender that had it forwarded.

While the proxy's sockets are unknown, each answer may be the proxy's. Bound: ``MOST`` nonces, of which the
oldest are forgotten first; then they prove nothing. Times are monotonic seconds.
"""

import enum
from collections import OrderedDict

from ringfence.detect.nonces import LIFE
from ringfence.values.event import Endpoint, SecurityEvent, Service, Transport
from ringfence.values.fast import evolve
from ringfence.values.network import Address, NetworkSet
from ringfence.values.packet import CopiedAnswer

MOST = 16_384
"""The greatest number of nonces that Asterisk has sent to a proxy and that are remembered."""

_PHONES = (Service.PJSIP, Service.SIP)


class Passage(enum.Enum):
    """The way of a SIP answer: without a SIP proxy, from Asterisk to a proxy, or from a proxy."""

    DIRECT = enum.auto()
    TO_PROXY = enum.auto()
    FROM_PROXY = enum.auto()


class Proxies:
    """The SIP proxies of this host, at ``networks``, and the nonces that Asterisk has sent to them."""

    def __init__(self, networks: NetworkSet) -> None:
        self.networks = networks
        self._sockets: frozenset[tuple[Address | None, int]] = frozenset()
        self._streams = True  # whether a proxy may listen on TCP; True while the sockets are unknown
        self._nonces: OrderedDict[bytes, float] = OrderedDict()

    def set_sockets(self, sockets: frozenset[Endpoint]) -> None:
        """Set the sockets on which the SIP proxies of this host listen; none if they are unknown.

        A socket with an unspecified address listens on all addresses of this host.
        """
        self._sockets = frozenset(
            (None if one.address.is_unspecified else one.address, one.port) for one in sockets
        )
        self._streams = not sockets or any(one.transport is not Transport.UDP for one in sockets)

    def serves(self, port: int) -> bool:
        """Whether a SIP proxy may listen on a port; on any, while the proxies' sockets are unknown."""
        return bool(self.networks) and (not self._sockets or any(port == one for _, one in self._sockets))

    def names(self, event: SecurityEvent) -> bool:
        """Whether an event names a SIP proxy as its sender. The true sender may then be a client of it."""
        return event.service in _PHONES and self.networks.covers(event.remote.address)

    def passage(self, answer: CopiedAnswer) -> Passage:
        """Return which way a SIP answer goes; FROM_PROXY also while the sockets of the proxies are unknown.

        A sender can direct its own answer to the proxy by a Via ``maddr``. Such an answer is DIRECT, because
        the proxy did not send the request.
        """
        address, port = answer.local_address, answer.local_port
        if not self._sockets or (address, port) in self._sockets or (None, port) in self._sockets:
            return Passage.FROM_PROXY
        sender = answer.sender if answer.transport is Transport.UDP else answer.address
        covers = self.networks.covers
        to_proxy = sender is not None and covers(answer.address) and covers(sender)
        return Passage.TO_PROXY if to_proxy else Passage.DIRECT

    def record_nonce(self, answer: CopiedAnswer, now: float) -> None:
        """Record the nonce of a challenge that Asterisk sent to a SIP proxy; forget old nonces."""
        if answer.transport is Transport.UDP:
            self._nonces.pop(answer.nonce, None)
            self._nonces[answer.nonce] = now
        while self._nonces and (len(self._nonces) > MOST or now - next(iter(self._nonces.values())) >= LIFE):
            self._nonces.popitem(last=False)

    def to_client(self, answer: CopiedAnswer) -> CopiedAnswer:
        """Return the answer of a SIP proxy with its receiver set as the sender of the request.

        The result is ``relayed`` if others may know its nonce, so that this nonce proves nothing.
        """
        known = not self._streams and answer.nonce in self._nonces
        return evolve(answer, sender=answer.address, relayed=answer.relayed or not known)
