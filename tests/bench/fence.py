"""The fence with three countries before a real Asterisk: what a stranger gets, and what phones suffer.

A trial guesses by every transport, first while the fence observes, then while it enforces. Phones of one of
the countries then live a day. All rules are on but those about neighbours.

The fence guards other services of the host too. Strangers and an administrator connect to these before and
after it begins to drop packets. The administrator's page is used from one of the countries. SSH is used from
outside, at a port that `also` names: it must stay open.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, Bed, bed
from tests.support import open_pbx, phones, services
from tests.support.daemon import until
from tests.support.fences import COUNTRIES, PHONES, RULES, STRANGER, answered, enforced, settings_in

NETWORKS = 5_000
"""The networks of each country."""
DAYS = 1
TRIALS = 2
BACKENDS = ("ipset", "nftables")
INSIDE, OUTSIDE = f"{PHONES}.250", f"{STRANGER}.250"
"""The addresses of the administrator: in a country of the fence, and elsewhere."""
STRANGERS = f"{STRANGER}.201", f"{STRANGER}.202", f"{STRANGER}.203", "fd00:19::5:1"


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            tables = settings_in(Path(folder), NETWORKS)
            firewall = {"backend": backend, "limit": {"mode": "enforce"}, "ration": {}}
            extra = open_pbx.configured("22")
            tables["fence"]["also"] = services.PORTS
            with bed(RULES, extra=extra, firewall=firewall, **tables) as here:
                yield _services(here, backend)
                yield from _rows(here, backend)


def _services(here: Bed, backend: str) -> Figure:
    lab, web = here.lab, (services.WEB, services.OTHER_WEB)

    def tried() -> tuple[int, int]:
        return services.opened(lab, STRANGERS, web), sum(services.transfers(lab, one) for one in STRANGERS)

    with (
        services.served(lab),
        services.client(lab, INSIDE, services.WEB) as page,
        services.client(lab, OUTSIDE, services.SSH) as ssh,
        services.client(lab, STRANGERS[0], services.WEB) as strangers,
    ):
        before = tried()
        with enforced(here.guard):
            after, continued = tried(), services.echoes(strangers)
            steps = [services.echoes(page), services.echoes(ssh), services.transfers(lab, INSIDE)]
            steps += [services.opened(lab, [INSIDE], web) == len(web)]
            steps += [services.opened(lab, [OUTSIDE], [services.SSH]) == 1]
        here.guard.ask("fence_enforce", seconds=0.1, force=True)
        until(lambda: here.guard.ask("fence")["mode"] == "observe", "the end of the trial")
    return Figure(
        what=f"other services behind the fence: strangers' connections to 443 and 8443 that open, their "
        f"requests by TFTP that are answered, their connections that continue; steps of an administrator "
        f"by SSH, web and TFTP that are cut, {backend}",
        measured=f"{after[0]}, {after[1]}, {int(continued)}; {steps.count(False)} of {len(steps)}",
        must="0, 0, 0; 0",
        reached=after == (0, 0)
        and not continued
        and all(steps)
        and before == (len(STRANGERS) * len(web), len(STRANGERS)),
        compared=f"without: {before[0]} open, {before[1]} answered",
        cores=PLACED,
    )


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
