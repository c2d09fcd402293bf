"""Bans that two hosts share by a real CrowdSec: how long they take, and what faults of the API cost.

CrowdSec keeps its rows in SQLite, in some rows in PostgreSQL.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.feeds import nobody_dropped
from tests.bench.figures import Figure
from tests.features.fleet.server import KEY, MACHINE, PASSWORD, FakeApi, Fault, fake_api
from tests.support.daemon import Guard, ami_server, until
from tests.support.fleet import RULES, Hosts, denied, guesses, hosts
from tests.support.hostile_feeds import play_decisions
from tests.support.netns import netns
from tests.support.postgresql import databases, running

BANS = {"10s": 100, "1s": 100}
"""The number of bans for each interval."""
LATEST = {"10s": 12.0, "1s": 2.0}
"""The longest time in seconds that 99 % of the bans may take, by the interval."""
AWAY = 60.0
HOSTILE = 10_000
DURING = 30
"""The number of bans while the API is away."""
EQUAL_WITHIN = 60.0
OTHERS = 20
"""The decisions of others while the API fails."""
FAULTS = {
    "answers cut at every 100th byte": [Fault(cut=length) for length in range(0, 4_000, 100)],
    "500 and 200 in turn": [Fault(status=500), Fault()] * 20,
}
"""The faults of the requests, one after the other."""
AT_ONCE = 1.0
"""Seconds in which a ban must be in force at the host itself, whatever the API does."""


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure each."""
    for database in databases():
        yield from _shared(database)
    for name, faults in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder, netns(), fake_api() as api:
            yield from faulty(Path(folder), api, name, faults)
    with tempfile.TemporaryDirectory() as folder:
        yield hostile(Path(folder))


def _shared(database: str) -> Iterator[Figure]:
    """Measure two hosts whose CrowdSec has this database."""
    for interval in BANS:
        with _hosts(database, interval=interval) as made:
            yield latency(made, interval, database)
    with _hosts(database) as made:
        yield from away(made, database)


@contextmanager
def _hosts(database: str, **settings: object) -> Iterator[Hosts]:
    with tempfile.TemporaryDirectory() as name, netns(), ExitStack() as stack:
        rows = stack.enter_context(running(database, Path(name, "rows")))
        yield stack.enter_context(hosts(Path(name), rows, **settings))


def hostile(folder: Path) -> Figure:
    """Apply hostile decisions in the daemon's parts, and count the addresses that must pass and do not."""
    played = play_decisions(folder, HOSTILE)
    what = f"{played.lists} hostile answers of a local API ({played.taken} changed what is applied)"
    return nobody_dropped(what, played)


def _addresses() -> Iterator[str]:
    """Yield addresses of senders, each once, far apart, so that no rule bans their network."""
    return (f"198.18.{number}.7" for number in itertools.count(2))


def latency(made: Hosts, interval: str, database: str) -> Figure:
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
        f"{len(took)} proven bans at one host until they are in the kernel of another, by CrowdSec 1.4.6 "
        f"with {database}, interval {interval}: p99, s",
        f"{latest:.1f}",
        f"≤ {LATEST[interval]:.0f}",
        latest <= LATEST[interval],
    )


def away(made: Hosts, database: str) -> Iterator[Figure]:
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
    what = f"CrowdSec with {database} killed for {AWAY:.0f} s, {DURING} bans meanwhile"
    yield Figure(f"{what}: bans lost", str(lost), "0", lost == 0)
    yield Figure(f"{what}: wrong unbans", str(wrong), "0", wrong == 0)
    yield Figure(
        f"{what}: longest time of a local ban, s", f"{slowest:.2f}", f"≤ {AT_ONCE:.0f}", slowest <= AT_ONCE
    )
    yield Figure(
        f"{what}: until both hosts are equal, s", f"{took:.1f}", f"≤ {EQUAL_WITHIN:.0f}", took <= EQUAL_WITHIN
    )


def faulty(folder: Path, api: FakeApi, name: str, faults: list[Fault]) -> Iterator[Figure]:
    """Ban while the requests to a fake API go wrong, and count what is lost, late, or ended by mistake."""
    others = [f"198.19.{number}.7" for number in range(OTHERS)]
    for one in others:
        api.add(one, "other", origin="CAPI")
    (folder / "password").write_text(PASSWORD, "utf-8")
    (folder / "key").write_text(KEY, "utf-8")
    files = {"password_file": str(folder / "password"), "key_file": str(folder / "key")}
    table = {"url": api.url, "machine": MACHINE, **files, "interval": "1s"}
    slowest, wrong, banned = 0.0, 0, []
    firewall = {"backend": "nftables"}
    with (
        ami_server() as pbx,
        Guard(folder, ami={"port": pbx.port}, rules=RULES, firewall=firewall, crowdsec=table) as guard,
    ):
        until(lambda: guard.source_is("listening"), "the source listens")
        until(lambda: all(one in denied() for one in others), "the decisions of others")
        api.faults = [*faults]
        began, addresses = time.monotonic(), _addresses()
        while api.faults and time.monotonic() - began < AWAY:
            address = next(addresses)
            banned.append(address)
            start = time.monotonic()
            pbx.send(guesses(address))
            until(lambda address=address: address in guard.banned(), "a local ban")  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - start)
            wrong += sum(one not in denied() for one in others)
            time.sleep(AWAY / DURING)
        used, api.faults = len(faults) - len(api.faults), []
        start = time.monotonic()
        while time.monotonic() - start < EQUAL_WITHIN and len(_held(api, banned)) < len(banned):
            time.sleep(0.1)
        lost = len(banned) - len(_held(api, banned)) + sum(one not in denied() for one in others)
    what = f"{name} ({used} requests), {len(banned)} bans meanwhile"
    yield Figure(f"{what}: bans lost", str(lost), "0", lost == 0)
    yield Figure(f"{what}: wrong unbans", str(wrong), "0", wrong == 0)
    yield Figure(
        f"{what}: longest time of a local ban, s", f"{slowest:.2f}", f"≤ {AT_ONCE:.0f}", slowest <= AT_ONCE
    )


def _held(api: FakeApi, banned: list[str]) -> list[str]:
    """Return the addresses of these that the API has as decisions of ringfence."""
    values = api.values()
    return [one for one in banned if ("ringfence/guess", one) in values]
