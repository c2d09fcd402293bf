"""``[asterisk.hep]``: the settings of Asterisk's export (HEP), and what follows from those of all PBXs."""

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from ringfence.config.converters import Port
from ringfence.features.hep.stage import Export
from ringfence.firewall.contract import FirewallPlan
from ringfence.values.event import Transport

if TYPE_CHECKING:
    from ringfence.config.schema import Settings


@frozen
class HepSettings:
    """``[asterisk.hep]``: whether Asterisk's own export of decrypted SIP messages (HEP) is a source.

    It shows hidden guesses by TLS and WSS, which the wire cannot read. ringfence reads the export in the
    kernel, wherever Asterisk sends it: ``port`` is the UDP port of ``capture_address`` in ``hep.conf``.
    ``tls_ports`` and ``wss_ports`` are Asterisk's ports of SIP over TLS, and of WebSocket over TLS.
    """

    enabled: bool = False
    port: Port = Port(9060)
    tls_ports: tuple[Port, ...] = (Port(5061),)
    wss_ports: tuple[Port, ...] = (Port(8089),)


TABLE = HepSettings


def exporting(settings: "Settings") -> frozenset[str]:
    """Return the names of the Asterisks whose export is configured."""
    return frozenset(pbx.name for pbx in settings.asterisk if pbx.of(HepSettings).enabled)


def targets(settings: "Settings") -> tuple[int, ...]:
    """Return the UDP ports to which the PBXs export their decrypted messages."""
    return tuple(sorted({hep.port for hep in _enabled(settings)})) if settings.wire else ()


def streams(settings: "Settings") -> dict[int, Transport]:
    """Return {port: transport} of Asterisk's TLS and WSS ports that the export covers, ports ascending."""
    found = {
        **{port: Transport.WSS for hep in _enabled(settings) for port in hep.wss_ports},
        **{port: Transport.TLS for hep in _enabled(settings) for port in hep.tls_ports},
    }
    return dict(sorted(found.items()))


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan``, the wanted rules, with those that copy Asterisk's exported SIP messages to ringfence.

    The plan also gets the ports of WSS at which strangers read no web pages.
    """
    ports = {port for pbx in settings.asterisk for port in pbx.of(HepSettings).wss_ports}
    wss = tuple(sorted(port for port in ports if not settings.has_pages(port)))
    return evolve(plan.adding(Export(targets(settings), tuple(streams(settings)))), wss=wss)


def at_start(settings: "Settings") -> object:
    """Return the values of ``[asterisk.hep]`` that take effect only at the start of the daemon."""
    return targets(settings), streams(settings), exporting(settings)


def _enabled(settings: "Settings") -> list[HepSettings]:
    return [hep for pbx in settings.asterisk if (hep := pbx.of(HepSettings)).enabled]
