"""The rations of an address, in ``ringfence why``."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.limits import LimitMode
from ringfence.plurals import counted

if TYPE_CHECKING:
    from ringfence.explain.facts import NetworkFacts


def facts(known: "NetworkFacts") -> dict[str, dict[str, Any] | None]:
    """Return mode, burst and rate (a second) of the limits on a stranger's refusals and requests, by name.

    A limit is None if it is off, or if the network is not a stranger whose packets get in.
    """
    plan = known.plan
    return {
        Ration.name: _json(plan.find(Ration), known),
        AskingRation.name: _json(plan.find(AskingRation), known),
    }


def _json(ration: Ration | AskingRation | None, known: "NetworkFacts") -> dict[str, Any] | None:
    if ration is None or ration.mode is LimitMode.OFF or not known.gets_in:
        return None
    return {"mode": str(ration.mode), "burst": ration.burst, "rate": ration.rate}


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a label and a text for each limit (``ration``, ``asking``) that applies to the stranger."""
    for name, what in (("ration", "refusal"), ("asking", "datagram")):
        if ration := found[name]:
            passing = f"{counted(ration['burst'], what)} at once, then {ration['rate']} a second"
            rest = "drops" if ration["mode"] == "enforce" else "only counts"
            yield name, f"{passing}; the kernel {rest} the others"
