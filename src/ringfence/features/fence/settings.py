"""``[fence]``: whom the fence admits."""

from attrs import evolve, frozen

from ringfence.config.converters import Region
from ringfence.firewall.contract import FirewallPlan, LimitMode
from ringfence.lists.entries import Configured, parse_region
from ringfence.lists.prefixes import code_of, text_of
from ringfence.values.network import Network


@frozen
class FenceSettings:
    """``[fence]``: who may reach the SIP ports at all, besides friends and the allow list.

    With the mode ``observe``, the fence drops nothing, and counts and records who is outside.
    """

    mode: LimitMode = LimitMode.OFF
    networks: tuple[Network, ...] = ()
    countries: tuple[Region, ...] = ()


TABLE = FenceSettings


def plan(fence: FenceSettings, plan: FirewallPlan) -> FirewallPlan:
    """Return ``plan`` with the fence in its configured mode."""
    return evolve(plan, fence=fence.mode)


def lists(fence: FenceSettings, configured: Configured) -> Configured:
    """Return ``configured`` with the networks and countries that the fence admits."""
    networks = (text_of(*code_of(network)) for network in fence.networks)
    countries = (parse_region(region).text for region in fence.countries)
    return evolve(configured, inside=(*networks, *countries))
