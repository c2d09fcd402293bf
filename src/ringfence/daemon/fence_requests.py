"""Handles the control socket's requests about the fence."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ringfence.daemon.fence import TRIAL_FOR
from ringfence.daemon.fence_links import AdmitLinks
from ringfence.daemon.firewall_side import FirewallSide
from ringfence.errors import ControlError
from ringfence.firewall.contract import LimitMode, Outsider
from ringfence.model import Secret, format_network, parse_network, printable, rfc3339

UNKNOWN = "unknown"
"""The country of an address that no database has."""


@frozen
class FenceRequests:
    """Handles the requests about the fence of ``side``."""

    side: FirewallSide
    links: AdmitLinks

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], object]]:
        """Return the handler of each request."""
        return {
            "fence": self._status,
            "fence_enforce": self._enforce,
            "fence_confirm": self._confirm,
            "fence_admit": self._admit,
            "fence_link": self._link,
            "fence_redeem": self._redeem,
        }

    def state(self) -> dict[str, Any]:
        """Return the state that the status has too. With ``counts`` false, nothing is dropped or counted."""
        kernel = self.side.kernel
        return kernel.fence.summary() | {"counts": kernel.enforcer.enforcing and kernel.backend.enforces}

    async def _status(self, request: Mapping[str, Any]) -> object:
        """Return the state of the fence, and who came from outside in the last hour, by country.

        ``left_out`` are those networks of the request that the fence does not admit.
        """
        kernel, settings = self.side.kernel, self.side.kernel.fence.settings
        asked = map(parse_network, request.get("networks", ()))
        usage = await kernel.limiter.counters()
        outsiders = kernel.backend.outsiders() if kernel.enforcer.enforcing else ()
        found = await self.side.common.locations.of([one.network.network_address for one in outsiders])
        return self.state() | {
            "named_countries": [printable(one) for one in settings.countries],
            "named_networks": [format_network(one) for one in settings.networks],
            "packets": usage.fenced,
            "left_out": [format_network(one) for one in kernel.fence.left_out(asked)],
            "countries": by_country(outsiders, found),
        }

    def _enforce(self, request: Mapping[str, Any]) -> object:
        kernel = self.side.kernel
        until = kernel.fence.start(request.get("seconds", TRIAL_FOR), force=request.get("force") is True)
        kernel.rules.update()
        return {"until": rfc3339(until), "end": until, "mode": str(kernel.fence.in_force)}

    def _confirm(self, _: Mapping[str, Any]) -> object:
        return self.side.kernel.fence.confirm()

    def _admit(self, request: Mapping[str, Any]) -> object:
        return rfc3339(self.side.kernel.fence.admit(request["what"], request["seconds"]))

    def _link(self, request: Mapping[str, Any]) -> object:
        """Make a link that admits the address that opens it; return its token."""
        if self.side.kernel.fence.settings.mode is LimitMode.OFF:
            raise ControlError("the fence is off, so all senders are admitted; fix: set mode in [fence]")
        return self.links.make(request["seconds"], request["valid"]).reveal()

    def _redeem(self, request: Mapping[str, Any]) -> object:
        """Admit the address of the request by the link of its token; return until when."""
        address = format_network(parse_network(request["address"]))
        fence = self.side.kernel.fence
        return self.links.use(
            Secret(request["token"]),
            lambda seconds: rfc3339(fence.admit(address, seconds, shorten=False)),
        )


def by_country(outsiders: Sequence[Outsider], locations: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the sources and packets of each country, the one with the most packets first.

    ``locations`` has what the databases know of each outsider.
    """
    sources: Counter[str] = Counter()
    packets: Counter[str] = Counter()
    for outsider, location in zip(outsiders, locations, strict=True):
        country = location.get("country") or UNKNOWN
        sources[country] += 1
        packets[country] += outsider.packets
    return [
        {"country": country, "sources": sources[country], "packets": number}
        for country, number in packets.most_common()
    ]
