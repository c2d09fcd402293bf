"""Trunks: the servers at which the PBX registers, and the addresses of their names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address

from ringfence.model import Address, Friend, FriendReason, Network, TrunkHost

TRUNK_FOR = 86_400.0
"""Seconds that an address of a trunk stays a friend after the latest DNS answer that contained it.

An answer may contain only some of a name's addresses, and the next answer others.
"""

Answers = Mapping[str, frozenset[Network]]
"""The addresses of each host name by DNS, as networks of one address."""


class KnownTrunks:
    """The trunks of each Asterisk. ``follow`` is called with the host names to resolve by DNS."""

    def __init__(self, follow: Callable[[frozenset[str]], None]) -> None:
        self._follow = follow
        self._trunks: dict[str, tuple[TrunkHost, ...]] = {}
        self._answers: Answers = {}

    def replace(self, asterisk: str, trunks: tuple[TrunkHost, ...], now: float) -> Iterable[Friend]:
        """Set the trunks of an Asterisk; return their known addresses as friends, seen at ``now``."""
        self._trunks[asterisk] = trunks
        every = [trunk for mine in self._trunks.values() for trunk in mine]
        self._follow(frozenset(_name(trunk) for trunk in every if _address(trunk) is None))
        return self._friends(trunks, now)

    def on_resolved(self, answers: Answers, now: float) -> Iterable[Friend]:
        """Set the addresses of host names; return the addresses of all trunks as friends, seen at ``now``."""
        self._answers = answers
        return [friend for trunks in self._trunks.values() for friend in self._friends(trunks, now)]

    def _friends(self, trunks: Iterable[TrunkHost], now: float) -> Iterator[Friend]:
        for trunk in trunks:
            address = _address(trunk)
            networks = self._answers.get(_name(trunk), frozenset())
            for one in [address] if address is not None else [net.network_address for net in networks]:
                yield Friend(trunk.asterisk, one, trunk.name, FriendReason.TRUNK, now, now, now + TRUNK_FOR)


def _name(trunk: TrunkHost) -> str:
    return trunk.host.lower().rstrip(".")


def _address(trunk: TrunkHost) -> Address | None:
    try:
        return ip_address(trunk.host.strip("[]"))
    except ValueError:
        return None
