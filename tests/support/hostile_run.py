"""Runs of hostile text against a real Asterisk and the daemon, and the bans that result.

    python -m tests.support.hostile_run 22                       # every case of Asterisk 22
    python -m tests.support.hostile_run 16 --sample 40 --seed 3
    python -m tests.support.hostile_run 22 --every 5 --seed 3    # every fifth case
    python -m tests.support.hostile_run 22 "22 UDP call_id esc security"   # a case by its name

Each case has a victim, and a sender of its own that guesses with the case's text in each request. Many
cases run side by side, and all bans are read at the end. The rules that look at several senders are off,
since all senders are neighbours. A victim that is banned was *framed*. A case is *uncounted* if its sender
was not banned, and *late* if it was banned after more answers than the threshold and one more. Such cases run
a second time, slowly, because a busy machine can answer one guess too many.
"""

import argparse
import json
import math
import random
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, define, evolve, field, frozen
from tests.support import hostile_victims, iax, netns, open_pbx
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.carrier import Carrier
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded
from tests.support.hostile_beds import BEDS, SECOND_PORT
from tests.support.hostile_text import (
    ACCOUNTS,
    OTHERS,
    SEED,
    Case,
    Victim,
    case_of,
    every,
    in_settings,
    limit_of,
    receivers,
    sample,
    strangers,
)
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, SECOND_IPV4
from tests.support.phones import phones_at
from tests.support.sip_raw import OWN_CHALLENGE, Raw
from tests.support.sip_streams import StreamWire, open_wire
from tests.support.sip_wire import UdpWire, Wire, challenge_of, status_of

PORTS = {
    "22 UDP": 5060,
    "22 TCP": 5060,
    "22 TLS": 5061,
    "22 WS": 8088,
    "16 UDP": 5060,
    "16 TCP": 5060,
    "16 TLS": 5061,
    "16 WS": 8088,
    "16-pjsip UDP": 5080,
    "16-pjsip TCP": 5080,
    "16-pjsip TLS": 5081,
    "AMI": MANAGER_PORT,
    "IAX": iax.PORT,
}
FRIEND, HOLDER = "198.19.255.1", "198.19.255.2"
HOLDER_PORT = 40_000
_CONCURRENT = 600
"""The number of cases that run side by side."""
_PART = 5_000
"""The number of cases that one Asterisk serves.

Each case leaves connections open, because a banned sender cannot close them. With 19 000 descriptors Asterisk
16 accepts no more connections.
"""
_IN_ALL, _IN_A_SAMPLE = 60, 6
"""The number of cases in each setting, of a whole run and of a sample."""
_PROCESSES = 4
"""The number of parts that run side by side. With eleven on two busy cores, the daemons fell behind."""
ENOUGH = 5
"""The least number of senders of one way of which some must get an answer."""
_FEW = 20
"""The number of cases that run side by side the second time."""
_MAX_REPEATED = 200
"""At most so many cases run a second time; the first result of the others counts."""
_PATIENCE = 0.3
"""Seconds from one answer to the next, of the requests that cases have sent side by side."""
_FIRST = 2.0
"""Seconds for the first one: a busy Asterisk may answer nobody sooner."""
_PATIENCES = {"AMI": 2.0}
"""By transport. Asterisk waits one second before it refuses a login."""
_LAG = 0.1
"""Seconds between two guesses of a case, in which the daemon reads the reports."""
_HIDDEN = 7.0
"""Seconds after which the wire reports attempts that no other source has reported."""
_FILLING, _WINDOW = 40, 4_096
"""The number of answers that fill a closed window, and its size in bytes."""
_PIECE = 97
"""The number of bytes in a segment of the setting ``split``."""
_REFUSALS = 2
"""A case ends after so many consecutive answers that refuse the request itself, such as 400."""
_AT_ONCE = frozenset({"closed"})
"""Settings whose guesses Asterisk answers before any source can report one."""
_COUNTED = frozenset({"second", "container", "two"})
"""Settings in which the attempts of each sender are compared with its guesses."""
_GUESSED = frozenset({200, 202, 401, 403, 404, 407})

OFF: Mapping[str, object] = {"enabled": False}

_Item = TypeVar("_Item")
Step = tuple[Sequence[bytes], Callable[[bytes], bool]]
"""Requests that are sent together, and a function that recognises the awaited answer."""
Talk = Generator[Step, bytes | None, None]
"""A running case: it yields a step and receives the answer, or None."""


@frozen
class Terms:
    """The thresholds of the daemon. A whole run takes minutes with low ones; the defaults are exact."""

    attempts: int = 5
    others: int = 3
    helping: int = 6
    """Guesses of a second sender with the same text, so that they name the victim beyond the threshold."""
    lag: float = _LAG
    log_only: bool = False
    """Whether the daemon reads neither AMI nor the wire, so that the log's lines alone decide."""

    @property
    def settings(self) -> dict[str, Any]:
        """The tables of the configuration: no rule counts several senders, and friends have few guesses.

        A narrow ban lasts longer than a whole run on a slow machine, because bans are read at the end.
        """
        few = {"attempts": self.others, "friends": self.others}
        return {
            **({"ami": OFF, "wire": OFF} if self.log_only else {}),
            "rules": {
                "guess": {"attempts": self.attempts, "friends": self.attempts},
                "enumeration": {"enabled": False},
                "probe": few,
                "manager": few,
                "slow": {"enabled": False},
                "prefix": {"enabled": False},
                "distributed": {"enabled": False},
            },
            "claimed": {"per_minute": 100_000, "ban": ["2h"]},
        }


QUICK = Terms(attempts=2, others=2, helping=3)


@define
class Trial:
    """One case with its sender, its victim and its result."""

    case: Case
    sender: str
    victim: Victim
    guesses: int
    helps: bool = False
    """Whether it names the victim of another trial, whose own sender is already banned, a few more times."""
    answered: int = 0
    statuses: list[int] = field(factory=list)
    banned: str = ""
    """The scope of the sender's ban; empty without a ban."""


@define
class Findings:
    """The results of a run."""

    cases: int = 0
    by_way: dict[str, tuple[int, int]] = field(factory=dict)
    """By PBX and transport: the numbers of senders, and of those who got an answer to a guess."""
    framed: dict[str, str] = field(factory=dict)
    """The banned addresses that belong to no sender, each with the cases that named it."""
    uncounted: dict[str, str] = field(factory=dict)
    """The cases whose sender was not banned, each with the statuses that it received."""
    late: dict[str, str] = field(factory=dict)
    """The cases whose sender was banned after too many answers, each with these and the ban's scope."""
    doubled: dict[str, str] = field(factory=dict)
    """The cases in some settings of which more attempts than guesses were counted, each with both numbers."""
    seconds: float = 0.0

    def add(self, other: "Findings") -> None:
        """Add the results of another part of the run."""
        self.cases += other.cases
        for way, (senders, answered) in other.by_way.items():
            of_all, answered_in_all = self.by_way.get(way, (0, 0))
            self.by_way[way] = of_all + senders, answered_in_all + answered
        self.framed |= other.framed
        self.uncounted |= other.uncounted
        self.late |= other.late
        self.doubled |= other.doubled
        self.seconds += other.seconds

    @property
    def silent(self) -> list[str]:
        """The ways by which many guessed and nobody got an answer, so nothing was judged."""
        return sorted(
            way for way, (senders, answered) in self.by_way.items() if senders >= ENOUGH and not answered
        )


def _is_final(mark: str, message: bytes) -> bool:
    return status_of(message) >= 200 and mark.encode() in message


def _by_sip(trial: Trial, line: "Line") -> Talk:
    """Make the trial's guesses, and count the answers."""
    raw = trial.case.request(trial.victim)
    for number in range(trial.guesses):
        mark = f"{trial.sender.replace('.', 'x')}x{number}"
        request = raw.named(mark)
        asked = request.encode(line.contact, line.transport, mark + "a")
        first = yield [asked], partial(_is_final, mark + "a")
        status = status_of(first or b"")
        challenge = challenge_of(first or b"")
        if challenge is not None:
            answer = trial.case.guess(request.answering(challenge, f"wrong-{number}"), trial.victim)
            encoded = answer.encode(line.contact, line.transport, mark + "b")
            last = yield [encoded], partial(_is_final, mark + "b")
            status = status_of(last or b"")
        trial.statuses.append(status)
        trial.answered += status in _GUESSED
        if first is None or (
            trial.statuses[-_REFUSALS:].count(status) == _REFUSALS and status not in _GUESSED
        ):
            return


def _at_once(trial: Trial, line: "Line") -> Talk:
    """Send all guesses together, with an invented challenge, before any source can report one."""
    raw = trial.case.request(trial.victim).answering(OWN_CHALLENGE, "wrong")
    marks = [f"{trial.sender.replace('.', 'x')}x{number}" for number in range(trial.guesses)]
    requests = [raw.named(mark).encode(line.contact, line.transport, mark) for mark in marks]
    yield requests, partial(_is_final, marks[-1])


def _behind_a_closed_window(trial: Trial, line: "Line") -> Talk:
    """Fill the window with answers, and send all guesses behind them before anything is read."""
    raw = trial.case.request(trial.victim)
    mark = trial.sender.replace(".", "x")
    asking = raw.named(mark)
    first = yield [asking.encode(line.contact, line.transport, mark + "a")], partial(_is_final, mark + "a")
    challenge = challenge_of(first or b"")
    if challenge is None:
        return
    bye = Raw(method=b"BYE", extension=b"1")
    filling = [bye.encode(line.contact, line.transport) for _ in range(_FILLING)]
    guesses = [
        asking.answering(challenge, f"wrong-{number}").encode(
            line.contact, line.transport, f"{mark}x{number}"
        )
        for number in range(trial.guesses)
    ]
    read: list[int] = []

    def is_last(message: bytes) -> bool:
        if mark.encode() in message:
            read.append(status_of(message))
        return len(read) == trial.guesses

    yield [*filling, *guesses], is_last
    trial.statuses += read
    trial.answered = sum(status in _GUESSED for status in read)


def _by_ami(trial: Trial, line: "Line") -> Talk:
    """Make the trial's wrong logins; Asterisk answers after a second and closes the connection."""
    name = trial.case.text("user", trial.victim)
    for _ in range(trial.guesses):
        line.reset()
        request = b"Action: Login\r\nUsername: a" + name + b"\r\nSecret: wrong\r\n\r\n"
        answer = yield [request], lambda message: b"Response: Error" in message
        trial.answered += answer is not None
        if answer is None:
            return


def _by_iax(trial: Trial, line: "Line") -> Talk:
    """Make the trial's wrong registrations."""
    for _ in range(trial.guesses):
        line.reset()
        talk = iax.guessing(b"a" + trial.case.text("name", trial.victim))
        step: tuple[bytes, Callable[[bytes], bool]] | None = next(talk)
        while step is not None:
            answer = yield [step[0]], step[1]
            if answer is None:
                return
            try:
                step = talk.send(answer)
            except StopIteration:
                step = None
        trial.answered += 1


TALKS: Mapping[str, Callable[[Trial, "Line"], Talk]] = {
    "AMI": _by_ami,
    "IAX": _by_iax,
    "closed": _behind_a_closed_window,
}
"""How a trial runs, by its transport or its setting; by default :func:`_by_sip`."""


def _talk_of(trial: Trial) -> Callable[[Trial, "Line"], Talk]:
    case = trial.case
    usual = _at_once if trial.helps else _by_sip
    return TALKS.get(case.transport) or TALKS.get(case.setting if not trial.helps else "", usual)


class Line:
    """A sender's socket, which reopens after Asterisk has closed it."""

    def __init__(self, lab: Lab, case: Case, sender: str) -> None:
        self.transport = case.transport
        self._lab = lab
        is_other = case.transport in OTHERS
        port = PORTS[case.transport if is_other else f"{case.pbx} {case.transport}"]
        if case.setting == "two" and case.pbx == "16":
            port = SECOND_PORT
        self._target = (SECOND_IPV4 if case.setting == "second" else PBX_IPV4, port)
        self._sender = sender
        self._setting = case.setting
        self._wire: Wire | None = None

    @property
    def contact(self) -> str:
        """``HOST:PORT`` of the socket's local end."""
        return self.wire.contact

    @property
    def is_gone(self) -> bool:
        """Whether Asterisk has closed it."""
        return isinstance(self._wire, StreamWire) and self._wire.gone

    @property
    def wire(self) -> Wire:
        """The socket."""
        if self._wire is None or self.is_gone:
            self.close()
            with netns.inside(self._lab.network.attacker):
                transport = {"AMI": "TCP", "IAX": "UDP"}.get(self.transport, self.transport)
                if self._setting == "closed":
                    self._wire = StreamWire(self._target, self._sender, 1.0, window=_WINDOW)
                elif self._setting == "second" and transport == "UDP":
                    self._wire = UdpWire(self._target, self._sender, open_to_all=True)
                else:
                    self._wire = open_wire(transport, self._target, self._sender, 1.0)
            if isinstance(self._wire, StreamWire) and self._setting == "split":
                self._wire.piece = _PIECE
        return self._wire

    def reset(self) -> None:
        """Close the socket, so that the next use opens a new one."""
        self.close()
        self._wire = None

    def close(self) -> None:
        """Close it."""
        if self._wire is not None:
            self._wire.close()


@define
class Running:
    """A trial that waits for an answer."""

    line: Line
    talk: Talk
    requests: Sequence[bytes]
    accept: Callable[[bytes], bool]
    answer: bytes | None = None


def _await(running: Iterable[Running], seconds: float) -> None:
    """Wait for the answers to requests that were sent side by side, until none has come for ``seconds``."""
    waiting, poller = {}, select.poll()
    for one in running:
        if not one.line.is_gone:
            with suppress(OSError, ValueError):
                descriptor = one.line.wire.fileno()
                poller.register(descriptor, select.POLLIN)
                waiting[descriptor] = one
    deadline = time.monotonic() + max(seconds, _FIRST)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(1_000 * left):
            one = waiting[descriptor]
            with suppress(OSError):
                while one.answer is None and (message := one.line.wire.receive(0.001)) is not None:
                    one.answer = message if one.accept(message) else None
            if one.answer is not None or one.line.is_gone:
                poller.unregister(descriptor)
                del waiting[descriptor]
                deadline = time.monotonic() + seconds


def run_concurrently(lab: Lab, trials: Sequence[Trial], lag: float) -> None:
    """Run trials side by side, each until a request stays unanswered."""
    patience = max(_PATIENCES.get(trial.case.transport, _PATIENCE) for trial in trials)
    with ExitStack() as stack:
        running: list[Running] = []
        for trial in trials:
            line = Line(lab, trial.case, trial.sender)
            stack.callback(line.close)
            with suppress(OSError):
                talk = _talk_of(trial)(trial, line)
                running.append(Running(line, talk, *next(talk)))
        while running:
            for one in running:
                with suppress(OSError):
                    for request in one.requests:
                        one.line.wire.send(request)
            _await(running, patience)
            still_running = []
            for one in running:
                with suppress(StopIteration, OSError):
                    still_running.append(Running(one.line, one.talk, *one.talk.send(one.answer)))
            running = still_running
            time.sleep(lag)


def _let_others_send(lab: Lab, trials: Sequence[Trial]) -> None:
    """Send from the victims of some settings as honest phones do, and from other programs to victims."""
    of: dict[str, list[Trial]] = {}
    for trial in trials:
        if not trial.helps:
            of.setdefault(trial.case.setting, []).append(trial)

    def victims(setting: str, pbx: str) -> list[Victim]:
        return [trial.victim for trial in of.get(setting, []) if trial.case.pbx == pbx]

    for pbx in ACCOUNTS:
        hostile_victims.press_lamps(lab, victims("lamps", pbx), PORTS[f"{pbx} UDP"])
        hostile_victims.log_in_elsewhere(lab, victims("other", pbx))
    relayed = of.get("relay", [])
    if relayed:
        most = max(trial.guesses for trial in relayed)
        hostile_victims.relay(lab, [(trial.case, trial.victim) for trial in relayed], most)


@contextmanager
def guarded_victims(
    lab: Lab, folder: Path, settings: Mapping[str, Any]
) -> Iterator[tuple[Guard, list[Victim]]]:
    """Guard the Asterisk, with a registered phone, a trunk, and a host that has a TCP connection to it."""
    with ExitStack() as stack:
        chan_sip = lab.asterisk.kind.value == "chan_sip"
        trunk = stack.enter_context(Carrier(lab, open_pbx.TRUNK))
        until(lambda: trunk.registered, "the PBX at its carrier")
        [phone] = stack.enter_context(phones_at(lab, FRIEND, ["phone1"]))
        assert phone.register(expires=3600) == 200
        with netns.inside(lab.network.attacker):
            holder = StreamWire((PBX_IPV4, 5060), HOLDER, 2.0, port=HOLDER_PORT)
        stack.callback(holder.close)
        port = phone.where.getsockname()[1]
        # chan_sip closes a connection on which nothing arrives for thirty seconds.
        holder.send(Raw(method=b"OPTIONS", extension=b"100").encode(holder.contact, "TCP"))
        guard = stack.enter_context(guarded(lab, folder, **settings))
        if lab.asterisk.namespace != lab.network.pbx:
            until(lambda: any(one.get("containers") for one in guard.status()["sources"]), "the container")
        friends = {FRIEND, open_pbx.TRUNK} if settings.get("ami") != OFF else set()
        until(lambda: friends <= {row["address"] for row in guard.ask("friends")}, "friends")
        victims = [Victim(FRIEND, port, "friend"), Victim(open_pbx.TRUNK, 5060, "trunk")]
        yield guard, [*victims, Victim(HOLDER, HOLDER_PORT, "holder")]
        assert chan_sip or not holder.gone, "the connection of the holder ended"


def senders() -> Iterator[str]:
    """Yield addresses of the attacker's side, one for each case."""
    for third in range(250):
        for last in range(1, 255):
            yield f"198.19.{third}.{last}"


def run(
    lab: Lab,
    cases: Sequence[Case],
    terms: Terms,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
) -> Findings:
    """Run the cases with one daemon, and run those that seem uncounted a second time.

    With the log alone, many senders go unbanned: no other source confirms what it states. Only the addresses
    that are framed are found then.
    """
    began, found = time.monotonic(), Findings(cases=len(cases))
    with guarded_victims(lab, folder, {**terms.settings, **(settings or {})}) as (guard, known):
        addresses, others, reached = senders(), strangers(), receivers()
        trials = list(_trials(mixed(cases), addresses, others, reached, known, terms))
        for batch in _batches(trials, _CONCURRENT):
            run_concurrently(lab, batch, terms.lag)
        _let_others_send(lab, trials)
        time.sleep(_HIDDEN)
        suspects = [] if terms.log_only else _judged(guard, trials, terms)
        repeated = [trial.case for trial in suspects[:_MAX_REPEATED]]
        again = list(_trials(repeated, addresses, others, reached, known, terms))
        for batch in _batches(again, _FEW):
            run_concurrently(lab, batch, 10 * terms.lag)
        if again:
            time.sleep(_HIDDEN)
        for trial in (*_judged(guard, again, terms), *suspects[_MAX_REPEATED:]):
            named = found.late if trial.banned else found.uncounted
            named[trial.case.name] = f"{trial.statuses}, {trial.banned or 'no ban'}"
        found.doubled = _doubled(guard, trials)
        found.framed = _framed(guard, [*trials, *again])
        found.by_way = _by_way(trials)
    found.seconds = time.monotonic() - began
    return found


def mixed(cases: Iterable[Case]) -> list[Case]:
    """Return the cases in another order, always the same: lines of one kind hide each other in the log."""
    kept = list(cases)
    random.Random(SEED).shuffle(kept)  # noqa: S311 - not for secrets
    return kept


def _batches(trials: Sequence[Trial], size: int) -> Iterator[Sequence[Trial]]:
    """Yield the trials that run side by side.

    Those that wait long for answers are in separate groups. So are those that send much at once, a few in
    each group: Asterisk has no time for others meanwhile.
    """
    kinds: dict[str, list[Trial]] = {}
    for trial in trials:
        case = trial.case
        kind = case.transport if case.transport in _PATIENCES else case.setting if _is_at_once(trial) else ""
        kinds.setdefault(kind, []).append(trial)
    for kind, chosen in kinds.items():
        yield from batched(chosen, min(size, _FEW) if kind in _AT_ONCE else size)


def _is_at_once(trial: Trial) -> bool:
    return trial.case.setting in _AT_ONCE and not trial.helps


def batched(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield the items in parts of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _trials(
    cases: Iterable[Case],
    addresses: Iterator[str],
    others: Iterator[Victim],
    reached: Iterator[Victim],
    known: Sequence[Victim],
    terms: Terms,
) -> Iterator[Trial]:
    """Yield trials with two senders and a victim for each case; one in four victims is known to the PBX."""
    for number, case in enumerate(cases):
        kind = number % 12
        victim = next(reached) if case.setting else known[kind] if kind < len(known) else next(others)
        most = terms.others if case.transport == "AMI" else terms.attempts
        yield Trial(case, next(addresses), victim, most + 3)
        yield Trial(case, next(addresses), victim, terms.helping, helps=True)


def _scopes(guard: Guard) -> Mapping[str, str]:
    return {row["address"]: row["scope"] for row in guard.bans()}


def _judged(guard: Guard, trials: Sequence[Trial], terms: Terms) -> list[Trial]:
    """Return the trials whose sender got too many answers or was not banned."""
    scopes = _scopes(guard)
    most = {"AMI": terms.others}
    for trial in trials:
        trial.banned = scopes.get(trial.sender, "")
    return [
        trial
        for trial in trials
        for allowed in (most.get(trial.case.transport, terms.attempts),)
        if not (trial.helps or limit_of(trial.case))
        and trial.answered > allowed
        and (not trial.banned or (trial.answered > allowed + 1 and trial.case.setting not in _AT_ONCE))
    ]


def _by_way(trials: Iterable[Trial]) -> dict[str, tuple[int, int]]:
    """Return, by PBX and transport, the numbers of senders without known limits, and of those answered."""
    found: dict[str, tuple[int, int]] = {}
    for trial in trials:
        if not (trial.helps or limit_of(trial.case)):
            way = f"{trial.case.pbx} {trial.case.transport}"
            senders, answered = found.get(way, (0, 0))
            found[way] = senders + 1, answered + (trial.answered > 0)
    return found


def _doubled(guard: Guard, trials: Sequence[Trial]) -> dict[str, str]:
    found = {}
    for trial in trials:
        if trial.case.setting in _COUNTED and not trial.helps:
            attempts = guard.ask("why", network=trial.sender)["attempts"]
            if not all(trial.statuses):  # a request that is not answered counts by its bytes
                attempts = [attempt for attempt in attempts if attempt["kind"] != "unexplained"]
            counted = sum(attempt["trusted"] for attempt in attempts)
            if counted > len(trial.statuses):
                found[trial.case.name] = f"{counted} attempts, {trial.statuses}"
    return found


def _framed(guard: Guard, trials: Sequence[Trial]) -> dict[str, str]:
    attackers = {trial.sender for trial in trials}
    named: dict[str, list[str]] = {}
    for trial in trials:
        if not trial.helps:
            named.setdefault(trial.victim.address, []).append(trial.case.name)
    found = {}
    for address in _scopes(guard).keys() - attackers:
        inside = [one for one in named if ip_address(one) in ip_network(address)]
        found[address] = "; ".join(_first(named[one]) for one in inside) or "named by no case"
    return found


def _first(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names, and their number."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.hostile_run", description="Hostile text.")
    parser.add_argument("release", choices=("16", "22"))
    parser.add_argument("names", nargs="*", help="cases by their names; all, if none is given")
    parser.add_argument("--sample", type=int, default=0, help="so many cases of each PBX")
    parser.add_argument(
        "--every", type=int, default=1, help="run one case in so many; the seed chooses which"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only cases whose name matches this expression")
    parser.add_argument("--exact", action="store_true", help="with the default thresholds")
    parser.add_argument("--log-only", action="store_true", help="without AMI and without the wire")
    parser.add_argument("--part", type=int, help="only this part of the cases, from 0")
    options = parser.parse_args()
    terms = evolve(Terms() if options.exact else QUICK, log_only=options.log_only)
    cases = [case_of(name) for name in options.names] or list(
        cases_for(options.release, options.sample, options.seed)
    )
    cases = [case for case in cases if re.search(options.only, case.name)]
    cases = [case for case in cases if not (options.log_only and case.setting)]
    cases = [*_share(cases, options.every, options.seed)]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = Findings()
    parts = _parts(cases)
    for part in parts if options.part is None else [parts[options.part]]:
        bed = BEDS[bed_of(part[0])](options.release)
        with bed as (lab, settings), tempfile.TemporaryDirectory() as folder:
            found.add(run(lab, part, terms, Path(folder), settings))
    print(json.dumps(asdict(found)))
    return int(any((found.framed, found.uncounted, found.late, found.doubled, found.silent)))


def _parts(cases: Iterable[Case]) -> list[Sequence[Case]]:
    """Return the cases in the parts that one Asterisk serves each."""
    placed: dict[str, list[Case]] = {}
    for case in mixed(cases):
        placed.setdefault(bed_of(case), []).append(case)
    return [
        part
        for bed in sorted(placed)
        for part in batched(placed[bed], math.ceil(len(placed[bed]) / math.ceil(len(placed[bed]) / _PART)))
    ]


def bed_of(case: Case) -> str:
    """Return the name of the bed (``BEDS``) of a case."""
    return case.setting if case.setting in BEDS else ""


def _share(cases: Sequence[Case], step: int, seed: int) -> Sequence[Case]:
    """Return each ``step``-th case, in mixed order; each of ``step`` consecutive seeds returns others."""
    return mixed(cases)[seed % step :: step]


def findings(releases: Iterable[str], step: int, seed: int) -> list[Findings]:
    """Run each ``step``-th case of these releases, side by side, with an Asterisk for each part.

    A process alone waits most of the time: of two processors, two processes used a quarter.
    """
    command = (sys.executable, "-m", "tests.support.hostile_run")
    chosen = ("--every", str(step), "--seed", str(seed))
    parts = [
        [*command, release, *chosen, "--part", str(part)]
        for release in releases
        for part, _ in enumerate(_parts(_share(list(cases_for(release, 0, seed)), step, seed)))
    ]

    def found_in(part: Sequence[str]) -> Findings:
        done = subprocess.run(part, stdout=subprocess.PIPE, check=False)
        return Findings(**json.loads(done.stdout))

    with ThreadPoolExecutor(_PROCESSES) as pool:
        return list(pool.map(found_in, parts))


LINE_ENDS = re.compile(r"[^ ]+ [^ ]+ [^ ]+ %?(lf|lf-both|crlf|esc) [^ ]+")
"""The names of the cases whose text ends a line of the log, or makes the log leave out text."""


def log_only_findings(releases: Iterable[str], step: int, seed: int) -> list[Findings]:
    """Run each ``step``-th case of ``LINE_ENDS`` with the log alone, the releases side by side."""
    command = (sys.executable, "-m", "tests.support.hostile_run")

    def found_in(release: str) -> Findings:
        chosen = ("--only", f"^{LINE_ENDS.pattern}$", "--every", str(step), "--seed", str(seed))
        done = subprocess.run([*command, release, "--log-only", *chosen], stdout=subprocess.PIPE, check=False)
        return Findings(**json.loads(done.stdout))

    with ThreadPoolExecutor(_PROCESSES) as pool:
        return list(pool.map(found_in, releases))


def cases_for(release: str, number: int, seed: int) -> Iterator[Case]:
    """Yield all cases of a release, or ``number`` cases of each of its PBXs."""
    for pbx in ACCOUNTS:
        if pbx.split("-")[0] == release:
            yield from sample(pbx, number, seed) if number else every(pbx)
            yield from in_settings(pbx, min(number, _IN_A_SAMPLE) or _IN_ALL, seed)


if __name__ == "__main__":
    sys.exit(main())
