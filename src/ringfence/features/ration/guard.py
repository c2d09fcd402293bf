"""The rations as a part of the daemon: their section of the status, and their alarms."""

from ringfence.features.ration.alarms import RationAlarmCode
from ringfence.features.ration.stage import ASKED, ASKED_FULL, RATION_FULL, RATIONED, AskingRation
from ringfence.firewall.contract import Counters
from ringfence.guard.feature import Fact, Feature, Given, Section, packets_of
from ringfence.guard.firewall_side import FirewallSide

_NUMBERS = {
    RATIONED: (
        "Refusals and TCP segments to strangers over the ration: dropped, or passed if it only observes."
    ),
    RATION_FULL: "Refusals and TCP segments to strangers for which the ration had no room: they passed.",
    ASKED: "Packets from strangers over the ration of questions: dropped, or passed if it only observes.",
    ASKED_FULL: "Packets from strangers for which the ration of questions had no room: they passed.",
}
"""The packet counters of the limits on refusals and requests that the status has, with descriptions."""

_FULL = (
    "the ration has no room for more strangers: Asterisk refuses many thousand addresses a second, "
    "most of them forged. Refusals to new strangers pass without a ration; bans work"
)
_ASKING_FULL = (
    "the ration of questions has no room for more strangers: packets come from a million addresses, most of "
    "them forged. What new strangers ask passes without a ration; bans work"
)


class Rations(Feature):
    """Reports how many packets the rations (limits on refusals to, and requests of, one stranger) drop."""

    def __init__(self, side: FirewallSide) -> None:
        self._side = side
        self._before: Counters | None = None  # by the last reading

    def section(self) -> Section:
        """Return the packet counters of both limits, and whether one only counts until friends are known."""
        waits = AskingRation.name in self._side.kernel.rules.waiting
        return Section(packets_of(self._side, _NUMBERS), {"asking_waits": waits})

    def on_fact(self, fact: Fact) -> None:
        """If the fact is new packet counters, activate an alarm for each limit whose table was full again."""
        if isinstance(fact, Counters):
            before, self._before, activate = self._before, fact, self._side.common.alarms.activate
            if fact.has_grown(RATION_FULL, before):
                activate(RationAlarmCode.RATION_FULL, "", _FULL)
            if fact.has_grown(ASKED_FULL, before):
                activate(RationAlarmCode.ASKING_FULL, "", _ASKING_FULL)


def build(given: Given) -> Rations:
    """Return the part of the daemon that reports what its limits per stranger drop in status and alarms.

    The limits are on Asterisk's refusals to a stranger, and on a stranger's requests. ``given`` has the other
    parts of the daemon.
    """
    return Rations(given.side)
