"""``[fence]``: whom the fence admits, and where."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NewType

from attrs import evolve, frozen

from ringfence.config.converters import HOOKS, MAX_PORT, Region
from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.features.fence.stage import FenceFilter
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.ports import Ports
from ringfence.lists.entries import Configured, parse_region
from ringfence.lists.prefixes import code_of, text_of
from ringfence.values.network import Network

if TYPE_CHECKING:
    from ringfence.config.schema import Settings


MOST_ALSO = 32
"""The maximum number of ports in ``also``."""
SSH = "22/tcp"
_SERVICE_PORT = re.compile(r"([1-9][0-9]{0,4})/(?:udp|tcp)")

ServicePort = NewType("ServicePort", str)
"""A port of another service, such as ``443/tcp``."""


def _service_port(value: object, _: object) -> ServicePort:
    match = _SERVICE_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > MAX_PORT:
        raise ValueError('must be a port with its protocol, such as "443/tcp" or "69/udp"')
    return ServicePort(match[0])


HOOKS[ServicePort] = _service_port


@frozen
class FenceSettings:
    """``[fence]``: who may reach the SIP ports at all, besides friends and the allow list.

    With the mode ``observe``, the fence drops nothing, but counts and records the senders outside. ``also``
    are ports of other services of this host that only those inside reach. A port of SSH may be among them
    only with ``also_ssh``.
    """

    mode: LimitMode = LimitMode.OFF
    networks: tuple[Network, ...] = ()
    countries: tuple[Region, ...] = ()
    also: tuple[ServicePort, ...] = ()
    also_ssh: bool = False


TABLE = FenceSettings


def problems(fence: FenceSettings, _: Mapping[str, object]) -> list[str]:
    """Return a line for each mistake in ``[fence]`` that the check of single values did not find."""
    found = []
    if len(fence.also) > MOST_ALSO:
        found.append(f"fence.also: has more than {MOST_ALSO} ports")
    if SSH in fence.also and not fence.also_ssh:
        found.append(
            f"fence.also: {SSH} is the port of SSH, so the fence could lock you out of this host; "
            "fix: leave it out, or set also_ssh = true in [fence]"
        )
    return found


def ports_of(texts: Iterable[str]) -> Ports:
    """Return ports such as ``443/tcp`` by protocol, in ascending order."""
    found = {(protocol, int(number)) for number, _, protocol in (one.partition("/") for one in texts)}
    udp, tcp = (
        tuple(sorted(number for protocol, number in found if protocol == wanted)) for wanted in ("udp", "tcp")
    )
    return Ports(udp, tcp)


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan`` with a fence that only counts packets, or none: only a command makes it drop them."""
    fence = settings.of(FenceSettings)
    mode = LimitMode.OFF if fence.mode is LimitMode.OFF else LimitMode.OBSERVE
    return plan.adding(FenceFilter(mode, ports_of(fence.also)))


def with_lists(configured: Configured, settings: "Settings") -> Configured:
    """Return ``configured`` with the networks and countries that the fence admits."""
    fence = settings.of(FenceSettings)
    networks = (text_of(*code_of(network)) for network in fence.networks)
    countries = (parse_region(region).text for region in fence.countries)
    return evolve(configured, added={**configured.added, INSIDE: (*networks, *countries)})
