"""The stage of the limiter: packets of a stranger that sends too many are counted or dropped.

It does not apply to a container's own calls. It limits the packets of a source, and for TCP also the bytes:
``GUESS`` for each packet that the limit permits. One TCP segment may carry many guesses, and a packet of
64 kB that was combined from several segments (GRO) more than a hundred.

The limiter has room for a million sources. Only a sender with forged addresses can fill a table: it needs a
million addresses within ten seconds, and the table then takes 120 MB. New sources then pass without a limit
with nftables, and are dropped with ipset. While the limiter only observes, packets pass it in both.
"""

from collections.abc import Iterator

from attrs import frozen

from ringfence.firewall.contract import MOST_LISTED, FirewallPlan
from ringfence.firewall.limits import GUESS, USUAL_SECONDS, Filter, Key, LimitMode, Table, Until
from ringfence.firewall.stages import (
    STRANGERS,
    Chain,
    Count,
    Crowd,
    Hook,
    Is,
    Meter,
    PacketRule,
    Position,
    Remember,
    Side,
    Stage,
)

DROPS, FULL = "limiter_drops", "limiter_full"
"""The names of two counters: of packets over the limit, and of those whose source found no room."""
FLOODS = Table("flood", room=MOST_LISTED, what="flooding", renews=True)
TCP_FLOODS = Table("flood_tcp", room=MOST_LISTED, what="flooding", key=Key.ADDRESS, renews=True)
"""The tables of sources lately over the limit by UDP and by TCP; by TCP, a source is one address."""


@frozen
class Limit(Filter):
    """The limit on the packets of each source that is neither a friend nor on the allow list.

    A source may send ``rate`` packets a second. After a pause, it may send ``burst`` packets at once.
    """

    name = "limiter"
    waits = frozenset({Until.FRIENDS})
    optional = True
    rate: int = 50
    burst: int = 200

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:
        """Yield the stage (group of firewall rules) of the limiter in ``plan``."""
        drops = self.mode is LimitMode.ENFORCE
        seconds = max(USUAL_SECONDS, -(-self.burst // self.rate))
        floods = (
            PacketRule((Is.UDP,), Remember(FLOODS)),
            PacketRule((Is.TCP,), Remember(TCP_FLOODS)),
        )
        over = Chain("over", (*floods, PacketRule((), Count(DROPS, drops))))
        packets = Meter(
            Table("rate", what="limiter"),
            self.rate,
            self.burst,
            over,
            seconds,
            full=FULL,
            crowd=None if drops else Crowd(FULL, seconds),
        )
        octets = Meter(Table("bytes"), self.rate * GUESS, self.burst * GUESS, over, seconds, in_bytes=True)
        rules = PacketRule((), packets), PacketRule((Is.TCP,), octets)
        limit = Chain("limit", rules, refuses=FULL if drops else "")
        tests = Is.NAMED, Is.OUTER, plan.sip_ports, Is.TO_HOST, STRANGERS
        what = "drops packets of a stranger that sends too many"
        yield Stage(
            self.name,
            what,
            Side.FROM,
            (Hook.ARRIVING,),
            (PacketRule(tests, limit.jump),),
            on=self.mode is not LimitMode.OFF,
            chains=(over, limit),
            position=Position.BEFORE_COPIES,
        )


ADDITIONS = (Limit(),)
