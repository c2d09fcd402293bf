"""Runs ringfence beside a busy Asterisk for an hour, and measures what grows: ``make soak``.

An office of 50 phones registers and calls. 200 attackers come and go: each guesses until it is banned, and
comes back when its ban has ended. Every minute CrowdSec adds and removes a decision, half of a feed's
networks change, the configuration is reloaded, and Asterisk's log is rotated. Every ten minutes Asterisk is
restarted. Before all this, strangers open and close as many TCP connections as ringfence remembers: so these
tables are full from the start, and whatever grows later is something else.

Prints a line every minute, and the figures at the end. The exit status is 1 if a goal was missed.
"""

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from attrs import define, field, frozen
from tests.bench.figures import Figure, table
from tests.bench.testbed import defended, until_defended
from tests.soak.office import PHONES
from tests.support.company import RENEW, configured
from tests.support.crowdsec import CrowdSec, crowdsec, why_no_crowdsec
from tests.support.daemon import Guard, until
from tests.support.fleet import denied
from tests.support.guarded import guarded, preferred
from tests.support.lab import Lab, why_no_asterisk
from tests.support.netns import inside
from tests.support.network import PBX_IPV4
from tests.support.network import inside as command_inside
from tests.support.process import cpu_seconds, resident
from tests.support.sip import Attack
from tests.support.sip_raw import PORTS
from tests.support.sip_streams import open_wire

ATTACKERS = 200
AT_ONCE = 4
"""The attackers that guess at the same time."""
GUESSES = 12
"""Passwords that an attacker tries in one visit. It stops after three requests without an answer."""
BAN = 120.0
"""Seconds of a ban."""
THRESHOLD = 5
FEED = 1_000
"""The networks of the feed."""
SAMPLE_EVERY, CHANGE_EVERY, RESTART_EVERY = 10.0, 60.0, 600.0
"""Seconds between two measurements of the daemon, two changes, and two restarts of Asterisk."""
BEFORE, AFTER = 20.0, 60.0
"""Seconds before and after a restart of Asterisk in which nothing counts that begins then.

A phone waits 20 s at most for an answer, and needs a minute to register again.
"""
SPAN = 300.0
"""Seconds of each span that is compared: those before a restart, or before the end."""
SHORTEST, LONGEST = 30.0, 720.0
"""The limits of a run in minutes: there must be two spans."""
MOST_MEMORY, MOST_CPU, MOST_ROWS = 1.01, 1.15, 1.15
"""The largest permitted ratio of the last span to the first one."""
LEAST_VISITS = 5.0
"""Visits of attackers in a minute."""
LONG = {name: {"enabled": False} for name in ("distributed", "prefix", "slow")}
"""Rules that are off: they remember each attempt for an hour or a day, so memory would grow for as long."""
KNOCKS = 5_000
"""Connections that strangers open and close in the beginning: more than MOST_STREAMS."""
_KNOCKING = int(IPv4Address("198.19.220.0"))
_DECIDED = int(IPv4Address("192.0.2.0"))
_FEED = int(IPv4Address("32.0.0.0"))


@frozen
class Sample:
    """What the daemon uses at a time (epoch seconds): bytes, descriptors, threads, CPU seconds.

    ``rows`` has the number of rows of each table of its database.
    """

    at: float
    memory: int
    descriptors: int
    threads: int
    cpu: float
    rows: Counter[str]

    @classmethod
    def of(cls, guard: Guard) -> Self:
        """Measure a daemon."""
        here = Path("/proc", str(guard.pid))
        return cls(
            time.time(),
            resident(guard.pid),
            len([*(here / "fd").iterdir()]),
            len([*(here / "task").iterdir()]),
            cpu_seconds(guard.pid),
            _rows(guard.folder / "ringfence.db"),
        )


def _rows(path: Path) -> Counter[str]:
    """Return the number of rows of each table."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = (database.execute(f"SELECT count(*) FROM {name}").fetchone() for name in tables)  # noqa: S608
        return Counter({name: number for name, (number,) in zip(tables, counts, strict=True)})


@define
class Soak:
    """The running parts, and what was seen so far.

    ``answers`` has the answered guesses of each visit of an attacker. ``restarts`` are the begin and end of
    each restart of Asterisk (epoch seconds). ``wrong`` are the changes that had no effect.
    """

    lab: Lab
    guard: Guard
    api: CrowdSec
    feed: Path
    samples: list[Sample] = field(factory=list)
    answers: list[int] = field(factory=list)
    restarts: list[tuple[float, float]] = field(factory=list)
    wrong: list[str] = field(factory=list)
    _attacks: dict[str, tuple[Attack, float]] = field(factory=dict)
    _due: dict[str, float] = field(factory=dict)
    _changes: int = 0

    def run(self, seconds: float, phones: "subprocess.Popen[bytes]") -> None:
        """Attack, change and measure for so many seconds, while the process ``phones`` runs."""
        began = time.monotonic()
        regular = (SAMPLE_EVERY, self._sample), (CHANGE_EVERY, self._change), (RESTART_EVERY, self._restart)
        due = [began + every for every, _ in regular]
        self._due = {f"198.19.{120 + number % 100}.{5 + number // 100}": began for number in range(ATTACKERS)}
        try:
            while time.monotonic() - began < seconds:
                if phones.poll() is not None:
                    raise RuntimeError(f"the phones ended with {phones.returncode}")
                self._attack()
                for number, (every, action) in enumerate(regular):
                    if time.monotonic() >= due[number]:
                        due[number] += every
                        action()
                time.sleep(0.2)
        finally:
            for attack, _ in self._attacks.values():
                attack.stop()

    def counts(self, at: float) -> bool:
        """Whether what began at a time (epoch seconds) counts: no restart of Asterisk was near."""
        return not any(begin - BEFORE < at < end + AFTER for begin, end in self.restarts)

    def _attack(self) -> None:
        """Count the answers of attackers that have ended, and let others begin, the longest overdue first."""
        for address, (attack, since) in [*self._attacks.items()]:
            if not attack.at_work:
                del self._attacks[address]
                answered = attack.result().answered
                if self.counts(since):
                    self.answers.append(answered)
        now = time.monotonic()
        free = sorted((at, one) for one, at in self._due.items() if at <= now and one not in self._attacks)
        for _, address in free[: AT_ONCE - len(self._attacks)]:
            self._due[address] = now + BAN + 10.0
            words = ("--number", str(GUESSES), "--sources", address, "--timeout", "1", "--silences", "3")
            account, last = address.replace(".", ""), int(address.split(".")[2])
            attack = self.lab.start_attack(
                "guess", *words, "--transport", ("UDP", "TCP")[last % 2], "--account", account
            )
            self._attacks[address] = attack, time.time()

    def _change(self) -> None:
        """Check the last change; change the feed, the decisions, the configuration and the log again."""
        with inside(self.lab.network.pbx):
            if self._changes:
                self._check()
            self._changes += 1
            _write_feed(self.feed, self._changes)
            self.api.ban(_decided(self._changes))
            if self._changes > 1:
                self.api.delete(_decided(self._changes - 1))
        self.guard.configure(claimed={"per_minute": 10 + self._changes % 2})
        self.guard.reload()
        self.lab.asterisk.cli("logger rotate", 30.0)
        one, minutes = self.samples[-1], (self.samples[-1].at - self.samples[0].at) / 60
        rows = ", ".join(f"{number} {name}" for name, number in one.rows.most_common(3))
        print(
            f"{minutes:5.1f} min  {one.memory / 1e6:6.1f} MB  {one.descriptors} descriptors  {one.threads} "
            f"threads  {one.cpu:.1f} s of CPU  {len(self.answers)} attacks  rows: {rows}",
            flush=True,
        )

    def _check(self) -> None:
        """Record what the last change should have done and has not."""
        newest = f"{IPv4Address(_FEED + self._changes * FEED + 2 * (FEED - 1))}/32"
        if not self.guard.ask("feeds", networks=[newest])[0]["denies"]:
            self.wrong.append(f"feed {self._changes}")
        listed = denied()
        for number in range(max(1, self._changes - 1), self._changes + 1):
            if (f"{_decided(number)} " in listed) != (number == self._changes):
                self.wrong.append(f"decision {number}")
        if self.guard.log.count("event=configuration.loaded") != self._changes:
            self.wrong.append(f"configuration {self._changes}")

    def _sample(self) -> None:
        self.samples.append(Sample.of(self.guard))

    def _restart(self) -> None:
        begin = time.time()
        self.lab.asterisk.stop()
        self.lab.asterisk.start()
        self.restarts.append((begin, time.time()))

    def figures(self, failures: Sequence[float], accepted: int) -> Iterator[Figure]:
        """Compare the first span with the last one.

        ``failures`` are the times at which requests of phones began that failed, ``accepted`` is the number
        of the others.
        """
        end = self.samples[-1].at
        minutes = (end - self.samples[0].at) / 60
        what = f"a soak of {minutes:.0f} minutes"
        ends = [begin for begin, _ in self.restarts[1:]]
        if end - self.restarts[-1][1] > SPAN + AFTER:
            ends.append(end)
        spans = [[one for one in self.samples if at - SPAN <= one.at < at] for at in (ends[0], ends[-1])]
        memory = [statistics.median(one.memory / 1e6 for one in span) for span in spans]
        yield _grows(f"{what}: memory at the end, MB", memory, MOST_MEMORY)
        for name in "descriptors", "threads":
            usual = [round(statistics.median(getattr(one, name) for one in span)) for span in spans]
            more = usual[1] - usual[0]
            yield Figure(f"{what}: {name} more at the end", f"{more} ({usual[1]})", "0", more <= 0)
        cpu = [100 * _rate(span, [one.cpu for one in span]) for span in spans]
        rows = [60 * _rate(span, [one.rows.total() for one in span]) for span in spans]
        yield _grows(f"{what}: CPU at the end, % of a core", cpu, MOST_CPU)
        yield _grows(f"{what}: new rows a minute at the end", rows, MOST_ROWS)
        beyond, median = sum(one > THRESHOLD for one in self.answers), statistics.median(self.answers or [0])
        enough = len(self.answers) >= LEAST_VISITS * minutes and median >= 1
        yield Figure(
            f"{what}: visits of {ATTACKERS} attackers with more than {THRESHOLD} answers",
            f"{beyond} of {len(self.answers)}; median {median:.0f}", "0", beyond == 0 and enough,
        )  # fmt: skip
        cut, sent = sum(map(self.counts, failures)), minutes * (PHONES * 60 / RENEW + 60)
        yield Figure(
            f"{what}: requests of {PHONES} phones that failed",
            f"{cut} of {accepted + cut}", "0", cut == 0 and accepted >= 0.8 * sent,
        )  # fmt: skip
        yield Figure(
            f"{what}: changes of a feed, decisions and configuration without effect",
            f"{len(self.wrong)} of {self._changes}" + "".join(f", {one}" for one in self.wrong[:5]), "0",
            not self.wrong and self._changes > 0,
        )  # fmt: skip


def _rate(span: Sequence[Sample], numbers: Sequence[float]) -> float:
    """Return by how much ``numbers``, one of each sample, grow in a second."""
    return (numbers[-1] - numbers[0]) / (span[-1].at - span[0].at)


def _grows(what: str, spans: Sequence[float], most: float) -> Figure:
    """Return the row of something that may grow by so much from the first span to the last one."""
    first, last = spans
    share = f", {last / first:.3f} times the {first:.1f} of the first span" if first > 0 else ""
    return Figure(what, f"{last:.1f}{share}", f"≤ {most} times", last <= max(first, 0.0) * most)


def _decided(number: int) -> str:
    """Return the address of a decision."""
    return str(IPv4Address(_DECIDED + 2 * (number % 100) + 1))


def _write_feed(path: Path, number: int) -> None:
    """Write the feed as it is after so many changes."""
    start = _FEED + number * FEED
    path.write_text("".join(f"{IPv4Address(start + 2 * at)}\n" for at in range(FEED)), "ascii")


def _started(stack: ExitStack) -> Soak:
    """Start everything, until ``stack`` ends it."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "guard").mkdir()
    feed = folder / "feed.txt"
    _write_feed(feed, 0)
    os.utime(feed, (1, 1))  # at rest: the daemon need not wait
    lab = stack.enter_context(Lab.made("22", configured(PHONES)))
    with inside(lab.network.pbx):
        api = stack.enter_context(crowdsec(folder / "crowdsec"))
        host = api.node("pbx", folder / "guard", interval="10s")
    tables = {
        "firewall": defended("nftables"),
        "rules": {"guess": {"attempts": THRESHOLD, "ban": f"{BAN:.0f}s"}} | LONG,
        "feeds": [{"name": "office", "file": str(feed)}],
        "crowdsec": host,
    }
    guard = stack.enter_context(guarded(lab, folder / "guard", **tables))
    preferred(guard)
    until_defended(guard)
    until(lambda: guard.ask("fleet")["pull"]["last"], "the first pull")
    with inside(lab.network.attacker):
        for number in range(KNOCKS):
            open_wire("TCP", (PBX_IPV4, PORTS["TCP"]), str(IPv4Address(_KNOCKING + number))).close()
    return Soak(lab, guard, api, feed)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="make soak", description="Run ringfence for a long time.")
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    if not SHORTEST <= minutes <= LONGEST:
        parser.error(f"a soak has {SHORTEST:.0f} to {LONGEST:.0f} minutes")
    if reason := why_no_asterisk("22") or why_no_crowdsec():
        print(f"A soak needs a real Asterisk and a CrowdSec: {reason}", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        soak = _started(stack)
        words = "-m", "tests.soak.office", "--seconds", str(60 * minutes)
        office = command_inside(soak.lab.network.attacker, sys.executable, *words)
        output = stack.enter_context(tempfile.TemporaryFile("w+"))
        phones = subprocess.Popen(office, stdout=output)
        try:
            soak.run(60 * minutes - 1.0, phones)
            phones.wait(60)
        finally:
            phones.kill()
            phones.wait()
        output.seek(0)
        *failed, accepted = output.read().split("\n")[:-1]
        figures = [*soak.figures([float(line.split()[0]) for line in failed], int(accepted))]
    print(table(figures))
    return int(not all(one.reached for one in figures))


if __name__ == "__main__":
    sys.exit(main())
