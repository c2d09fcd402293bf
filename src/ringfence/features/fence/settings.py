"""``[fence]``: whom the fence admits."""

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from ringfence.config.converters import Region
from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.features.fence.stage import FenceFilter
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.lists.entries import Configured, parse_region
from ringfence.lists.prefixes import code_of, text_of
from ringfence.values.network import Network

if TYPE_CHECKING:
    from ringfence.config.schema import Settings


@frozen
class FenceSettings:
    """``[fence]``: who may reach the SIP ports at all, besides friends and the allow list.

    With the mode ``observe``, the fence drops nothing, but counts and records the senders outside.
    """

    mode: LimitMode = LimitMode.OFF
    networks: tuple[Network, ...] = ()
    countries: tuple[Region, ...] = ()


TABLE = FenceSettings


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan`` with a fence that only counts packets, or none: only a command makes it drop them."""
    off = settings.of(FenceSettings).mode is LimitMode.OFF
    return plan.adding(FenceFilter(LimitMode.OFF if off else LimitMode.OBSERVE))


def with_lists(configured: Configured, settings: "Settings") -> Configured:
    """Return ``configured`` with the networks and countries that the fence admits."""
    fence = settings.of(FenceSettings)
    networks = (text_of(*code_of(network)) for network in fence.networks)
    countries = (parse_region(region).text for region in fence.countries)
    return evolve(configured, added={**configured.added, INSIDE: (*networks, *countries)})
