"""The cost of ringfence on a busy PBX, and its memory under long Call-IDs.

500 phones renew their registrations every minute and make 10 calls a second, while strangers scan with 20
packets a second (:mod:`tests.support.company`). ringfence reads all sources, with every rule, and bans. A
call has media in one row, and none in the other.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.bench.figures import Figure
from tests.bench.testbed import GUESS, PLACED, Bed, bed
from tests.support.company import TALK, configured
from tests.support.network import inside
from tests.support.process import cpu_seconds, resident
from tests.support.sip_raw import Raw, calling

PHONES = 500
SECONDS = 25.0
"""The time of each row, with and without media."""
_WITHIN = 60.0
MOST_SHARE = 0.10
MEGABYTE = 1_000_000
LONG = 60_000
"""The length of the long Call-IDs."""
REQUESTS = 1_500
"""The number of requests without a digest. As many follow with one."""
EACH = 2
"""The requests without a digest of each address: its guesses lead to no ban."""
MOST_MORE = 20
"""Megabytes."""
_REST = 5.0
"""Seconds until all sources have reported everything."""


@frozen
class Busy:
    """The CPU time of both (seconds), what the company did, and the number of bans."""

    ours: float
    asterisk: float
    done: dict[str, Any]
    bans: int


def busy() -> list[Busy]:
    """Measure a busy PBX: first without media, then with it."""
    found = []
    with bed(extra=configured(PHONES)) as here:
        command = inside(
            here.lab.network.attacker, sys.executable, "-m", "tests.support.company",
            "--phones", str(PHONES), "--seconds", str(SECONDS),
        )  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as company:
            try:
                assert company.stdout is not None
                for _ in range(2):
                    if company.stdout.readline() != "ready\n":
                        raise RuntimeError("the phones did not register")
                    before = _used(here)
                    time.sleep(SECONDS)
                    after = _used(here)
                    ours, asterisk = after[0] - before[0], after[1] - before[1]
                    done = json.loads(company.stdout.readline())
                    found.append(Busy(ours, asterisk, done, len(here.guard.bans())))
                company.wait(_WITHIN)
            finally:
                company.kill()
    return found


def _used(here: Bed) -> tuple[float, float]:
    return cpu_seconds(here.guard.pid), here.lab.asterisk.cpu_seconds()


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    without, media = busy()
    yield _cost(media, f"each of {TALK} s with G.711 both ways", MOST_SHARE)
    yield _cost(without, "without media", None)
    yield _memory()


def _cost(found: Busy, calls: str, most: float | None) -> Figure:
    """Return the row of one period; ``most`` is the greatest share, None if it is only shown."""
    done, share = found.done, found.ours / found.asterisk
    failed = done["unregistered"] + done["uncalled"]
    media = (
        f", {done['spoken']} packets of RTP sent, {done['received']} packets back" if done["spoken"] else ""
    )
    return Figure(
        what=(
            f"CPU of ringfence on a PBX with {PHONES} phones (each registers every minute; 10 calls a "
            f"second, {calls}) and 20 packets of scanners a second, {SECONDS:.0f} s, of Asterisk's: all "
            "sources"
        ),
        measured=(
            f"{share:.1%} ({found.ours:.2f} s of {found.asterisk:.2f} s); {done['called']} calls, "
            f"{failed} failed{media}, {done['scanned']} packets of scanners, {found.bans} bans"
        ),
        must="nothing fails" if most is None else f"≤ {most:.0%}, and nothing fails",
        reached=(most is None or share <= most) and not failed,
        cores=PLACED.replace("attacker", "phones"),
    )


def long_call_ids() -> tuple[int, int, int]:
    """Send requests with long Call-IDs; return the memory before and the most since, and the answers."""
    with bed(GUESS) as here:
        request = Raw(call_id=b"x" * LONG + b"{}")
        before = most = resident(here.guard.pid)
        answered = 0
        for number in range(REQUESTS // EACH):
            with calling(here.lab, f"198.19.{1 + number // 250}.{1 + number % 250}") as caller:
                for again in range(EACH):
                    challenge = caller.challenged(request)
                    answered += challenge is not None
                    if challenge is not None:
                        caller.send(request.answering(challenge, f"wrong-{again}"))
            most = max(most, resident(here.guard.pid))
        time.sleep(_REST)
        return before, max(most, resident(here.guard.pid)), answered


def _memory() -> Figure:
    before, most, answered = long_call_ids()
    more = (most - before) / MEGABYTE
    return Figure(
        what=(
            f"memory of the daemon with {2 * REQUESTS} requests by UDP with Call-IDs of {LONG} bytes "
            f"(ten minutes at 2.4 Mbit/s): all sources"
        ),
        measured=f"{more:.1f} MB more ({before // MEGABYTE} MB before; {answered} challenges)",
        must=f"≤ {MOST_MORE} MB more",
        reached=more <= MOST_MORE and answered > 0,
        cores=PLACED,
    )
