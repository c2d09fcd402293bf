"""Plays a story to the daemon, while the judge watches.

After each step the judge checks what must hold at every moment, and after a *quiet* everything else. In a
quiet nothing fails, and no sender does anything.

Besides the judge's invariants there are some more:

- K: a ban that the kernel acknowledged is in the kernel until its end, whatever failed.
- T: each ban ends in the kernel when the ledger says so.
- U: an unban lasts, if the answer says that the database has it, or if it has it when the process is killed.
- R: a ban of the administrator has its length, if the answer says that the database has it.
- S: the alarms about the host's state clear when all works again.
- D: no task of the daemon ends by an error, and the daemon does not end by itself.
- L: after a quiet, each source listens and reports, and a stranger that guesses is banned in full. The judge
  forgives attempts that nobody could report. So a source that stays deaf shows only here.
- N: an address that a command or the configuration put on a list is on it, and one that was removed is not.

The features of a story have invariants of their own, and letters for them (``features/``).
"""

import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from math import inf
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.judge.asterisk import PBX, SECOND, Act, Exchange, Report, security_line
from tests.judge.oracle import GUESSES, Bans, View, Violation, drops
from tests.judge.others import exchange
from tests.judge.packets import syns
from tests.judge.worlds import ATTACKERS, PLAIN, START
from tests.simulate.feature import ENDING, SLACK
from tests.simulate.judge import ForgivingJudge
from tests.simulate.loop import Channel, Killed
from tests.simulate.process import Host, Process
from tests.simulate.step import Step
from tests.simulate.story import FEATURES

from ringfence.errors import RingfenceError
from ringfence.firewall import network_lists
from ringfence.ledger import CLOCK_STEP
from ringfence.values.ban import Ban, Scope
from ringfence.values.network import Network, format_network

QUIET = 75.0
"""Seconds of a quiet: longer than every retry, and the comparison of each minute (``bans/reconcile.py``)."""
DIES_WITHIN = 2.0
"""Seconds in which a process that is to be killed is killed, even if it has nothing to do."""
STOPS_WITHIN = 20.0
"""Seconds after SIGTERM until systemd kills a process."""
ANSWERED_WITHIN = 3.0
"""Seconds in which the daemon has carried out a request: it waits at most two seconds for the disk."""
ALIKE_WITHIN = 4.0
"""Seconds in which two bans of one network may seem the same by their ends (``bans/restore.py``)."""
MATCHED_WITHIN = 10.0
"""Seconds in which a report may match an attempt that another source reported (``detect/sessions.py``)."""
LISTED_WITHIN = 5.0
"""Seconds after its login at AMI in which the daemon has read all contacts."""
RESTARTS_AFTER = 1.0
"""Seconds between two starts, as systemd makes them."""
LISTED = ("203.0.113.211", "203.0.113.212")
"""Addresses that only commands add to a list."""
CONFIGURED = "203.0.113.213"
"""An address that only the configuration denies."""
NOBODY = "206"
"""The account at which strangers guess after a quiet, which does not exist. Of one that exists and that many
try, a first failure is a narrow ban."""
STRANGERS = {PBX: "198.19.1.7", SECOND: "198.19.2.7"}
"""By Asterisk, the stranger who guesses when all works again. No story has these addresses."""
MOST_STARTS = 100
"""The most tries to start: after these no fault lasts any more."""
BANNED_FOR = 86_400.0
"""The seconds of the administrator's bans, which no set clock brings to their end."""

_STATES = ("store.", "firewall.", "source.", "task.", "host.", "fleet.", "configuration.")
_DEFECTS = ("source.defect", "task.failed", "writer.defect", "feature.failed")


@dataclass(frozen=True)
class Failure:
    """A story in which invariants do not hold, and the first of them."""

    seed: int
    steps: tuple[Step, ...]
    violations: tuple[Violation, ...]

    @property
    def invariant(self) -> str:
        """The letter of the first invariant that does not hold."""
        return self.violations[0].invariant

    def __str__(self) -> str:
        head = f"seed {self.seed}, {len(self.steps)} steps:"
        return "\n".join([head, *map(str, self.steps), *(f"=> {one}" for one in self.violations)])


class Simulation:
    """One story, played to the daemon of a host in ``folder``."""

    def __init__(self, seed: int, folder: Path, logged: list[EventDict], kinds: Container[str]) -> None:
        self.host = Host(seed, folder, PLAIN.trunks, START)
        self._logged = logged
        self._number = 0
        self.judge = ForgivingJudge()
        self._process: Process | None = None
        self._lossy = 0  # so many packets are lost next
        schedule = self.host.schedule
        self._missed: dict[str, float] = {}  # by source, when AMI last missed an attempt (true time)
        self._wire = Channel[Report | None](schedule, self._copy)  # None: reading fails
        self._lines = {name: Channel[bytes](schedule, log.write) for name, log in self.host.logs.items()}
        self._writes_security = False  # whether the logs have the level "security"
        self._kernel_fails = False
        self._acts = 0
        self._asked = Counter[str]()
        self._promised: dict[str, float] = {}  # the end of a ban (monotonic), by address
        self._unbanned = set[str]()
        self._unbanning: dict[str, float] = {}  # when an unban was asked (epoch), by address
        self._unbans_all = False
        self._unban_asked: dict[str, float] = {}  # when an unban was asked last (monotonic), by address
        self.drift = 0.0  # by how much small steps of the clock moved the recorded ends of bans
        self._was_set = False
        self._last_error = RingfenceError()
        self._listed: dict[tuple[str, str], object] = {}  # by list and address, whether it is there, if known
        self._loads: object = None  # the latest reload
        self._unexpected: list[str] = []  # answers to reloads
        self.ends_unknown = False  # whether a process may have missed a step of the clock
        self.undone = False  # whether a process ended before all was recorded
        self.host.features = [feature(self) for feature in FEATURES if feature.kind in kinds]

    # -- the process

    def begin(self) -> None:
        """Start the daemon, again and again until it starts."""
        schedule = self.host.schedule
        for _ in range(MOST_STARTS):
            try:
                self._process = Process(self.host, self._number, PLAIN.claims)
            except RingfenceError as error:
                self._last_error = error
                schedule.run_until(schedule.mono + RESTARTS_AFTER)
            else:
                return
        raise self._last_error

    def _restart(self, down: float, *, loses_power: bool = False) -> None:
        """Kill the process now, and start it again after some seconds. See ``Process.kill``."""
        if self._process is not None:
            self._number += 1
            works = self._process.store.best_effort.takes_writes and not self.host.disk.error
            self.undone = self.undone or loses_power or not works
            known = len(self._logged)
            self._process.kill(self._number, loses_power=loses_power)
            del self._logged[known:]  # what the dead process logs
            self._process = None
            self._unbanned |= set[str]() if loses_power else self._recorded_unbans()
            self._unbans_all = False
            self.host.kernel.asked.clear()
        schedule = self.host.schedule
        for feature in self.host.features:
            feature.on_restart()
        self.judge.lose()
        self.judge.on_cut(self.time)
        schedule.run_until(schedule.mono + down)
        self.begin()

    def _recorded_unbans(self) -> set[str]:
        """Return the addresses whose unban the database of the next process has, without a later ban."""
        path = self.host.folder / f"database-{self._number}" / "ringfence.db"
        ends = "SELECT network, max(coalesce(ended, 1e12)), max(ended) FROM bans GROUP BY network"
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute(ends).fetchall()
        return {
            address
            for network, last, ended in rows
            if last == ended >= self._unbanning.get(address := str(network).removesuffix("/32"), inf)
        }

    def wait(self, seconds: float) -> None:
        """Let some time pass."""
        until = self.host.schedule.mono + seconds
        if self._process is not None:
            self._process.run_until(until)

    @property
    def process(self) -> Process:
        """The daemon's process."""
        if self._process is None:
            raise RuntimeError("no process runs")
        return self._process

    # -- the steps

    def step(self, step: Step) -> list[Violation]:
        """Let one step happen; return what does not hold before it."""
        self.wait(step.wait)
        self._read_contacts()
        found = self._defects()
        if step.wait >= 1.0:
            seen = self.judge.check(self.view(whole=False), self.time, quiet=False)
            # A kernel that refuses may keep a ban of a phone, or lack one. It never makes one.
            found += [one for one in seen if one.invariant == "F" or not self._kernel_fails]
        if not found:
            for feature in self.host.features:
                feature.on_step(step)
            if step.act is not None:
                self._act(step.act)
            else:
                self._method_of(step.kind)(step)
        return found

    def _method_of(self, kind: str) -> Callable[[Step], None]:
        """Return what a step of this kind does: nothing if the story lacks its feature (:func:`shrunk`)."""
        for feature in self.host.features:
            if (found := feature.method_of(kind)) is not None:
                return found
        if any(kind in one.steps for one in FEATURES):
            return lambda _: None
        method: Callable[[Step], None] = getattr(self, f"_{kind.replace(' ', '_')}")
        return method

    def _read_contacts(self) -> None:
        """Tell the judge which phones the daemon knows from the lists of contacts, if it has read all."""
        mono, managers = self.host.schedule.mono, [*self.host.managers.values()]
        if all(one.has_reader and mono - one.read_since > LISTED_WITHIN for one in managers):
            self.judge.on_listed(frozenset[str]().union(*(one.addresses for one in managers)), self.time)

    @property
    def time(self) -> float:
        """The true time, which no set clock changes (seconds since the epoch)."""
        return START + self.host.schedule.mono

    def _act(self, act: Act) -> None:
        self._acts += 1
        host = self.host
        one = exchange(act, host.schedule.wall, self._acts)
        if self._is_dropped(one):
            return
        self._tell_judge(one)
        copied = self._is_copied(one.source)
        if act.transport != "UDP":
            self._connect(one, copied=copied)
        ami, wire, log = one.reports(copied=copied)
        if self._writes_security:
            lines = [security_line(report.data, one.time) for report in ami if report.source == "ami"]
            log = [*(Report("log", line, act.asterisk) for line in lines), *log]
        for report in wire:
            self._wire.send(report)
        for report in ami:
            self._report(report)
        if act.kind == "logs in":
            host.managers[act.asterisk].register("PJSIP", act.account, one.source)
        for report in log:
            self._lines[report.asterisk].send(report.data, act.late + host.schedule.chosen.random() * 0.05)
        if not host.managers[act.asterisk].has_reader:
            self._missed[one.source] = self.time
        missed = self.time - self._missed.get(one.source, -inf) < MATCHED_WITHIN
        off = self.process.store.records.switched_off  # the kernel may have refused to remove the rules
        if not self._is_seen or off or (missed and not copied):
            # AMI's report of this attempt, which the wire misses, may match an earlier one that AMI missed.
            self.judge.lose()

    def _is_dropped(self, one: Exchange) -> bool:
        """Whether the kernel drops the sender's packets."""
        transport = "UDP" if one.act.transport == "UDP" else "TCP"
        by_feature = any(feature.drops(one.source) for feature in self.host.features)
        return by_feature or drops(self.view(whole=False).kernel, one.source, transport)

    def _tell_judge(self, one: Exchange) -> None:
        """Tell the judge what is truly sent, and whether AMI reports it."""
        for request in one.truth():
            self.judge.sent(replace(request, time=self.time))
            if request.credentials == "right" and not self.host.managers[one.act.asterisk].has_reader:
                self.judge.on_unreported_login(one.source)

    def _connect(self, one: Exchange, *, copied: bool) -> None:
        """Open a TCP connection; the kernel copies its SYN if it ``copied`` the sender's requests."""
        self.host.connections.remotes[ip_address(one.source), one.port] = None
        asks, accepts = syns(one.source, one.port, one.act.here)
        for report in (Report("request", asks), Report("wire", accepts)) if copied else ():
            self._wire.send(report)

    def _report(self, report: Report) -> None:
        """Let AMI report an event, or a contact of chan_sip."""
        manager, data = self.host.managers[report.asterisk], report.data
        if report.source == "contact":
            account, address = data.decode().split()
            manager.arrive("SIP", account, address)
        else:
            manager.report(data, self.host.schedule.chosen.random() * 0.05)

    @property
    def _is_seen(self) -> bool:
        """Whether the daemon reads the packets, and its rules copy them."""
        return self.host.packets.is_bound and self.host.kernel.has_rules and not self._lossy

    def _is_copied(self, source: str) -> bool:
        """Whether the kernel copies the requests of an address: a stranger, or an observed friend."""
        kernel = self.host.kernel
        return not kernel.has(network_lists.FRIENDS, source) or kernel.has(network_lists.OBSERVED, source)

    def _copy(self, report: Report | None) -> None:
        if report is None:
            self.host.packets.fail()
        elif self._lossy:
            self._lossy -= 1
            self.host.packets.lose()
        elif self.host.kernel.has_rules:
            self.host.packets.copy(report)

    def _kill(self, step: Step) -> None:
        self._die(step)
        if step.set and self.host.disk.error:  # the next process cannot record that
            self._promised.clear()
            self.ends_unknown = True
        self._set(step.set)
        self._restart(step.seconds)

    def _set(self, seconds: float) -> None:
        """Set the clock. A small step shortens or lengthens recorded bans: it is no step to the daemon."""
        self.host.schedule.ahead += seconds
        self._was_set = self._was_set or abs(seconds) > CLOCK_STEP
        if abs(seconds) <= CLOCK_STEP:
            self.drift += abs(seconds)
        else:
            self._unbanning.clear()

    def _die(self, step: Step) -> None:
        for feature in self.host.features:
            feature.before_kill()
        loop = self.process.loop
        loop.dies_after = step.number
        with suppress(Killed):
            self.wait(DIES_WITHIN)

    def _reboot(self, step: Step) -> None:
        self._die(step)
        self.host.kernel.forget()
        self.host.boots += 1
        if self._was_set:  # perhaps no process has recorded that
            self._promised.clear()
            self.ends_unknown = True
        self._restart(step.seconds)

    def _power_loss(self, step: Step) -> None:
        """Cut the host's power. The last writes may be lost, but the database must stay usable."""
        self._die(step)
        self.judge.may_repeat(self.time)
        self.host.kernel.forget()
        self.host.boots += 1
        self._promised.clear()
        self._unbanned.clear()
        self._listed.clear()
        self.ends_unknown = True
        self._restart(step.seconds, loses_power=True)

    def _stop(self, step: Step) -> None:
        process = self.process
        process.loop.signal(15)
        with suppress(Killed):
            process.run_until(self.host.schedule.mono + STOPS_WITHIN)
        if process.is_over:
            process.finish()
        self._restart(step.seconds)

    def _cut(self, step: Step) -> None:
        manager = self.host.managers[step.asterisk]
        manager.cut()
        manager.is_up = False
        self.host.schedule.after(step.seconds, lambda: setattr(manager, "is_up", True))
        self.judge.lose()
        self.judge.on_cut(self.time)

    def _hold(self, step: Step) -> None:
        self.host.managers[step.asterisk].hold(step.seconds)

    def _disk(self, step: Step) -> None:
        disk = self.host.disk
        disk.error = step.number
        self.host.schedule.after(step.seconds, lambda: setattr(disk, "error", 0))

    def _clock(self, step: Step) -> None:
        self.judge.may_repeat(self.time)
        self._set(step.set)

    def _lose(self, step: Step) -> None:
        self._lossy += step.number
        self.judge.lose()

    def _overflow(self, _: Step) -> None:
        self.host.packets.overflow()
        self.judge.lose()

    def _break(self, _: Step) -> None:
        self._wire.send(None)
        self.judge.lose()

    def _refuse(self, step: Step) -> None:
        self.host.kernel.refusals += step.number
        self._kernel_fails = True

    def _lost_answers(self, step: Step) -> None:
        self.host.kernel.lost += step.number
        self._kernel_fails = True

    def _unreadable(self, step: Step) -> None:
        self.host.kernel.unreadable += step.number
        self._kernel_fails = True

    def _damage(self, _: Step) -> None:
        self.judge.lose()  # the packets on their way
        self.host.kernel.damage()
        self._kernel_fails = True

    def _erase(self, _: Step) -> None:
        self.host.kernel.erase()

    def _rotate(self, step: Step) -> None:
        self.host.logs[step.asterisk].rotate()

    def _log_security(self, _: Step) -> None:
        self._writes_security = True

    def _unban_a_sender(self, step: Step) -> None:
        self.judge.lose()
        address = ATTACKERS[step.number - 1]
        self.process.ask("unban", lambda _: self.judge.lose(), networks=[address])

    def _allow(self, step: Step) -> None:
        self._list("allow", LISTED[step.number - 1])

    def _deny(self, step: Step) -> None:
        self._list("deny", LISTED[step.number - 1])

    def _list(self, kind: str, address: str) -> None:
        """Add an address to a list, or remove it if it is there. Only the latest request counts."""
        removes = self._listed.get((kind, address)) is True
        self._listed[kind, address] = asked = object()
        fields: dict[str, object] = {} if removes else {"note": "", "seconds": None, "force": False}

        def then(answer: Any) -> None:  # noqa: ANN401 - JSON
            if isinstance(answer, dict) and self._listed.get((kind, address)) is asked:
                self._listed[kind, address] = not removes and address in answer["done"]

        self.process.ask(f"{kind}_{'remove' if removes else 'add'}", then, what=[address], **fields)

    def _reload(self, _: Step) -> None:
        """Load a configuration that denies a network, or no longer."""
        self.host.more = {} if self.host.more else {"deny": {"networks": [CONFIGURED]}}
        self.process.configure()
        self._listed["deny", CONFIGURED] = bool(self.host.more)
        self._load()

    def _refused_reload(self, _: Step) -> None:
        """Load a configuration that is no TOML, then again the right one."""
        tree = self.process.configuration.read_text("utf-8")
        self.process.configuration.write_text("[" + tree, "utf-8")
        self._load(right=False)
        self.wait(0.1)
        self.process.configuration.write_text(tree, "utf-8")
        self._load()

    def _load(self, *, right: bool = True) -> None:
        """Load the configuration again, by the command: before the daemon serves, SIGHUP would kill it."""
        self._loads = asked = object()

        def then(answer: Any) -> None:  # noqa: ANN401 - JSON
            if self._loads is asked and bool(answer["refused"]) is right:
                self._unexpected.append(f"a {'right' if right else 'wrong'} configuration: {answer}")

        self.process.ask("reload", then)

    # -- the administrator. An answer may come during the next steps, or never

    def _ask(self, step: Step, address: str, then: Callable[[Any], object], **fields: object) -> None:
        """Send a request about an address. ``then`` gets the answer, if no later request came in between."""
        self._asked[address] = number = self._asked[address] + 1
        self._promised.pop(address, None)
        self._unbanned.discard(address)
        self._unbanning.pop(address, None)
        self.host.kernel.asked.discard(address)
        self.host.kernel.wanted.discard(address)
        self.process.ask(
            step.kind, lambda result: then(result) if number == self._asked[address] else None, **fields
        )

    def _ban(self, step: Step) -> None:
        def then(result: Any) -> None:  # noqa: ANN401 - JSON
            if isinstance(result, dict) and not result["problems"] and counts:  # the database has the ban
                self._promised[address] = end

        address, seconds = f"{ADMINISTRATORS}{step.number}", step.seconds or BANNED_FOR
        end, counts = self.host.schedule.mono + seconds, not self._unbans_all
        self._ask(step, address, then, networks=[address], seconds=seconds, reason="simulated")
        # A ban that ends with one that was removed may be taken for that one at the next start.
        alike = self.host.schedule.mono - self._unban_asked.get(address, -inf) < ALIKE_WITHIN
        if counts and not alike:
            self.host.kernel.asked.add(address)

    def _unban(self, step: Step) -> None:
        def then(result: Any) -> None:  # noqa: ANN401 - JSON
            if isinstance(result, dict) and not result["problems"]:
                self._unbanned.add(address)

        address = f"{ADMINISTRATORS}{step.number}"
        self._ask(step, address, then, networks=[address])
        self._unbanning[address] = self.host.schedule.wall
        self._unban_asked[address] = self.host.schedule.mono

    def _unban_all(self, _: Step) -> None:
        for address in self._asked:
            self._asked[address] += 1
        self._promised.clear()
        self._unbanning.clear()
        self._unbans_all = True
        self.host.kernel.asked.clear()
        self.host.kernel.wanted.clear()
        self.judge.lose()

        def then(_: object) -> None:
            self._unbans_all = False
            self.judge.lose()

        self.process.ask("unban", then, all=True)

    def _off(self, step: Step) -> None:
        self.judge.lose()
        self.process.ask(step.kind, lambda _: self.judge.lose())
        self._kernel_fails = True

    def _on(self, step: Step) -> None:
        self._off(step)

    # -- what is seen

    def quiet(self) -> list[Violation]:
        """Let everything work again, and wait; return what does not hold."""
        host = self.host
        host.kernel.heal()
        host.disk.error = self._lossy = 0
        for manager in host.managers.values():
            manager.is_up = True
        for feature in host.features:
            feature.heal()
        self._kernel_fails = False
        self.wait(ANSWERED_WITHIN)
        if self.process.store.records.switched_off:
            try:
                self.process.request("on")
            except RingfenceError as error:
                return [Violation("D", f"`on` is refused although all works: {error}")]
        self.wait(QUIET + max((feature.rest for feature in host.features), default=0.0))
        found = self._defects()
        if self.process.unanswered:
            found.append(Violation("D", f"{self.process.unanswered} requests have no answer"))
        if not found:
            view = self.view(whole=True)
            kernel, ledger, store, listed = map(
                _of_senders, (view.kernel, view.ledger, view.store, view.listed)
            )
            theirs = View(kernel, ledger, store, listed, view.counted, view.forged)
            found = [*self.judge.check(theirs, self.time, quiet=True)]
            found += [one for one in self.judge.check(view, self.time, quiet=True) if one.invariant == "E"]
            found += [*self._lost_bans(), *self._mistimed(), *self._broken_promises(), *self._alarms()]
            found += [one for feature in host.features for one in feature.violations()]
            found += self._misplaced()
            found += [
                Violation("U", f"{one} is banned again") for one, _ in view.kernel if one in self._unbanned
            ]
        return found

    def liveness(self) -> list[Violation]:
        """Let a stranger guess at each Asterisk after a quiet; return what no longer works."""
        states, before = self._sources()
        found = [f"the source {name} is {state}" for name, state in states.items() if state != "listening"]
        for asterisk, address in STRANGERS.items():
            guess = Act("guesses", address, account=NOBODY, transport="TCP", asterisk=asterisk)
            for _ in range(GUESSES):
                violations = self.step(Step("act", guess, wait=0.5))
                if violations:
                    return violations
        self.wait(SLACK)
        _, after = self._sources()
        found += [
            f"the source {name} reports nothing" for name in before if after.get(name, 0) <= before[name]
        ]
        kernel = self.view(whole=False).kernel
        found += [
            f"{address} made {GUESSES} proven attempts, and its {transport} is not dropped"
            for address in STRANGERS.values()
            for transport in ("UDP", "TCP")
            if not drops(kernel, address, transport)
        ]
        return [Violation("L", one) for one in found] or self._defects()

    def _sources(self) -> tuple[dict[str, str], Counter[str]]:
        """Return the state of each source, and how much it has reported; a log's files count together."""
        states, reported = dict[str, str](), Counter[str]()
        for one in self.process.request("status")["sources"]:
            name = one["name"].partition(":")[0]
            states[name] = one["state"]
            reported[name] += one["events"] + one.get("skipped", 0)
        return states, reported

    def view(self, *, whole: bool) -> View:
        """Return what is seen from outside, without the administrator's bans unless ``whole``."""
        counts = self.process.counts
        now = self.host.schedule.mono
        lasting = {key: end for key, end in self.host.kernel.ends.items() if end > now + ENDING * whole}
        kernel = _bans(lasting)
        if not whole:
            kernel = _of_senders(kernel)
            return View(kernel, kernel, kernel, kernel, dict(counts.counted), dict(counts.forged))
        wall = self.host.schedule.wall
        running = [*self.process.store.records.running(wall)]
        listed = json.loads(self.process.request("bans", most=1_000))
        return View(
            kernel,
            _bans((one.network, one.scope) for one in self.recorded if one.expires > wall + ENDING),
            _bans((one.network, one.scope) for one in running if one.expires > wall + ENDING),
            frozenset((one["address"], one["scope"]) for one in listed if one["timeout"] > ENDING),
            dict(counts.counted),
            dict(counts.forged),
        )

    def _defects(self) -> list[Violation]:
        process = self.process
        found = [f"an error without a handler: {one}" for one in process.loop.defects]
        if process.is_over:
            serving = process.serving
            found.append(
                f"the daemon ended: {serving.exception() if not serving.cancelled() else 'cancelled'!r}"
            )
        found += [f"{one['event']}: {one}" for one in self._logged if one["event"] in _DEFECTS]
        found += [f"a request fails: {one}" for one in process.broken]
        found += self._unexpected
        return [Violation("D", one) for one in found]

    def _lost_bans(self) -> Iterable[Violation]:
        kernel, now = self.host.kernel, self.host.schedule.mono
        for (network, scope), end in kernel.acknowledged.items():
            if end > now + ENDING and (network, scope) not in kernel.ends:
                yield Violation(
                    "K", f"the ban of {network} ({scope}) is gone, {end - now:.0f} s before its end"
                )

    def _mistimed(self) -> Iterable[Violation]:
        wall, now = self.host.schedule.wall, self.host.schedule.mono
        for ban in self.recorded:
            end = self.host.kernel.ends.get((ban.network, ban.scope))
            if end is not None and abs((ban.expires - wall) - (end - now)) > SLACK:
                recorded, left = ban.expires - wall, end - now
                yield Violation(
                    "T", f"the ban of {ban.network} ends in {left:.0f} s, recorded: {recorded:.0f} s"
                )

    def _broken_promises(self) -> Iterable[Violation]:
        """Yield the bans of the administrator that have another length than they should."""
        now, slack = self.host.schedule.mono, SLACK + self.drift
        for address, wanted in self._promised.items():
            left = self.host.kernel.ends.get((ip_network(address), Scope.FULL), now) - now
            if abs(left - max(0.0, wanted - now)) > slack:
                yield Violation("R", f"the ban of {address} has {left:.0f} of {wanted - now:.0f} s left")

    def _alarms(self) -> Iterable[Violation]:
        for one in self.process.side.common.alarms.active:
            if str(one.code).startswith(_STATES):
                yield Violation("S", f"{one.code} {one.subject} stays: {one.text}")

    def _misplaced(self) -> Iterable[Violation]:
        """Yield each listed address that the kernel's list lacks, and each removed one that it still has."""
        lists = {"allow": network_lists.ALLOW, "deny": network_lists.DENY}
        for (kind, address), wanted in self._listed.items():
            there = self.host.kernel.has(lists[kind], address)
            if isinstance(wanted, bool) and there is not wanted:
                yield Violation("N", f"{address} is {'' if there else 'not '}on the {kind} list")

    @property
    def recorded(self) -> list[Ban]:
        """The bans of the ledger."""
        ledger = self.process.side.kernel.enforcer.ledger
        found = map(ledger.ban, ledger.keys())
        return [ban for ban in found if ban is not None]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()


ADMINISTRATORS = "192.0.2."
"""How the addresses begin that only the administrator bans."""


def _of_senders(bans: Bans) -> Bans:
    """Return the bans that no administrator made."""
    return frozenset(one for one in bans if not one[0].startswith(ADMINISTRATORS))


def _bans(found: Iterable[tuple[Network, Scope]]) -> Bans:
    return frozenset((format_network(network), str(scope)) for network, scope in found)


def play(seed: int, steps: Sequence[Step]) -> Failure | None:
    """Play a story; return its failure, or None. The seed decides everything that the steps do not."""
    return traced(seed, steps)[0]


def traced(seed: int, steps: Sequence[Step]) -> tuple[Failure | None, str]:
    """Play a story; return its failure or None, and the digest of the callbacks of the last process."""
    with (
        tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder,
        capture_logs() as logged,
    ):
        simulation = Simulation(seed, Path(folder), logged, {step.kind for step in steps})
        with simulation.host.in_place():
            simulation.begin()
            try:
                violations: list[Violation] = []
                for number, step in enumerate(steps, 1):
                    violations = simulation.step(step)
                    if violations:
                        return Failure(seed, tuple(steps[:number]), tuple(violations)), ""
                violations = simulation.quiet() or simulation.liveness()
                trace = simulation.process.loop.trace.hexdigest()
            finally:
                simulation.close()
    return (Failure(seed, tuple(steps), tuple(violations)) if violations else None), trace


_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own in it, with a random name


def shrunk(failure: Failure, again: Callable[[int, Sequence[Step]], Failure | None] = play) -> Failure:
    """Leave out steps, many at first, while the same invariant does not hold."""
    size = max(1, len(failure.steps) // 2)
    while True:
        start = 0
        while start < len(failure.steps):
            smaller = again(failure.seed, failure.steps[:start] + failure.steps[start + size :])
            if smaller is not None and smaller.invariant == failure.invariant:
                failure = smaller
            else:
                start += size
        if size == 1:
            return failure
        size //= 2
