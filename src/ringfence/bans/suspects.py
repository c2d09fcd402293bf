"""Suspects: addresses whose SIP requests the kernel copies to ringfence.

If a copied request has a nonce that was sent only to its source address, this address is proven. When
ringfence names an address to the kernel, the kernel copies its SIP requests for ``OBSERVE_SECONDS``.
ringfence names an address again after half of this time at the earliest. It names at most ``MOST_A_SECOND``
suspects per second, because each takes some 20 µs, and there may be many forged senders.

A sender can rotate over the addresses of its /24. An address becomes a suspect by its first attempt, so the
first attempt of each address would stay unproven. Therefore two suspects of one /24 make all its addresses
suspects. This was measured with a sender that made four guesses from each address, which Asterisk did not
report. Asterisk answered 22 of its guesses (median) with this rule, and 27 without it. At most
``MOST_NETWORKS`` networks are observed as a whole, so that forged senders cannot fill the kernel's set. IPv6
does not need this rule, because a /64 is banned as one sender.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from ringfence.clock import Clock
from ringfence.detect.subjects import remember
from ringfence.firewall.contract import OBSERVE_MOST, OBSERVE_SECONDS, Backend
from ringfence.model import Address, Network
from ringfence.networks import prefix_of

MOST_A_SECOND = 100
MOST_NETWORKS = 8


class Suspects:
    """Makes the kernel copy the requests of addresses, within limits."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._asked: OrderedDict[Address, float] = OrderedDict()
        self._last_of: OrderedDict[Network, Address] = OrderedDict()
        self._whole: dict[Network, float] = {}
        self._second = 0.0
        self._number = 0

    def __len__(self) -> int:
        """The number of addresses that are remembered as suspects."""
        return len(self._asked)

    def observe(self, addresses: Iterable[Address]) -> None:
        """Make the kernel copy the requests of ``addresses``, within the limits."""
        now = self._clock.mono()
        if now - self._second >= 1.0:
            self._second, self._number = now, 0
        wanted: list[Address] = []
        for address in addresses:
            fresh = now - self._asked.get(address, now - OBSERVE_SECONDS) < OBSERVE_SECONDS / 2
            if fresh or self._number >= MOST_A_SECOND:
                continue
            self._number += 1
            remember(self._asked, address, now, OBSERVE_MOST)
            wanted.append(address)
            if isinstance(address, IPv4Address):
                wanted += self._neighbours(address, now)
        if wanted:
            self._backend.observe(wanted)

    def _neighbours(self, address: IPv4Address, now: float) -> Sequence[Address]:
        """Return all addresses of the /24 of ``address`` if another address of this /24 was a suspect before.

        Return no address if that was more than ``OBSERVE_SECONDS`` ago, if the whole /24 is observed already,
        or if ``MOST_NETWORKS`` other networks are observed as a whole.
        """
        network = prefix_of(address)
        before = self._last_of.get(network)
        remember(self._last_of, network, address, OBSERVE_MOST)
        recent = before is not None and now - self._asked.get(before, -OBSERVE_SECONDS) < OBSERVE_SECONDS
        if before == address or not recent:
            return ()
        self._whole = {one: at for one, at in self._whole.items() if now - at < OBSERVE_SECONDS / 2}
        if network in self._whole or len(self._whole) >= MOST_NETWORKS:
            return ()
        self._whole[network] = now
        return list(network)
