"""Asterisk's export (HEP) at the firewall: which of its datagrams the kernel copies to the wire."""

from attrs import evolve

from ringfence.config.schema import Settings
from ringfence.features.hep.settings import HepSettings, streams, targets
from ringfence.features.hep.stage import stage
from ringfence.firewall.contract import FirewallPlan
from ringfence.guard.firewall_manager import RulePart, WantedRules
from ringfence.guard.firewall_side import FirewallSide


def with_exports(plan: FirewallPlan, settings: Settings) -> FirewallPlan:
    """Return ``plan`` with the datagrams to copy, and the ports of WSS at which strangers read no pages."""
    ports = {port for pbx in settings.asterisk for port in pbx.of(HepSettings).wss_ports}
    wss = tuple(sorted(port for port in ports if not settings.has_pages(port)))
    export = stage(targets(settings), tuple(streams(settings)))
    return evolve(plan, added=(*plan.added, export), asking=evolve(plan.asking, wss=wss))


class ExportRules(RulePart):
    """Adds the rules of the export to those that are ``wanted``."""

    def __init__(self, wanted: WantedRules) -> None:
        self._wanted = wanted

    def plan(self, plan: FirewallPlan) -> FirewallPlan:
        """Return ``plan`` with the rules of the export."""
        return with_exports(plan, self._wanted.settings)


def build(side: FirewallSide) -> ExportRules:
    """Return the rules of the export, which follow the configuration."""
    return ExportRules(side.kernel.wanted_rules)
