"""Relays: hosts that may forward an answer of Asterisk to somebody else.

A nonce proves the address that it was sent to, because only this host can return it. One kind of host is an
exception: a SIP proxy that forwards an answer which it did not ask for to the next Via (RFC 3261 §16.7).

    attacker   REGISTER, from the proxy's address, two Vias   ->  Asterisk    a forged datagram
               401 with a nonce                               <-  Asterisk    to the proxy, by the topmost Via
    proxy      401 with the nonce                             ->  attacker    by the Via below

The Vias do not show such a host: every sender can write a second one below its own, and the answer still goes
to the topmost. So the proof is a thing that no sender can write. Behind a proxy are the phones of several
accounts, and all of them log in through one socket of it (chan_sip's login of a call names no account, and is
left out). A *relay* is an address at which ``ACCOUNTS`` accounts have logged in through one socket within
``LIFE``. Its nonces prove nothing if the answer has more than one Via. For anybody else, the Vias below the
topmost decide nothing.

An allowed proxy or a trunk needs no proof: it is never banned. The proxies of this host are in ``proxies``.
Bounds: ``MOST`` sockets, and as many relays. The oldest are discarded first. Times are monotonic seconds.
"""

from collections import OrderedDict

from ringfence.detect.conversation import Conversations
from ringfence.detect.sessions import remember
from ringfence.values.event import Endpoint, Transport
from ringfence.values.fast import evolve
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer

ACCOUNTS = 3
"""The number of accounts that log in from one address and port by which it is a relay.

A relay is a proxy that forwards answers. A thief of one password, or of two, cannot make its address one.
"""

LIFE = 7_200.0
"""How long a login counts for a relay (seconds). Phones register at least once an hour."""

MOST = 4_096


class Relays:
    """Finds relays: addresses of SIP proxies that may forward Asterisk's answers to other hosts.

    An address is one if ``ACCOUNTS`` (3) accounts have logged in from one of its ports within ``LIFE`` (two
    hours). ``conversations`` are the copied requests of strangers. Times are monotonic seconds.
    """

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._logins: OrderedDict[Endpoint, dict[str, float]] = OrderedDict()
        self._relays: OrderedDict[Address, float] = OrderedDict()

    def record_login(self, remote: Endpoint, account: str, now: float) -> None:
        """Record a login of ``account`` from ``remote`` at ``now``, which may show that this is a relay."""
        known = self._logins.get(remote, {})
        accounts = {name: at for name, at in known.items() if now - at < LIFE and name != account}
        if len(accounts) < ACCOUNTS:
            accounts[account] = now
        remember(self._logins, remote, accounts, MOST)
        if len(accounts) >= ACCOUNTS:
            remember(self._relays, remote.address, now, MOST)

    def has(self, address: Address, now: float) -> bool:
        """Whether ``address`` is a relay: three accounts logged in from one of its ports within two hours."""
        return now - self._relays.get(address, -LIFE) < LIFE

    def mark(self, answer: CopiedAnswer, now: float) -> CopiedAnswer:
        """Return an answer of Asterisk, which stays ``relayed`` only if its receiver may forward it.

        Such a receiver is a relay. If chan_sip has cut the topmost Via, the receiver may also be any proxy
        that the sender has named, unless the request came from the receiver. If the sender of the request
        is known, the result names it as ``sender``.
        """
        if not answer.relayed:
            return answer
        receiver = answer.address
        sender = answer.sender if answer.transport is Transport.UDP else receiver
        if sender is None:
            asked = self._conversations.latest(answer.call_id)
            if (
                asked is None
                or asked.remote.transport is not Transport.UDP
                or asked.remote.address != receiver
            ):
                return answer
            sender = receiver
        return evolve(answer, sender=sender, relayed=self.has(receiver, now))
