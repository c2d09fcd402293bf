"""Effects on root and the daemon while guests of the machine attack a daemon with 262,000 bans.

Each attack lasts some seconds. Meanwhile root asks for the status and the alarms, bans and unbans. The bans
are in the nftables of a network namespace.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.daemon import Guard
from tests.support.guests import (
    CLIENT_HEADER,
    PAGE_ONLY,
    READERS,
    UNKNOWN,
    Attack,
    Noticed,
    attacked,
    links_tried,
    noticed,
)
from tests.support.manybans import addresses, fill
from tests.support.netns import netns
from tests.support.users import PAGE, READER, guard_with_users
from tests.support.web import web_server

SITE = "https://pbx.example.com"
NUMBER = 262_000
SECONDS, ALONE = 4.0, 16.0
"""Seconds of an attack, and of the only one of its guest: it has to give as many answers as several."""
HANG, LATE, MOST_MEMORY = 2.0, 0.2, 300_000_000
"""Root's answers that count as a hang and as late (seconds), and the memory that is too much (bytes)."""
MOST_LATE = 0.01
"""The share of root's answers that may be late."""
MEMBERS = (READER, READER + 1, READER + 2)


def figures(_: Path | None) -> Iterator[Figure]:
    """Attack by each who, and yield the rows."""
    with tempfile.TemporaryDirectory() as name, netns():
        folder = Path(name)
        folder.chmod(0o755)
        fill(folder / "filled.db", addresses(NUMBER))
        store = shutil.copy(folder / "filled.db", folder / "ringfence.db")
        settings = {"store": {"path": str(store)}, "firewall": {"backend": "nftables"}}
        with guard_with_users(fence={"mode": "observe"}, **settings) as guard:
            path = guard.folder / "control.sock"
            yield _row("a member of the group", guard, _by(path, MEMBERS, [*UNKNOWN, *READERS]))
            yield _row("uid ringfence-web", guard, _by(path, (PAGE,), [*UNKNOWN, *PAGE_ONLY]))
            with web_server(guard.folder / "web", path, site=SITE, client_header=CLIENT_HEADER) as web:
                tried = {"links": links_tried(web.socket)}
                yield _row("an owner of many addresses, at the page", guard, tried, ALONE)
                yield _journal(web.log)


def _by(path: Path, users: tuple[int, ...], attacks: list[Attack]) -> dict[str, AbstractContextManager[None]]:
    return {one.name: attacked(path, one, users) for one in attacks}


def _row(
    who: str, guard: Guard, attacks: dict[str, AbstractContextManager[None]], seconds: float = SECONDS
) -> Figure:
    """Run the attacks one after the other, and return the row of this guest."""
    found: dict[str, Noticed] = {}
    for name, attack in attacks.items():
        found[name] = noticed(guard, attack, seconds)
        if found[name].ended:
            break
    answers = [took for one in found.values() for took, _ in one.answers]
    bad = {
        "ends": sum(one.ended for one in found.values()),
        "hangs": sum(took > HANG for took in answers),
        "over 300 MB": sum(one.memory > MOST_MEMORY for one in found.values()),
    }
    late = sum(took > LATE for took in answers)
    largest = max(found, key=lambda name: found[name].memory)
    slowest = max(found, key=lambda name: found[name].slowest)
    took, request = found[slowest].slowest
    counts = ", ".join(f"{number} {what}" for what, number in {**bad, "late answers": late}.items())
    return Figure(
        what=f"{len(found)} attacks by {who} on a daemon with {NUMBER} bans, {seconds:.0f} s each: ends, "
        f"root's answers over {HANG:.0f} s, memory over 300 MB, root's answers over {LATE} s",
        measured=f"{counts}; {len(answers)} answers, the slowest {took:.2f} s ({request}, {slowest}), "
        f"most memory {found[largest].memory / 1e6:.0f} MB ({largest})",
        must=f"0; late answers ≤ {MOST_LATE:.0%}: the start of a command takes root longer",
        reached=not any(bad.values()) and late <= MOST_LATE * len(answers),
    )


def _journal(log: str) -> Figure:
    lines = log.count("event=web.admit_")
    return Figure(
        what="lines in the journal of the page by refused links from ever new addresses, in one minute",
        measured=str(lines),
        must="1 to 11",
        reached=1 <= lines <= 11,
    )
