"""The cost of ringfence on a busy PBX beside fail2ban's and none, and its memory under long Call-IDs.

500 phones renew their registrations every minute and make 10 calls a second, while strangers scan with 20
packets a second (:mod:`tests.support.company`). ringfence reads all sources, with every rule, bans, and
has the default limits of strangers. On its first day all accounts are new to it, so it reads the whole
conversations of the phones. Later it reads only their refusals: in these rows it has known the phones for two
days. An earlier commit's ringfence may be compared with it. fail2ban reads Asterisk's messages, or a log that
has security lines too. A call has media in some rows, and none in the others.
"""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from attrs import frozen
from tests.bench.figures import Figure
from tests.bench.pace import limited
from tests.bench.testbed import (
    GUESS,
    MOST_OF_BASE,
    PLACED,
    bed,
    defended,
    environ_of,
    on_cores,
    peer_bed,
    until_defended,
)
from tests.support.company import TALK, configured
from tests.support.guarded import preferred
from tests.support.lab import Lab
from tests.support.network import inside
from tests.support.process import cpu_seconds, resident
from tests.support.sip_raw import Raw, calling

PHONES = 500
SECONDS = 25.0
"""The time of each row, with and without media."""
_WITHIN = 60.0
MOST_OF_ASTERISK = 5.0
"""Asterisk's CPU time beside ringfence, more than without a guard: percent of a core.

They are its reports of each login, and the rules that its packets pass. The ratio of two small times says
nothing that an administrator needs: two runs without a guard differ by a tenth.
"""
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

_CORES = PLACED.replace("attacker", "phones")
_DAYS = 2
"""The days for which ringfence has known the phones in the rows of a later day."""

Guarded = AbstractContextManager[tuple[Lab, Sequence[int]]]
"""A laboratory, and the processes of its guard."""
_NOBODY, _MESSAGES, _SECURITY = "no guard", "fail2ban", "fail2ban with security lines"
_PEERS = _MESSAGES, _SECURITY
_FIRST_DAY, _LATER, _BEFORE = "on its first day", "later", "that commit"
MOST_OF_PEER = {_FIRST_DAY: 4.0, _LATER: 2.5}
"""ringfence's CPU time, of that of fail2ban with security lines. ringfence reads logins and packets too."""
_MEASURED = {_NOBODY: 2, _LATER: 2, _BEFORE: 2, _SECURITY: 2}
"""How often a guard is measured whose times are compared; the least time counts. Others are measured once."""


@frozen
class Busy:
    """The CPU time of the guard and of Asterisk (seconds), and what the company did."""

    guard: float
    asterisk: float
    done: dict[str, Any]


def busy(guarded: Guarded) -> tuple[Busy, Busy]:
    """Measure a busy PBX: first without media, then with it."""
    with (
        guarded as (lab, guard),
        subprocess.Popen(_company(lab, SECONDS), stdout=subprocess.PIPE, text=True) as company,
    ):
        try:
            found = _period(company, lab, guard), _period(company, lab, guard)
            company.wait(_WITHIN)
        finally:
            company.kill()
    return found


def _company(lab: Lab, seconds: float, *options: str) -> list[str]:
    """Return the command of the company's phones and scanners."""
    return inside(
        lab.network.attacker, sys.executable, "-m", "tests.support.company",
        "--phones", str(PHONES), "--seconds", str(seconds), *options,
    )  # fmt: skip


def _period(company: "subprocess.Popen[str]", lab: Lab, guard: Sequence[int]) -> Busy:
    assert company.stdout is not None
    if company.stdout.readline() != "ready\n":
        raise RuntimeError("the phones did not register")
    before = _used(lab, guard)
    time.sleep(SECONDS)
    after = _used(lab, guard)
    done = json.loads(company.stdout.readline())
    return Busy(after[0] - before[0], after[1] - before[1], done)


def _used(lab: Lab, guard: Sequence[int]) -> tuple[float, float]:
    return sum(map(cpu_seconds, guard)), lab.asterisk.cpu_seconds()


@contextmanager
def _first_day() -> Iterator[tuple[Lab, Sequence[int]]]:
    """Start ringfence, to which all phones are new."""
    with bed(extra=configured(PHONES), firewall=defended("ipset")) as here:
        until_defended(here.guard)
        yield here.lab, (here.guard.pid,)


@contextmanager
def _later(base: Path | None = None) -> Iterator[tuple[Lab, Sequence[int]]]:
    """Start ringfence, register the phones, and start it again as if ``_DAYS`` had passed.

    ``base`` is the tree of the ringfence, by default this one.
    """
    environ = None if base is None else environ_of(base)
    with bed(extra=configured(PHONES), firewall=defended("ipset"), placed=False, environ=environ) as here:
        nothing_more = ("--calls", "0", "--packets", "0")
        subprocess.run(_company(here.lab, 1.0, *nothing_more), check=True, timeout=_WITHIN, stdout=DEVNULL)
        here.guard.stop()
        here.lab.asterisk.forget_phones()  # each account may have one contact
        with closing(sqlite3.connect(here.guard.folder / "ringfence.db")) as database, database:
            database.execute("UPDATE friends SET since = since - ?", (_DAYS * 86_400,))
            (known,) = database.execute("SELECT count(DISTINCT account) FROM friends").fetchone()
        if known < PHONES:
            raise RuntimeError(f"the database knows {known} phones of {PHONES}")
        here.guard.start()
        preferred(here.guard)
        until_defended(here.guard)
        with on_cores(here.lab.asterisk.pid, here.guard.pid):
            yield here.lab, (here.guard.pid,)


@contextmanager
def _peer(root: Path, log: str) -> Iterator[tuple[Lab, Sequence[int]]]:
    with peer_bed(root, log=log, extra=configured(PHONES)) as (lab, guard):
        yield lab, (guard.pid,)


@contextmanager
def _nobody() -> Iterator[tuple[Lab, Sequence[int]]]:
    with Lab.made("22", configured(PHONES)) as lab, on_cores(lab.asterisk.pid):
        yield lab, ()


def figures(root: Path | None, base: Path | None = None) -> Iterator[Figure]:
    """Measure, and yield the rows; ``root`` has fail2ban, and ``base`` is the tree of an earlier commit."""
    ways = {_NOBODY: _nobody, _FIRST_DAY: _first_day, _LATER: _later}
    if root is not None:
        ways |= {_MESSAGES: partial(_peer, root, "messages"), _SECURITY: partial(_peer, root, "ringfence")}
    if base is not None:
        ways[_BEFORE] = partial(_later, base)
    tried: dict[str, list[tuple[Busy, Busy]]] = {name: [] for name in ways}
    for turn in range(max(_MEASURED.values())):
        for name, way in ways.items():
            if turn < _MEASURED.get(name, 1):
                tried[name].append(busy(way()))
    for calls, at in (f"each of {TALK} s with G.711 both ways", 1), ("without media", 0):
        period = {name: _least([both[at] for both in runs]) for name, runs in tried.items()}
        for day in _FIRST_DAY, _LATER:
            yield from _costs(period, calls, day)
        if base is not None:
            yield _compared(period, calls)
    yield _memory()


def _least(runs: Sequence[Busy]) -> Busy:
    """Return the least times of several runs, and what the company did, with the most failures."""
    worst = max((run.done for run in runs), key=lambda done: done["unregistered"] + done["uncalled"])
    return Busy(min(run.guard for run in runs), min(run.asterisk for run in runs), worst)


def _costs(found: Mapping[str, Busy], calls: str, day: str) -> Iterator[Figure]:
    """Yield the rows of one period and day: the guard's CPU time and Asterisk's."""
    ours, bare, peer = found[day], found[_NOBODY], found.get(_SECURITY)
    done = ours.done
    failed = done["unregistered"] + done["uncalled"]
    media = (
        f", {done['spoken']} packets of RTP sent, {done['received']} packets back" if done["spoken"] else ""
    )
    what = (
        f"on a PBX with {PHONES} phones (each registers every minute; 10 calls a second, {calls}) and 20 "
        f"packets of scanners a second, {SECONDS:.0f} s, {day}"
    )
    share = None if peer is None else ours.guard / peer.guard
    times = "" if share is None else f"{share:.2f} times that of fail2ban with security lines, "
    yield Figure(
        what=f"CPU of ringfence with all sources {what}",
        measured=f"{times}{ours.guard:.2f} s; {done['called']} calls, {failed} failed{media}",
        must=f"≤ {MOST_OF_PEER[day]} times (it reads logins and packets too), and nothing fails",
        reached=not failed and (share is None or share <= MOST_OF_PEER[day]),
        cores=_CORES,
        compared="; ".join(f"{name}: {found[name].guard:.2f} s" for name in _PEERS if name in found),
    )
    more = 100 * (ours.asterisk - bare.asterisk) / SECONDS
    limit = limited(more, MOST_OF_ASTERISK)
    yield Figure(
        what=f"Asterisk's own CPU {what}: beside ringfence, more than without a guard, % of a core",
        measured=f"{more:.1f}: {ours.asterisk:.2f} s, not {bare.asterisk:.2f} s",
        must=limit.must,
        reached=limit.reached,
        cores=_CORES,
        compared="; ".join(f"{name}: {found[name].asterisk:.2f} s" for name in _PEERS if name in found),
    )


def _compared(found: Mapping[str, Busy], calls: str) -> Figure:
    """Return the row that compares ringfence with that of an earlier commit, both on a later day."""
    ours, before = found[_LATER].guard, found[_BEFORE].guard
    return Figure(
        what=f"CPU of ringfence on that PBX later (calls {calls}), times that of the commit compared with",
        measured=f"{ours / before:.2f} times: {ours:.2f} s of {before:.2f} s",
        must=f"≤ {MOST_OF_BASE} times",
        reached=ours <= MOST_OF_BASE * before,
        cores=_CORES,
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
