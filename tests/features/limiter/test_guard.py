"""The limiter's reports: sources over the limit, the alarms about them, and its numbers."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from tests.support.kept import Kept

from ringfence.errors import FirewallError
from ringfence.features.limiter.floods import Flooder, FloodWatch
from ringfence.features.limiter.guard import Limiter
from ringfence.features.limiter.stage import TCP_FLOODS, Limit
from ringfence.firewall.contract import Counters, Remembered
from ringfence.firewall.limits import LimitMode, Table


class Flooded:
    """A firewall with a limiter whose reports a test sets."""

    def __init__(self, made: Kept) -> None:
        self.flooders: Sequence[Flooder] = ()
        self.full = 0
        self.error: FirewallError | None = None
        self.watch = FloodWatch(made.backend, made.enforcer, made.alarms)
        judge: Any = None  # no task of the limiter runs here
        self.limiter = Limiter(made.side, judge)
        made.side.common.listeners.append(self.limiter)
        made.backend.remembered = self.flooding  # type: ignore[method-assign]  # no kernel limits here
        made.backend.counters = self.usage  # type: ignore[method-assign]

    def flooding(self, table: Table) -> Sequence[Remembered]:
        """Return the senders over the limit by one protocol, or raise the error."""
        if self.error is not None:
            raise self.error
        found = (one for one in self.flooders if one.tcp is (table is TCP_FLOODS))
        return [Remembered(one.network, one.packets) for one in found]

    def usage(self) -> Counters:
        """Return the counters."""
        return Counters(counted={"limiter_drops": 11, "limiter_full": self.full})


def test_a_flooder_is_reported_for_each_second(kept: Kept) -> None:
    """A sender is reported for each second in which its drops grow, and only if the limiter enforces."""
    limiter = Flooded(kept)
    watch = limiter.watch
    kept.side.start()
    one, other = ip_network("192.0.2.1"), ip_network("2001:db8::/64")
    limiter.flooders = [Flooder(one, 10)]
    assert watch.new_flooders() == []

    kept.backend.plan = kept.backend.plan.adding(Limit(LimitMode.ENFORCE))
    found = []
    for flooders in ([Flooder(one, 10)], [Flooder(one, 10), Flooder(other, 1)], [Flooder(one, 11)]):
        limiter.flooders = flooders
        found += [flooder.network for flooder in watch.new_flooders()]
    assert found == [one, other, one]
    limiter.flooders = [Flooder(one, 11), Flooder(one, 11, tcp=True)]
    assert watch.new_flooders() == [Flooder(one, 11, tcp=True)]

    kept.enforcer.switch_off()
    assert watch.new_flooders() == []


def test_flooders_that_cannot_be_read_twice_are_an_alarm(kept: Kept) -> None:
    """One failure is no alarm, because rules may be under repair; a second is one, until the next answer."""
    limiter = Flooded(kept)
    kept.side.start()
    kept.backend.plan = kept.backend.plan.adding(Limit(LimitMode.ENFORCE))
    found = []
    for error in (FirewallError("no answer"), None, FirewallError("no answer"), FirewallError("no"), None):
        limiter.error = error
        assert limiter.watch.new_flooders() == []
        found.append([alarm.code for alarm in kept.alarms.active])
    assert found == [[], [], [], ["limiter.unreadable"], []]


def test_a_limiter_without_room_is_an_alarm(kept: Kept) -> None:
    """A full limiter raises the alarm each time that more packets found no room."""
    limiter = Flooded(kept)
    kept.side.start()
    asyncio.run(kept.side.kernel.counters.read())
    assert kept.alarms.active == []
    for full in (5, 5, 6):
        limiter.full = full
        asyncio.run(kept.side.kernel.counters.read())

    assert [(alarm.code, alarm.times) for alarm in kept.alarms.active] == [("limiter.full", 2)]


def test_packets_from_before_the_start_are_no_alarm(kept: Kept) -> None:
    """The rules outlast the daemon, so its first reading may have the packets of a flood that is over."""
    limiter = Flooded(kept)
    kept.side.start()
    limiter.full = 5
    for _ in range(2):
        asyncio.run(kept.side.kernel.counters.read())
    assert kept.alarms.active == []


def test_the_status_has_the_drops(kept: Kept) -> None:
    """The status has the packets over the limit, 0 if nothing is known, and whether the limiter waits."""
    limiter = Flooded(kept).limiter
    kept.side.start()
    assert limiter.section().as_json() == {"limiter_drops": 0, "limiter_full": 0, "limiter_waits": True}
    assert [one.value for one in limiter.section().numbers] == [None, None]
    asyncio.run(kept.side.kernel.counters.read())

    assert limiter.section().as_json() == {"limiter_drops": 11, "limiter_full": 0, "limiter_waits": True}
    assert [(one.name, one.value) for one in limiter.section().numbers] == [
        ("limiter_drops", 11),
        ("limiter_full", 0),
    ]
