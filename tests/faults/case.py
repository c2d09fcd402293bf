"""One case: one call fails once during one operation, and what the administrator finds afterwards."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from attrs import Factory, define
from tests.faults.bed import QUIET, Bed, Facts, listed, vars_of
from tests.faults.operations import OPERATIONS, Answer, Operation, Outcome, Process
from tests.faults.values import AT_ANSWER, KILL, NOTHING, READS_REPORTS, Row
from tests.support.daemon import until
from tests.support.faults import injected, wait_for

from ringfence.errors import RingfenceError

SAID_WITHIN = 5.0
"""Seconds in which the administrator must have an answer."""
_AFTERWARDS = 0.3
"""Seconds after the answer in which calls still fail: a part of the work follows it."""
REPEATED_WITHIN = 35.0
"""Seconds in which a switch that the kernel refused is tried again (``firewall_manager.RETRY_EVERY``)."""
_PAUSE = 0.5
CLEARS_WITHIN = 75.0
"""Seconds in which an alarm must clear when its cause is gone: each minute everything is compared."""
_AT_WORK = 2.0
"""Seconds that a daemon has at most to begin its work after READY, while calls still fail."""
_CALL = re.compile(r"(?m)^(\d+) +(\w+)\(")
_ARTEFACT = re.compile(
    r"\.pyc?\b|\.so\b|site-packages|/src/ringfence/|FIONBIO|read\(\d+<anon_inode:inotify|"
    r'"\\0", 1, 0, NULL|UNIX-STREAM:\[\d+->\d+\]>, \w+, 4096, 0, NULL'
)
"""What stands in lines about calls that no kernel lets fail, or that only fail in Python's own work."""


@define
class Tried:
    """The result of a case: the calls that failed, as strace shows them, and what was found."""

    calls: list[str] = Factory(list)
    findings: list[str] = Factory(list)
    log: str = ""
    trace: str = ""
    is_artefact: bool = False
    """Whether only calls failed that the kernel never lets fail."""


def changed_calls(lines: Iterable[str]) -> list[str]:
    """Return the lines of strace about calls that may fail for a user, too.

    Left out are calls for Python's own files, and those for the pipe by which asyncio wakes its loop.
    """
    return [line for line in lines if not _ARTEFACT.search(line)]


def try_case(bed: Bed, row: Row, number: int) -> Tried:
    """Let the call of the number ``number`` in each thread fail; return what was found."""
    case = _Case(bed, OPERATIONS[row.operation], row, number)
    try:
        case.run()
    finally:
        bed.end()
    return case.tried


def most_uses(trace: str) -> Mapping[str, int]:
    """Return how often a thread used each system call, at most, from the output of strace."""
    most: dict[str, int] = {}
    for (_, call), number in Counter(_CALL.findall(trace)).items():
        most[call] = max(number, most.get(call, 0))
    return most


class _Case:
    def __init__(self, bed: Bed, operation: Operation, row: Row, number: int) -> None:
        self.tried = Tried()
        self._bed = bed
        self._guard = bed.guard
        self._operation = operation
        self._row = row
        self._number = number
        beginning = bed.beginning(empty=operation.empty)
        self._before = operation.since(beginning)
        self._after = operation.after(self._before)
        self._recorded = beginning.bans if operation.keeps_records else self._after.bans

    def run(self) -> None:
        """Run the operation under the fault, and look at everything."""
        answer = self._do()
        if self._row.call == NOTHING:
            if answer.outcome is not self._operation.usual:
                self._find("not done, although nothing fails: all cases of this operation would show nothing")
        elif not self.tried.calls:
            self.tried.findings.clear()
            return
        if self._row.error == AT_ANSWER:
            self._look_at_log()  # the daemon is dead, and the next one shows the rest
        elif self._operation.process is Process.STARTING:
            self._look_at_start(answer)
        elif self._operation.process is not Process.ALONE:
            self._look(answer)
        self._restart(answer)
        self.tried.log = self._guard.log
        if self.tried.findings:
            self.tried.findings.append(f"answer: {answer.outcome.name} {answer.text[-400:]!r}")

    def _do(self) -> Answer:
        """Make the beginning, and let the operation happen under the fault; return its answer."""
        self._bed.reset(empty=self._operation.empty, earlier=self._operation.earlier)
        starting = self._operation.process is Process.STARTING
        if self._operation.process is not Process.ALONE:
            self._guard.start(stopped=starting, ready=not starting)
            if not starting:
                until(self._bed.is_quiet, "a quiet daemon", pause=0.02)
            if self._operation.first is not None:
                self._operation.first(self._bed)
        if self._row.error == AT_ANSWER:
            answer = self._operation.act(self._bed)
            self._bed.end()
            # The next start adopts a ban that only the kernel has, so the database is read before it.
            if answer.outcome is Outcome.DONE and self._bed.recorded() != self._recorded:
                self._find("not recorded, although the answer does not say so")
            return answer
        if self._operation.process in {Process.COMMAND, Process.ALONE}:
            with self._bed.tracing(self._injected):
                return self._act()
        with self._injected(self._guard.pid):
            answer = self._act()
            if starting:
                wait_for(_AT_WORK, lambda: not self._guard.running or self._is_at_work())
            time.sleep(_AFTERWARDS)
            if self._row.lasts:
                self._look_while_it_lasts()
        return answer

    def _is_at_work(self) -> bool:
        with suppress(RingfenceError):
            return self._bed.is_quiet()
        return False

    @contextmanager
    def _injected(self, pid: int) -> Iterator[None]:
        output = self._bed.output
        when = f"{self._number}{'+' * self._row.lasts}"
        # `fence enforce` starts a process that outlives it. The calls of that process are left alone.
        programs = self._operation.process is not Process.COMMAND
        row = self._row
        with injected(pid, row.call, row.injection, when, output=output, programs=programs) as lines:
            yield
        self.tried.trace = output.read_text("utf-8", "replace")
        changed = lines()
        self.tried.calls += changed_calls(changed)
        self.tried.is_artefact = bool(changed) and not self.tried.calls

    def _act(self) -> Answer:
        began = time.monotonic()
        answer = self._operation.act(self._bed)
        took = time.monotonic() - began
        if took > SAID_WITHIN and (answer.outcome is Outcome.DONE or answer.text):
            self._find(f"slow: {took:.1f} s")
        if answer.outcome is not Outcome.DONE and not answer.text and self._row.error != KILL:
            self._find("silent: no answer")
        if answer.outcome is Outcome.DONE and self._bed.recorded() != self._recorded:
            self._find("not recorded, although the answer does not say so")
        if "Traceback" in answer.text:
            self._find("traceback: in the answer")
        return answer

    def _find(self, text: str) -> None:
        self.tried.findings.append(text)

    def _look_at_start(self, answer: Answer) -> None:
        """Look at a daemon that began under a fault: it is READY and right, or has said why not."""
        if answer.outcome is Outcome.DONE and self._guard.running:
            self._look(answer)
        elif self._guard.running:
            self._find("hangs: neither READY nor ended")
        else:
            self._look_at_log()
            code = self._guard.wait()
            if self._row.error != KILL and code <= 0:
                self._find(f"ended: with {code}")

    def _look_at_log(self) -> None:
        for line in self._bed.defects[:3]:
            self._find(f"traceback: {line[:300]}")

    def _look(self, answer: Answer) -> None:
        """Look at the daemon after the fault."""
        self._look_at_log()
        if self._operation.stops and self._guard.running:
            self._find("hangs: it does not stop")
        if not self._guard.running:
            if self._row.error != KILL and not self._operation.stops:
                self._find(f"ended: {self._guard.log[-300:]}")
            return
        allowed = self._allowed(answer)
        problem = ""

        def right() -> bool:
            nonlocal problem
            problem = self._bed.disagreement() or self._wrong(self._bed.facts(), allowed)
            return not problem

        try:
            if not wait_for(REPEATED_WITHIN if self._operation.repeats else QUIET, right):
                self._find(f"{problem} (alarms {listed(self._bed.alarms)})")
            if not self._bed.hears():
                self._find(f"deaf: {self._guard.states()}")
            self._look_at_alarms()
        except RingfenceError as error:
            self._find(f"unreachable: {error}")

    def _look_while_it_lasts(self) -> None:
        """Look at a daemon whose calls still fail: what differs must be said by an alarm."""
        problem = ""

        def is_said() -> bool:
            nonlocal problem
            with suppress(RingfenceError):
                problem = self._bed.disagreement()
                return not problem or bool(self._bed.alarms_beyond(empty=self._operation.empty))
            return False

        if self._guard.running and not wait_for(SAID_WITHIN, is_said):
            self._find(f"silent while it lasts: {problem or 'no answer'}, and no alarm")

    def _look_at_alarms(self, restored: frozenset[str] = frozenset()) -> None:
        """Look whether all alarms are gone that the fault has caused.

        After a restart, those that were active before may stay for ten minutes (``alarms.RESTORED_FOR``), and
        a kill may come before the record of their end: ``restored`` are their codes.
        """
        until_then = time.monotonic() + CLEARS_WITHIN
        while stay := self._bed.staying(empty=self._operation.empty) - restored:
            if time.monotonic() > until_then:
                self._find(f"an alarm stays: {listed(stay)}")
                return
            time.sleep(_PAUSE)

    def _allowed(self, answer: Answer) -> list[Facts]:
        """Return the facts that an answer permits."""
        must = self._operation.is_certain and self._row.error != KILL and self._row.call not in READS_REPORTS
        if must or self._row.call == NOTHING:
            return [self._after]
        if answer.outcome in {Outcome.DONE, Outcome.UNRECORDED}:
            return [self._after]
        is_final = answer.outcome is Outcome.REFUSED and not self._operation.repeats
        return [self._before] if is_final else [self._before, self._after]

    def _wrong(self, facts: Facts, allowed: list[Facts]) -> str:
        if facts in allowed:
            return ""
        other = "half: " if facts not in (self._before, self._after) else "not as answered: "
        return other + _difference(facts, allowed[0])

    def _restart(self, answer: Answer) -> None:
        """Kill the daemon and start it: nothing may be lost."""
        allowed = self._allowed_later(answer)
        self._bed.end()
        restored = self._bed.alarms_told
        if self._operation.name == "restore" and answer.outcome is Outcome.DONE:
            self._look_at_kernel()
        try:
            self._guard.start()
        except AssertionError:
            self._find(f"start: the next start fails: {self._guard.log[-400:]}")
            return
        self._look_again(allowed, restored)

    def _allowed_later(self, answer: Answer) -> list[Facts]:
        """Return the facts that are right after a restart: the present ones, and what was commanded."""
        allowed = self._allowed(answer)
        if self._guard.running:
            try:
                allowed = [self._bed.facts()]
            except RingfenceError as error:
                self._find(f"unreachable: {error}")
        if self._operation.is_in_file or self._operation.repeats:
            allowed.append(self._after)
        if self._operation.process is Process.ALONE and answer.outcome is Outcome.UNRECORDED:
            allowed.append(self._before)  # the answer says that the next start undoes the change
        is_undone = self._operation.process is Process.STARTING or self._operation.ends_with_daemon
        return [self._before] if is_undone else allowed

    def _look_again(self, allowed: list[Facts], restored: frozenset[str]) -> None:
        """Look at the daemon after its restart; ``restored`` are the codes of alarms before it."""
        problem = ""

        def right() -> bool:
            nonlocal problem
            problem = (
                self._bed.disagreement() or self._bed.unlike() or self._wrong(self._bed.facts(), allowed)
            )
            return not problem

        if not wait_for(QUIET, right):
            self._find(f"lost after the restart: {problem}")
            return
        try:
            if not self._bed.hears():
                self._find(f"deaf after the restart: {self._guard.states()}")
            self._look_at_alarms(restored)
        except RingfenceError as error:
            self._find(f"unreachable after the restart: {error}")

    def _look_at_kernel(self) -> None:
        if (kernel := self._bed.kernel()) != self._after.bans:
            self._find(f"half: the kernel has {listed(kernel)}")


def _difference(one: Facts, other: Facts) -> str:
    pairs = zip(vars_of(one), vars_of(other), strict=True)
    return "; ".join(
        f"{name}: {listed(left)} instead of {listed(right)}"
        for (name, left), (_, right) in pairs
        if left != right
    )
