"""The rations of an address, in ``ringfence why``."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ringfence.firewall.limits import AskingRation, LimitMode, Ration
from ringfence.plurals import counted

if TYPE_CHECKING:
    from ringfence.explain.facts import NetworkFacts


def facts(known: "NetworkFacts") -> dict[str, dict[str, Any] | None]:
    """Return the rations that the network has; None for one that it lacks, or if no packet of it gets in."""
    plan = known.plan
    return {"ration": _json(plan.ration, known), "asking": _json(plan.asking, known)}


def _json(ration: Ration | AskingRation, known: "NetworkFacts") -> dict[str, Any] | None:
    if ration.mode is LimitMode.OFF or not known.gets_in:
        return None
    return {"mode": str(ration.mode), "burst": ration.burst, "rate": ration.rate}


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of each ration."""
    for name, what in (("ration", "refusal"), ("asking", "datagram")):
        if ration := found[name]:
            passing = f"{counted(ration['burst'], what)} at once, then {ration['rate']} a second"
            rest = "drops" if ration["mode"] == "enforce" else "only counts"
            yield name, f"{passing}; the kernel {rest} the others"
