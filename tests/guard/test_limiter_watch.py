"""The limiter's reports: sources over the limit, counters, and the alarms about both."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

from attrs import evolve
from tests.support.kept import Kept

from ringfence.errors import FirewallError
from ringfence.firewall.contract import Counters, Flooder, Limit, LimitMode


class Flooded:
    """A firewall with a limiter whose reports a test sets."""

    def __init__(self, made: Kept) -> None:
        self.flooders: Sequence[Flooder] = ()
        self.full = self.ration_full = self.asked_full = 0
        self.error: FirewallError | None = None
        made.backend.flooders = self.flooding  # type: ignore[method-assign]  # no kernel limits here
        made.backend.counters = self.usage  # type: ignore[method-assign]

    def flooding(self) -> Sequence[Flooder]:
        """Return the senders over the limit, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.flooders

    def usage(self) -> Counters:
        """Return the counters, or raise the error."""
        if self.error is not None:
            raise self.error
        counters = Counters(limiter_full=self.full, ration_full=self.ration_full)
        return evolve(counters, asked_full=self.asked_full)


def test_a_flooder_is_reported_for_each_second(kept: Kept) -> None:
    """A sender is reported for each second in which its drops grow, and only if the limiter enforces."""
    limiter, watch = Flooded(kept), kept.side.kernel.limiter
    kept.side.start()
    one, other = ip_network("192.0.2.1"), ip_network("2001:db8::/64")
    limiter.flooders = [Flooder(one, 10)]
    assert watch.new_flooders() == []

    kept.backend.plan = evolve(kept.backend.plan, limit=Limit(LimitMode.ENFORCE))
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
    limiter, watch = Flooded(kept), kept.side.kernel.limiter
    kept.side.start()
    kept.backend.plan = evolve(kept.backend.plan, limit=Limit(LimitMode.ENFORCE))
    found = []
    for error in (FirewallError("no answer"), None, FirewallError("no answer"), FirewallError("no"), None):
        limiter.error = error
        assert watch.new_flooders() == []
        found.append([alarm.code for alarm in kept.alarms.active])
    assert found == [[], [], [], ["limiter.unreadable"], []]


def test_a_limiter_without_room_is_an_alarm(kept: Kept) -> None:
    """A full limiter raises the alarm each time that more packets found no room."""
    limiter = Flooded(kept)
    kept.side.start()
    asyncio.run(kept.side.kernel.limiter.counters())
    assert kept.alarms.active == []
    for full in (5, 5, 6):
        limiter.full = full
        asyncio.run(kept.side.kernel.limiter.counters())

    assert [(alarm.code, alarm.times) for alarm in kept.alarms.active] == [("limiter.full", 2)]


def test_a_full_ration_is_an_alarm(kept: Kept) -> None:
    """Refusals without room in the ration are an alarm of their own."""
    limiter = Flooded(kept)
    kept.side.start()
    limiter.ration_full = 9
    asyncio.run(kept.side.kernel.limiter.counters())
    assert [alarm.code for alarm in kept.alarms.active] == ["ration.full"]


def test_a_full_ration_of_questions_is_an_alarm(kept: Kept) -> None:
    """So is what strangers asked without room in the ration of questions, each time that more came."""
    limiter = Flooded(kept)
    kept.side.start()
    for full in (9, 9, 12):
        limiter.asked_full = full
        asyncio.run(kept.side.kernel.limiter.counters())
    assert [(alarm.code, alarm.times) for alarm in kept.alarms.active] == [("asking.full", 2)]


def test_counters_that_cannot_be_read_are_an_alarm(kept: Kept) -> None:
    """Unreadable counters are zero and an alarm, which clears with the next answer."""
    limiter = Flooded(kept)
    kept.side.start()
    limiter.error = FirewallError("no answer")
    assert asyncio.run(kept.side.kernel.limiter.counters()) == Counters()
    assert [alarm.code for alarm in kept.alarms.active] == ["firewall.counters"]
    limiter.error = None
    asyncio.run(kept.side.kernel.limiter.counters())

    assert kept.alarms.active == []


def test_the_latest_counters_are_kept(kept: Kept) -> None:
    """The counters that were read last are kept until they cannot be read."""
    limiter, watch = Flooded(kept), kept.side.kernel.limiter
    kept.side.start()
    latest = [watch.latest]
    limiter.full = 7
    for error in (None, FirewallError("no answer")):
        limiter.error = error
        asyncio.run(watch.counters())
        latest.append(watch.latest)

    assert latest == [None, Counters(limiter_full=7), None]
