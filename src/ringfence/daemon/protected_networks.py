"""The networks that this host needs: its own addresses, gateways, resolvers, remote logins, SIP proxies."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.errors import HostError
from ringfence.host.addresses import follow_addresses, read_addresses
from ringfence.host.protected import follow_protected, read_protected
from ringfence.model import Address, Network
from ringfence.networks import NetworkSet

_OWN = "an address of this host"
_PROXY = "a SIP proxy ([asterisk] proxies)"


class ProtectedNetworks:
    """The networks that this host needs. :meth:`read` reads them, :meth:`run` follows their changes."""

    def __init__(self, proxies: NetworkSet) -> None:
        self.proxies = proxies
        """The SIP proxies of the configuration."""
        self._own: frozenset[Network] = frozenset()
        self._own_addresses: frozenset[Address] = frozenset()
        self._others: Mapping[Network, str] = {}
        self._errors: dict[str, str] = {}
        self._log = structlog.get_logger()

    @property
    def reasons(self) -> dict[Network, str]:
        """The protected networks, each with what it is, such as ``an address of this host``."""
        proxies = dict.fromkeys(self.proxies.networks, _PROXY)
        return {**proxies, **dict.fromkeys(self._own, _OWN), **self._others}

    @property
    def alarms(self) -> list[Alarm]:
        """An alarm if this host's addresses are unreadable, and one if other protected networks are."""
        return [Alarm(AlarmCode.HOST_UNREADABLE, what, error) for what, error in self._errors.items()]

    def is_own(self, address: Address) -> bool:
        """Whether ``address`` is an address of this host. A loopback address is not."""
        return address in self._own_addresses

    def read(self) -> None:
        """Read the networks now; an error becomes an alarm.

        Do not call this while an event loop runs, because a library that it uses starts one.
        """
        try:
            self.set_own(read_addresses())
        except HostError as error:  # run() tries again
            self._failed("addresses", error)
        self.set_others(read_protected(partial(self._failed, "protected")))

    async def run(self, changed: Callable[[], object]) -> None:
        """Follow changes of the networks, and call ``changed`` after each one, until cancelled."""

        def on_addresses(own: frozenset[Network]) -> None:
            if self.set_own(own):
                self._log.info("host.addresses", own=sorted(str(network) for network in own))
                changed()

        def on_others(others: Mapping[Network, str]) -> None:
            self._errors.pop("protected", None)
            if self.set_others(others):
                changed()

        async with asyncio.TaskGroup() as group:
            group.create_task(follow_addresses(on_addresses, partial(self._failed, "addresses")))
            group.create_task(follow_protected(on_others, partial(self._failed, "protected")))

    def set_own(self, own: frozenset[Network]) -> bool:
        """Set this host's own addresses; return whether they changed."""
        self._errors.pop("addresses", None)
        before, self._own = self._own, own
        self._own_addresses = frozenset(
            network.network_address for network in own if not network.network_address.is_loopback
        )
        return own != before

    def set_others(self, others: Mapping[Network, str]) -> bool:
        """Set what else is protected, such as the gateway, by network; return whether it changed."""
        before, self._others = self._others, others
        return others != before

    def _failed(self, what: str, error: HostError) -> None:
        self._errors[what] = str(error)
        self._log.error("host.failed", error=str(error))
