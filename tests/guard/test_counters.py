"""The counters of the rules: read, kept, and the alarms about them."""

import asyncio

from tests.support.facts import Facts
from tests.support.kept import Kept

from ringfence.errors import FirewallError
from ringfence.firewall.contract import Counters


class Counting:
    """A firewall whose counters a test sets."""

    def __init__(self, made: Kept) -> None:
        self.counters = Counters()
        self.error: FirewallError | None = None
        made.backend.counters = self.usage  # type: ignore[method-assign]  # no kernel counts here

    def usage(self) -> Counters:
        """Return the counters, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.counters


def test_counters_that_cannot_be_read_are_an_alarm(kept: Kept) -> None:
    """Unreadable counters are zero and an alarm, which clears with the next answer."""
    backend = Counting(kept)
    kept.side.start()
    backend.error = FirewallError("no answer")
    assert asyncio.run(kept.side.kernel.counters.read()) == Counters()
    assert [alarm.code for alarm in kept.alarms.active] == ["firewall.counters"]
    backend.error = None
    asyncio.run(kept.side.kernel.counters.read())

    assert kept.alarms.active == []


def test_the_latest_counters_are_kept(kept: Kept) -> None:
    """The counters that were read last are kept until they cannot be read, and listeners get them."""
    backend, watch = Counting(kept), kept.side.kernel.counters
    heard = Facts[object]()
    kept.side.common.listeners.append(heard)
    kept.side.start()
    latest = [watch.latest]
    backend.counters = Counters(counted={"limiter_full": 7})
    for error in (None, FirewallError("no answer")):
        backend.error = error
        asyncio.run(watch.read())
        latest.append(watch.latest)

    assert latest == [None, Counters(counted={"limiter_full": 7}), None]
    assert [fact for fact in heard if isinstance(fact, Counters)] == [Counters(counted={"limiter_full": 7})]
