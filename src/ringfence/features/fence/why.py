"""The fence in ``ringfence why``: whether it admits an address."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ringfence.firewall.limits import LimitMode
from ringfence.plurals import counted
from ringfence.values.location import where
from ringfence.values.network import format_network

if TYPE_CHECKING:
    from ringfence.explain.facts import NetworkFacts


def facts(known: "NetworkFacts") -> dict[str, dict[str, Any] | None]:
    """Return under ``fence`` how the fence treats the network; None without a fence or a daemon."""
    if (fence := known.admission) is None:
        return {"fence": None}
    outside = known.outside is not None
    mode, packets = str(fence.mode), fence.packets
    return {"fence": {"mode": mode, "inside": fence.inside, "outside": outside, "packets": packets}}


def forecast(known: "NetworkFacts") -> Iterator[str]:
    """Yield a sentence for a stranger whom the fence does not admit: its effect, and how to admit them."""
    if known.outside is not None:
        own, location = format_network(known.network), where(known.location)
        drops = "are" if known.outside.mode is LimitMode.ENFORCE else "would be"
        then = f"to let it in: ringfence fence admit {own}, or for ever: ringfence allow add {own}"
        yield f"it is outside the fence ({location}), so its packets to the SIP ports {drops} dropped; {then}"


def kept_out(found: Mapping[str, Any]) -> str:
    """Return the part of a sentence that the fence drops packets of the network; "" if it does not.

    ``found`` are the facts about the network, with those of :func:`facts`.
    """
    fence = found["fence"]
    keeps = fence is not None and fence["outside"] and fence["mode"] == "enforce"
    return "the fence keeps it from the SIP ports" if keeps else ""


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of the line about the fence in ``ringfence why``, if there is a fence."""
    if fence := found["fence"]:
        packets = fence["packets"]
        seen = f"; {counted(packets, 'packet')} counted within the last hour" if packets else ""
        drops = "drops" if fence["mode"] == "enforce" else "only counts"
        place = "it is outside" if fence["outside"] else "it does not admit all of it"
        outside = f"{place}: the kernel {drops} what comes from outside{seen}"
        yield "fence", "lets it in" if fence["inside"] else outside
