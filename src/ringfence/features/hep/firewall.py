"""Asterisk's export (HEP) at the firewall: which of its datagrams the kernel copies to the wire."""

from attrs import evolve

from ringfence.config.schema import Settings
from ringfence.features.hep.settings import HepSettings, streams, targets
from ringfence.features.hep.stage import Export
from ringfence.firewall.contract import FirewallPlan
from ringfence.guard.firewall_manager import RulePart, WantedRules
from ringfence.guard.firewall_side import FirewallSide


def with_exports(plan: FirewallPlan, settings: Settings) -> FirewallPlan:
    """Return ``plan``, the wanted rules, with those that copy Asterisk's exported SIP messages to ringfence.

    The plan also gets the ports of WSS at which strangers read no web pages.
    """
    ports = {port for pbx in settings.asterisk for port in pbx.of(HepSettings).wss_ports}
    wss = tuple(sorted(port for port in ports if not settings.has_pages(port)))
    return evolve(plan.adding(Export(targets(settings), tuple(streams(settings)))), wss=wss)


class ExportRules(RulePart):
    """Adds rules that copy the SIP messages that Asterisk exports (HEP) to the ``wanted`` rules."""

    def __init__(self, wanted: WantedRules) -> None:
        self._wanted = wanted

    def plan(self, plan: FirewallPlan) -> FirewallPlan:
        """Return ``plan``, the wanted rules, with those that copy Asterisk's exported SIP messages."""
        return with_exports(plan, self._wanted.settings)


def build(side: FirewallSide) -> ExportRules:
    """Return the part of the firewall's rules that copies the SIP messages that Asterisk exports (HEP)."""
    return ExportRules(side.kernel.wanted_rules)
