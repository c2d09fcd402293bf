"""The fence with three countries before a real Asterisk: what a stranger gets, and what phones suffer.

A trial guesses by every transport, first while the fence observes, then while it enforces. Phones of one of
the countries then live a day. All rules are on but those about neighbours.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, Bed, bed
from tests.support import open_pbx, phones
from tests.support.fences import COUNTRIES, PHONES, RULES, answered, enforced, settings_in

NETWORKS = 5_000
"""The networks of each country."""
DAYS = 1
TRIALS = 2
BACKENDS = ("ipset", "nftables")


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            tables = settings_in(Path(folder), NETWORKS)
            firewall = {"backend": backend, "limit": {"mode": "enforce"}, "ration": {}}
            extra = open_pbx.configured("22")
            with bed(RULES, extra=extra, firewall=firewall, **tables) as here:
                yield from _rows(here, backend)


def _rows(here: Bed, backend: str) -> Iterator[Figure]:
    without = answered(here.lab, 1)
    here.guard.ask("unban", all=True)
    began = time.perf_counter()
    with enforced(here.guard):
        took = time.perf_counter() - began
        found = [answered(here.lab, 2 + trial) for trial in range(TRIALS)]
        total = sum(sum(one.values()) for one in found)
        yield Figure(
            what=f"guesses of strangers that Asterisk answers behind the fence, {backend}",
            measured=f"{total} in {TRIALS} trials with each of {', '.join(without)}",
            must="0",
            reached=total == 0 and all(without.values()),
            compared=f"without: {', '.join(f'{count} by {name}' for name, count in without.items())}",
            cores=PLACED,
        )
        before = len(here.guard.bans())
        days = [phones.a_day(here.lab, PHONES) for _ in range(DAYS)]
        wrong = [step for day in days for step in day.wrong]
        bans = len(here.guard.bans()) - before
        outside = here.guard.ask("fence")["outside"]
        yield Figure(
            what=f"steps of phones cut behind a fence of {len(COUNTRIES)} countries, {backend}",
            measured=f"{len(wrong)} of {sum(day.requests for day in days)} requests; {bans} bans; "
            f"{len(outside)} from outside; {took:.1f} s from the command to the rules",
            must="0; 0; 0",
            reached=(len(wrong), bans, len(outside)) == (0, 0, 0),
            cores=PLACED.replace("attacker", "phones"),
        )
