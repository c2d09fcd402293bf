"""The effects of fifty thousand forged senders: bans, the phones and the carrier, and the daemon's memory.

One Asterisk gets seven requests with each of 50 000 source addresses, as fast as it can read them with a
guard on the same machine. A real attacker guesses at the same time. All rules are on; none may cause a full
ban. The ration of answers is on, as it is by default: two answers a second come until the ban.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.attacks import THRESHOLD
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, on_cores, peer_bed
from tests.support.forger import Forger
from tests.support.forgery import Storm, guarded_pbx, storm

SENDERS = 50_000
EACH = 7
"""Requests of one sender: every third has no digest, so five (``THRESHOLD``) of them are guesses."""
RATE = 2_500.0
ALLOWED = 120.0
MOST_A_MINUTE = 600
BAN = 600
FEW = 2
OTHERS = 5
FORGED_FOR_THEM = "198.19.250.1"
"""The first of the forged addresses in the test of fail2ban."""
MEGABYTE = 1_000_000
MOST_MEMORY = 240
"""Megabytes: a sender with five guesses and two questions takes 3 kB."""


def stormed(backend: str) -> Storm:
    """Measure ringfence."""
    with (
        tempfile.TemporaryDirectory() as folder,
        guarded_pbx(Path(folder), backend) as here,
        on_cores(here.lab.asterisk.pid, here.guard.pid),
    ):
        return storm(here, SENDERS, EACH, RATE, allowed=ALLOWED)


def theirs(root: Path) -> int:
    """Return the number of addresses that fail2ban bans after two forged packets each."""
    with peer_bed(root, log="ringfence") as (lab, guard):
        Forger(lab, FORGED_FOR_THEM, OTHERS, FEW, 10.0).sent()
        guard.settle()
        return len(guard.banned())


def figures(root: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    found = stormed("ipset")
    other = ""
    if root is not None:
        other = f"fail2ban bans {theirs(root)} of {OTHERS} addresses after {FEW} forged packets each"
    yield _bans(found, other)
    yield _bound(found)
    yield _attacker(found)
    yield _phones(found)


def _bans(found: Storm, other: str) -> Figure:
    speed = found.sent.packets / found.sent.seconds
    return Figure(
        what=(
            f"with forged source addresses ({EACH} packets of each of {SENDERS}, {speed:.0f} a second): "
            "full bans; claimed bans of friends and trunks"
        ),
        measured=f"{len(found.full)}; {len(found.banned_own)}",
        must="0; 0",
        reached=not found.full and not found.banned_own,
        compared=other,
        cores=PLACED,
    )


def _bound(found: Storm) -> Figure:
    come = ", ".join(name for name, comes in found.passes.items() if comes) or "nothing"
    return Figure(
        what="then: claimed bans within any minute, their length, what comes through from who has one",
        measured=f"{found.most_in_a_minute} ({len(found.claimed)} in all), {sorted(found.lengths)} s, {come}",
        must=f"≤ {MOST_A_MINUTE}, {BAN} s, all but SIP by UDP",
        reached=0 < found.most_in_a_minute <= MOST_A_MINUTE
        and found.lengths <= {BAN - 1, BAN, BAN + 1}  # the kernel counts whole seconds
        and found.passes == {"SIP by UDP": False, "SIP by TCP": True, "UDP to another port": True},
        cores=PLACED,
    )


def _attacker(found: Storm) -> Figure:
    stopped = [(row["attempts"], row["scope"]) for row in found.stopped]
    ban = ", ".join(f"after {attempts} attempts, {scope}" for attempts, scope in stopped) or "none"
    return Figure(
        what="then: the ban of a real attacker, and its guesses that were answered",
        measured=f"{ban}; {found.guesses.answered}",
        must=f"after {THRESHOLD} attempts, sip; ≤ {THRESHOLD}, with the ration of answers",
        reached=stopped == [(THRESHOLD, "sip")] and found.guesses.answered <= THRESHOLD,
        cores=PLACED,
    )


def _phones(found: Storm) -> Figure:
    failed = len(found.renewed) - found.renewed.count(200)
    return Figure(
        what=(
            "then: renewals of phones that failed, renewals of the trunk, alarms (in the log), "
            "most memory of the daemon"
        ),
        measured=(
            f"{failed} of {len(found.renewed)}, {found.carried}, {len(found.alarms)} ({found.alarm_lines}), "
            f"{found.most // MEGABYTE} MB"
        ),
        must=f"0, ≥ 2, 1 (1), ≤ {MOST_MEMORY} MB",
        reached=bool(found.renewed)
        and not failed
        and found.carried >= 2
        and len(found.alarms) == found.alarm_lines == 1
        and found.most <= MOST_MEMORY * MEGABYTE,
        cores=PLACED,
    )
