"""``[bare_address]``: the names of this PBX, and what follows for strangers that ask for none of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from ringfence.config.converters import HostName
from ringfence.features.bare_address.stage import Asking
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode

if TYPE_CHECKING:
    from ringfence.config.schema import Settings


@frozen
class BareAddressSettings:
    """``[bare_address]``: the ``domains`` of this PBX.

    A stranger that asks for none of them makes an attempt. With the mode ``observe`` it is only recorded,
    with ``enforce`` it leads to a ban.
    """

    mode: LimitMode = LimitMode.OFF
    domains: tuple[HostName, ...] = ()


TABLE = BareAddressSettings
RESTART = True


def problems(mine: BareAddressSettings, _: Mapping[str, object]) -> list[str]:
    """Return a problem if no domain is named: then every stranger would ask for a bare address."""
    if mine.mode is LimitMode.OFF or mine.domains:
        return []
    return ['bare_address.domains: none is named; fix: the names that phones use, such as ["pbx.example"]']


def mode_of(settings: "Settings") -> LimitMode:
    """Return the mode of the rule; it is off without the wire, because the kernel then copies nothing."""
    return settings.of(BareAddressSettings).mode if settings.wire else LimitMode.OFF


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan``, the wanted rules, with those that copy requests to this feature, unless it is off."""
    return plan.adding(Asking(on=mode_of(settings) is not LimitMode.OFF))
