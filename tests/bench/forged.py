"""What fifty thousand forged senders do: to themselves, to phones and a carrier among them, to the daemon.

One Asterisk, six requests in the name of each of 50 000 addresses, as fast as the laboratory's Asterisk takes
them with a guard beside it. Somebody really guesses meanwhile.
"""

import tempfile
from pathlib import Path

from tests.bench.attacks import THRESHOLD
from tests.bench.fail2ban import Fail2ban
from tests.bench.figures import Figure
from tests.support.forger import Forger
from tests.support.forgery import Storm, place, storm
from tests.support.lab import Lab

SENDERS = 50_000
EACH = THRESHOLD + 1
RATE = 2_500.0
ALLOWED = 120.0
MOST_A_MINUTE = 600
BAN = 600
MORE = 20
"""So many bans more than the bound may be seen within a minute: the list is to the second."""
FEW = 2
FORGED_FOR_THEM = "198.19.250.1"
MEGABYTE = 1_000_000
MOST_MEMORY = 256
"""Megabytes: with every table full of callers that were challenged and never came back."""


def stormed(backend: str) -> Storm:
    """Measure ringfence."""
    with tempfile.TemporaryDirectory() as folder, place(Path(folder), backend) as here:
        return storm(here, SENDERS, EACH, RATE, allowed=ALLOWED)


def theirs(lab: Lab, root: Path) -> bool:
    """Say whether fail2ban bans an address in whose name two packets were forged."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Fail2ban(lab, root, Path(folder), log="ringfence") as guard,
    ):
        Forger(lab, FORGED_FOR_THEM, 1, FEW, 10.0).sent()
        guard.settle()
        return FORGED_FOR_THEM in guard.banned()


def figures(lab: Lab, root: Path | None) -> list[Figure]:
    """Measure, and give the rows."""
    found = stormed("ipset")
    other = ""
    if root is not None:
        banned = theirs(lab, root)
        other = f"fail2ban {'bans' if banned else 'does not ban'} an address after {FEW} forged packets"
    return [
        _bans(found, other),
        _bound(found),
        _attacker(found),
        Figure(
            what="then: phones and carrier that could not register, alarms, most memory of the daemon",
            measured=(
                f"{len(found.renewed) - found.renewed.count(200)} of {len(found.renewed)}, "
                f"{len(found.alarms)}, {found.most // MEGABYTE} MB"
            ),
            must=f"0, 1, ≤ {MOST_MEMORY} MB",
            reached=set(found.renewed) == {200}
            and found.carried > 1
            and len(found.alarms) == found.said == 1
            and found.most <= MOST_MEMORY * MEGABYTE,
        ),
    ]


def _bans(found: Storm, other: str) -> Figure:
    speed = found.sent.packets / found.sent.seconds
    return Figure(
        what=(
            f"with forged source addresses ({EACH} packets of each of {SENDERS}, {speed:.0f} a second): "
            "full bans; claimed bans of friends and trunks"
        ),
        measured=f"{len(found.full)}; {len(found.spared)}",
        must="0; 0",
        reached=not found.full and not found.spared,
        compared=other,
    )


def _bound(found: Storm) -> Figure:
    come = ", ".join(name for name, comes in found.passes.items() if comes) or "nothing"
    return Figure(
        what="then: claimed bans within any minute, their length, what comes through from who has one",
        measured=f"{found.a_minute} ({len(found.claimed)} in all), {sorted(found.lengths)} s, {come}",
        must=f"≤ {MOST_A_MINUTE}, {BAN} s, all but SIP by UDP",
        reached=0 < found.a_minute <= MOST_A_MINUTE + MORE
        and found.lengths <= {BAN}
        and found.passes == {"SIP by UDP": False, "SIP by TCP": True, "UDP to another port": True},
    )


def _attacker(found: Storm) -> Figure:
    stopped = [(row["attempts"], row["scope"]) for row in found.stopped]
    ban = ", ".join(f"after {attempts} attempts, {scope}" for attempts, scope in stopped) or "none"
    return Figure(
        what="then: the ban of somebody who really guesses, and the guesses that were answered to him",
        measured=f"{ban}; {found.guesses.answered}",
        must=f"after {THRESHOLD} attempts, full",
        reached=stopped == [(THRESHOLD, "full")],
    )
