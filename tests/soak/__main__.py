"""Runs ringfence beside a busy Asterisk for an hour, and measures what grows: ``make soak``.

An office of 50 phones registers and calls. 200 attackers come and go: each guesses until it is banned, and
comes back when its ban has ended. Meanwhile a feed and the decisions of a CrowdSec change, the configuration
is loaded again, Asterisk's log is rotated, and Asterisk is started again.

Prints a line every minute, and the figures at the end. Returns 1 if one was not reached.
"""

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from attrs import define, field, frozen
from tests.bench.figures import Figure, table
from tests.bench.testbed import defended, until_defended
from tests.soak.office import PHONES
from tests.support.company import configured
from tests.support.crowdsec import CrowdSec, crowdsec
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded, preferred
from tests.support.lab import Lab, why_no_asterisk
from tests.support.netns import inside
from tests.support.network import inside as command_inside
from tests.support.process import cpu_seconds, resident
from tests.support.sip import Attack

ATTACKERS = 200
AT_ONCE = 4
"""The attackers that guess at the same time."""
GUESSES = 12
"""What an attacker tries; it gives up after three silences."""
BAN = 120.0
"""Seconds of a ban."""
THRESHOLD = 5
FEED = 1_000
"""The networks of the feed. Every minute half of them are others."""
EVERY = 60.0
"""Seconds between two changes: of the feed, the decisions, the configuration and the log."""
RESTART_EVERY = 600.0
"""Seconds between two starts of Asterisk."""
AWAY = 60.0
"""Seconds after a start of Asterisk in which a phone may fail."""
WARM = 600.0
"""Seconds until what grows is compared."""
SPAN = 300.0
"""Seconds of the two spans that are compared."""
SAMPLE = 10.0
SHORTEST = 20.0
"""Minutes."""
MOST_MEMORY, MOST_CPU, MOST_ROWS = 1.01, 1.15, 1.15
"""What the last span may have, of the first one."""
_DECIDED = int(IPv4Address("192.0.2.0"))


@frozen
class Sample:
    """What the daemon uses at a time (monotonic seconds): bytes, descriptors, threads, CPU seconds, rows."""

    at: float
    memory: int
    descriptors: int
    threads: int
    cpu: float
    rows: int

    @classmethod
    def of(cls, guard: Guard) -> Self:
        """Measure a daemon."""
        here = Path("/proc", str(guard.pid))
        return cls(
            time.monotonic(),
            resident(guard.pid),
            len([*(here / "fd").iterdir()]),
            len([*(here / "task").iterdir()]),
            cpu_seconds(guard.pid),
            _rows(guard.folder / "ringfence.db"),
        )


def _rows(path: Path) -> int:
    """Return the number of rows of all tables."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = (database.execute(f"SELECT count(*) FROM {name}").fetchone() for name in tables)  # noqa: S608
        return sum(number for (number,) in counts)


@define
class Soak:
    """The running parts, and what was seen so far.

    ``answers`` has the answered guesses of each visit of an attacker. ``starts`` are the begin and end of
    each restart of Asterisk (seconds since the epoch), in which an answer is no proof.
    """

    lab: Lab
    guard: Guard
    api: CrowdSec
    feed: Path
    samples: list[Sample] = field(factory=list)
    answers: list[int] = field(factory=list)
    starts: list[tuple[float, float]] = field(factory=list)
    _attacks: dict[str, tuple[Attack, float]] = field(factory=dict)
    _due: dict[str, float] = field(factory=dict)
    _changes: int = 0

    def run(self, seconds: float) -> None:
        """Let everything happen for so many seconds."""
        began = time.monotonic()
        regular: list[tuple[float, Callable[[], object]]] = [
            (SAMPLE, lambda: self.samples.append(Sample.of(self.guard))),
            (EVERY, self._change),
            (RESTART_EVERY, self._restart),
            (EVERY, self._print),
        ]
        due = [began + every for every, _ in regular]
        self._due = {f"198.19.{120 + number % 100}.{5 + number // 100}": began for number in range(ATTACKERS)}
        while time.monotonic() - began < seconds:
            self._attack()
            for number, (every, action) in enumerate(regular):
                if time.monotonic() >= due[number]:
                    due[number] += every
                    action()
            time.sleep(0.2)
        for attack, _ in self._attacks.values():
            attack.stop()

    def _attack(self) -> None:
        """Count the answers of attackers that have ended, and let others begin."""
        for address, (attack, since) in [*self._attacks.items()]:
            if not attack.at_work:
                del self._attacks[address]
                answered = attack.result().answered
                if not any(begin - AWAY < since < end + AWAY for begin, end in self.starts):
                    self.answers.append(answered)
        now = time.monotonic()
        free = (one for one, at in self._due.items() if at <= now and one not in self._attacks)
        while len(self._attacks) < AT_ONCE and (address := next(free, "")):
            self._due[address] = now + BAN + 10.0
            words = ("--number", str(GUESSES), "--sources", address, "--timeout", "1", "--silences", "3")
            number = address.replace(".", "")
            transport = ("UDP", "TCP")[int(number) % 2]
            attack = self.lab.start_attack("guess", *words, "--transport", transport, "--account", number)
            self._attacks[address] = attack, time.time()

    def _change(self) -> None:
        """Change the feed, the decisions, the configuration and the log."""
        self._changes += 1
        start = int(IPv4Address("32.0.0.0")) + self._changes * FEED
        self.feed.write_text("".join(f"{IPv4Address(start + 2 * n)}\n" for n in range(FEED)), "ascii")
        now, before = (str(IPv4Address(_DECIDED + (self._changes - n) % 200)) for n in (0, 1))
        with inside(self.lab.network.pbx):
            self.api.ban(now)
            self.api.delete(before)
        self.guard.configure(claimed={"per_minute": 10 + self._changes % 2})
        self.guard.reload()
        with suppress(subprocess.TimeoutExpired):
            self.lab.asterisk.cli("logger rotate")

    def _restart(self) -> None:
        begin = time.time()
        self.lab.asterisk.stop()
        self.lab.asterisk.start()
        self.starts.append((begin, time.time()))

    def _print(self) -> None:
        one = self.samples[-1]
        minutes = (one.at - self.samples[0].at) / 60
        print(
            f"{minutes:5.1f} min  {one.memory / 1e6:6.1f} MB  {one.descriptors} descriptors  {one.threads} "
            f"threads  {one.rows} rows  {one.cpu:.1f} s of CPU  {len(self.answers)} attacks",
            flush=True,
        )

    def figures(self, failures: list[float]) -> Iterator[Figure]:
        """Compare the first span with the last one. ``failures`` are the times of the phones' failures."""
        began, end = self.samples[0].at, self.samples[-1].at
        early = [one for one in self.samples if WARM <= one.at - began < WARM + SPAN]
        late = [one for one in self.samples if end - one.at < SPAN]
        what = f"a soak of {(end - began) / 60:.0f} minutes"
        memory = [statistics.median(one.memory for one in span) for span in (early, late)]
        yield _grows(f"{what}: memory at the end, MB", [one / 1e6 for one in memory], MOST_MEMORY)
        for name in "descriptors", "threads":
            usual = [round(statistics.median(getattr(one, name) for one in span)) for span in (early, late)]
            more = usual[1] - usual[0]
            yield Figure(f"{what}: {name} more at the end", f"{more} ({usual[1]})", "0", more <= 0)
        cpu, rows = (
            [getattr(span[-1], name) - getattr(span[0], name) for span in (early, late)]
            for name in ("cpu", "rows")
        )
        yield _grows(f"{what}: CPU of the daemon in {SPAN:.0f} s at the end, s", cpu, MOST_CPU)
        yield _grows(f"{what}: new rows in {SPAN:.0f} s at the end", rows, MOST_ROWS)
        beyond = sum(answered > THRESHOLD for answered in self.answers)
        yield Figure(
            f"{what}: attacks with more than {THRESHOLD} answers, of {len(self.answers)}",
            str(beyond), "0", beyond == 0 and bool(self.answers),
        )  # fmt: skip
        cut = [at for at in failures if not any(begin - AWAY < at < end + AWAY for begin, end in self.starts)]
        yield Figure(f"{what}: requests of {PHONES} phones that failed", str(len(cut)), "0", not cut)


def _grows(what: str, spans: list[float], most: float) -> Figure:
    """Return the row of something that may grow by so much from the first span to the last one."""
    share = spans[1] / spans[0]
    return Figure(
        what, f"{spans[1]:.1f}, {share:.3f} times the {spans[0]:.1f} after ten minutes", f"≤ {most} times",
        share <= most,
    )  # fmt: skip


def _started(stack: ExitStack) -> Soak:
    """Start everything, until ``stack`` ends it."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "guard").mkdir()
    feed = folder / "feed.txt"
    feed.write_text("32.0.0.1\n", "ascii")
    os.utime(feed, (1, 1))
    lab = stack.enter_context(Lab.made("22", configured(PHONES)))
    with inside(lab.network.pbx):
        api = stack.enter_context(crowdsec(folder / "crowdsec"))
        host = api.node("pbx", folder / "guard", interval="10s")
    tables = {
        "firewall": defended("nftables"),
        "rules": {"guess": {"attempts": THRESHOLD, "ban": f"{BAN:.0f}s"}, "distributed": {"enabled": False}},
        "feeds": [{"name": "office", "file": str(feed)}],
        "crowdsec": host,
    }
    guard = stack.enter_context(guarded(lab, folder / "guard", **tables))
    preferred(guard)
    until_defended(guard)
    until(lambda: guard.ask("fleet")["pull"]["last"], "the first pull")
    return Soak(lab, guard, api, feed)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="make soak", description="Run ringfence for a long time.")
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = max(SHORTEST, parser.parse_args().minutes)
    if reason := why_no_asterisk("22"):
        print(f"A soak needs a real Asterisk: {reason}", file=sys.stderr)
        return 1
    seconds = 60 * minutes
    with ExitStack() as stack:
        soak = _started(stack)
        office = command_inside(
            soak.lab.network.attacker, sys.executable, "-m", "tests.soak.office", "--seconds", str(seconds)
        )
        with subprocess.Popen(office, stdout=subprocess.PIPE, text=True) as phones:
            try:
                soak.run(seconds)
                output, _ = phones.communicate(timeout=60)
            finally:
                phones.kill()
        *failed, accepted = output.split("\n")[:-1]
        figures = [*soak.figures([float(line.split()[0]) for line in failed])]
    print(f"{table(figures)}\n{accepted} requests of phones were accepted")
    return int(not all(one.reached for one in figures))


if __name__ == "__main__":
    sys.exit(main())
