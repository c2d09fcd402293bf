"""``[firewall.ration]``: the settings of the rations, and their rules."""

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from ringfence.config.converters import Rate
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import GUESTS, LimitMode

if TYPE_CHECKING:
    from ringfence.config.schema import Settings


@frozen
class RationSettings:
    """``[firewall.ration]``: the limits for the refusals (401, 403, 407) and the requests of one stranger.

    At once a stranger gets one refusal fewer than the rule ``guess`` counts attempts (4 with the default);
    after that ``rate`` a second. It may send as many datagrams at once as this rule counts attempts; after
    that ``asking_rate`` a second (``AskingRation``). ``asking`` is the mode of this second limit. If a
    PBX takes calls from strangers, each may send eight times as much (``GUESTS``).
    """

    mode: LimitMode = LimitMode.ENFORCE
    rate: Rate = Rate(2)
    asking: LimitMode = LimitMode.ENFORCE
    asking_rate: Rate = Rate(2)


TABLE = RationSettings
_WSS = 8089
"""Asterisk's default port of WebSocket over TLS."""


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan``, the wanted rules, with the limits on refusals and on requests of one stranger."""
    wss = () if settings.has_pages(_WSS) else (_WSS,)  # a feature may know other ports
    return evolve(plan.adding(_asking(settings), _ration(settings)), wss=wss)


def _ration(settings: "Settings") -> Ration:
    """Return the limit on refusals to one stranger. It is off if the rule ``guess``, which bans, is off."""
    mine, guess = settings.firewall.of(RationSettings), settings.rules["guess"]
    mode = mine.mode if guess.enabled else LimitMode.OFF
    return Ration(mode, max(guess.attempts - 1, 1), mine.rate)


def _asking(settings: "Settings") -> AskingRation:
    """Return the limit on requests of one stranger. It is off if the rule ``guess`` is off.

    It only observes if the phones of a PBX may be unknown: without AMI, and behind a proxy, where those of
    chan_sip and those by TLS never become friends. AMI may also be down (``Until.ROSTERS``).
    """
    mine, guess = settings.firewall.of(RationSettings), settings.rules["guess"]
    mode = mine.asking if guess.enabled else LimitMode.OFF
    if mode is LimitMode.ENFORCE and any(pbx.proxies or not pbx.ami.enabled for pbx in settings.asterisk):
        mode = LimitMode.OBSERVE
    times = GUESTS if settings.guests else 1
    return AskingRation(mode, guess.attempts * times, mine.asking_rate * times)
