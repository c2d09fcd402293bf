"""Bans that two hosts share by a real CrowdSec: how long they take, and what faults of the API cost."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.feeds import nobody_dropped
from tests.bench.figures import Figure
from tests.support.daemon import until
from tests.support.fleet import Hosts, denied, guesses, hosts
from tests.support.hostile_feeds import play_decisions
from tests.support.netns import netns

BANS = {"10s": 100, "1s": 100}
"""The number of bans for each interval."""
LATEST = {"10s": 12.0, "1s": 2.0}
"""The longest time in seconds that 99 % of the bans may take, by the interval."""
AWAY = 60.0
HOSTILE = 10_000
DURING = 30
"""The number of bans while the API is away."""
EQUAL_WITHIN = 60.0
AT_ONCE = 1.0
"""Seconds in which a ban must be in force at the host itself, whatever the API does."""


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure each."""
    for interval in BANS:
        with tempfile.TemporaryDirectory() as folder, netns(), hosts(Path(folder), interval=interval) as made:
            yield latency(made, interval)
    with tempfile.TemporaryDirectory() as folder, netns(), hosts(Path(folder)) as made:
        yield from away(made)
    with tempfile.TemporaryDirectory() as folder:
        yield hostile(Path(folder))


def hostile(folder: Path) -> Figure:
    """Let the daemon's parts apply hostile decisions, and count the addresses that must pass and do not."""
    played = play_decisions(folder, HOSTILE)
    what = f"{played.lists} hostile answers of a local API ({played.taken} changed what is applied)"
    return nobody_dropped(what, played)


def _addresses() -> Iterator[str]:
    """Yield addresses of senders, each once, far apart, so that no rule bans their network."""
    return (f"198.18.{number}.7" for number in itertools.count(2))


def latency(made: Hosts, interval: str) -> Figure:
    """Ban addresses at one host, and measure until each is in the kernel of the other."""
    began: dict[str, float] = {}
    took: dict[str, float] = {}
    addresses, pause = _addresses(), 0.37 if interval == "10s" else 0.23
    due = time.monotonic()
    while len(took) < BANS[interval]:
        now = time.monotonic()
        if now >= due and len(began) < BANS[interval]:
            address = next(addresses)
            began[address], due = now, now + pause
            made.pbx.send(guesses(address))
        listed = denied()
        now = time.monotonic()
        took.update({one: now - at for one, at in began.items() if one not in took and one in listed})
        assert now - max(began.values()) < 10 * LATEST[interval], "a ban never arrived"
        time.sleep(0.05)
    latest = statistics.quantiles(took.values(), n=100)[98]
    return Figure(
        f"{len(took)} proven bans at one host until they are in the kernel of another, by CrowdSec 1.4.6, "
        f"interval {interval}: p99, s",
        f"{latest:.1f}",
        f"≤ {LATEST[interval]:.0f}",
        latest <= LATEST[interval],
    )


def away(made: Hosts) -> Iterator[Figure]:
    """Kill the API, ban meanwhile, start it again, and count what is lost, late, or ended by mistake."""
    addresses = _addresses()
    before, during = next(addresses), list(itertools.islice(addresses, DURING))
    made.pbx.send(guesses(before))
    until(lambda: before in denied(), "the first ban")
    made.api.kill()
    began, slowest, wrong = time.monotonic(), 0.0, 0
    for number, address in enumerate(during):
        start = time.monotonic()
        made.pbx.send(guesses(address))
        until(lambda address=address: address in made.one.banned(), "a local ban")  # type: ignore[misc]
        slowest = max(slowest, time.monotonic() - start)
        wrong += before not in denied()
        time.sleep(max(0.0, began + (number + 1) * AWAY / DURING - time.monotonic()))
    made.api.start()
    start = time.monotonic()
    while time.monotonic() - start < 2 * EQUAL_WITHIN and any(one not in denied() for one in during):
        time.sleep(0.1)
    took, listed = time.monotonic() - start, denied()
    lost = sum(one not in listed for one in (before, *during))
    what = f"CrowdSec killed for {AWAY:.0f} s, {DURING} bans meanwhile"
    yield Figure(f"{what}: bans lost", str(lost), "0", lost == 0)
    yield Figure(f"{what}: wrong unbans", str(wrong), "0", wrong == 0)
    yield Figure(
        f"{what}: longest time of a local ban, s", f"{slowest:.2f}", f"≤ {AT_ONCE:.0f}", slowest <= AT_ONCE
    )
    yield Figure(
        f"{what}: until both hosts are equal, s", f"{took:.1f}", f"≤ {EQUAL_WITHIN:.0f}", took <= EQUAL_WITHIN
    )
