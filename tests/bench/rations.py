"""The guesses that a real Asterisk answers with and without the ration, and what it costs phones.

Each way of guessing has its trials with ipset and with nftables; each trial has its own network. An attacker
goes on through more than two seconds of silence, in which the next trial begins. Without the ration the
limiter and the daemon alone stop it.
"""

import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.attacks import PIPELINED, THRESHOLD, one_prefix
from tests.bench.figures import Figure, spread
from tests.bench.testbed import GUESS, PLACED, Bed, bed, in_prefix, route_prefixes
from tests.support import open_pbx, phones
from tests.support.guarded import until_asking, until_rationed
from tests.support.process import cpu_seconds
from tests.support.sip_raw import answered_within_segments, calling, guesses, request_of

TRIALS = 2
"""The trials with each backend."""
TRIALS_WITHOUT = 2
"""The trials without the ration: they only show what it is good for."""
BACKENDS = ("ipset", "nftables")
ON: Mapping[str, object] = {}
BOTH: Mapping[str, object] = {"asking": "enforce"}
"""The ration of questions too, as by default."""
OFF: Mapping[str, object] = {"mode": "off", "asking": "off"}
ATTACKERS = 200
STOPPED = 10  # seconds
MOST_STOPPED = 60
PHONE_SECONDS = 5
REGISTRATIONS = 2_000
"""So many that the CPU time, which the kernel reports in hundredths of a second, can be compared."""
MOST_OF_CPU = 1.05
_LOOPS = 4
_APART = 1.1
"""Seconds between two trials of one way; an attacker gets its answers in the first tenths of one."""
_REST = 1.0
"""Seconds after the trials of one way, in which Asterisk answers what still waits."""
_INSISTENT = ("--number", "3000", "--silences", "8", "--timeout", "0.3", "--reuse-nonce")
_IPV6 = ("--target", "[fd00:18::1]:5060")

Trial = Callable[[Bed, int], int]
"""One attack, by its number; returns the number of answered guesses, of the attacker that got most."""


def _guessing(*options: str) -> Trial:
    return lambda here, number: (
        here.lab.attack("guess", *_INSISTENT, *options, "--sources", f"198.19.{number}.1").answered
    )


def _by_ipv6(here: Bed, number: int) -> int:
    return here.lab.attack("guess", *_INSISTENT, *_IPV6, "--sources", in_prefix(number, "7")).answered


def _at_once(*options: str) -> Trial:
    count = ("--number", str(PIPELINED))
    return lambda here, number: (
        here.lab.attack("pipeline", *count, *options, "--sources", f"198.19.{number}.2").answered
    )


def _on_one_connection(transport: str) -> Trial:
    def trial(here: Bed, number: int) -> int:
        with calling(here.lab, f"198.19.{number}.{10 + len(transport)}", transport) as caller:
            return len(guesses(caller, request_of(b"REGISTER", b"alice"), 300, 2.0))

    return trial


def _within_segments(here: Bed, number: int) -> int:
    return answered_within_segments(here.lab, f"198.19.{number}.20")


def _crowd(here: Bed, number: int) -> int:
    """Guess from many addresses at once; return the most answers to one of them."""
    found = here.lab.attack(
        *("guess", "--number", "60", "--silences", "3", "--reuse-nonce", "--parallel", str(ATTACKERS)),
        *("--sources", f"198.19.{130 + number}.1-198.19.{130 + number}.{ATTACKERS}"),
    )
    return max(found.by_source.values())


def _busy(here: Bed, number: int) -> int:
    """Guess while busy loops run on every core."""
    program = (
        "import os, time; os.sched_setaffinity(0, range(os.cpu_count()))\nwhile time.process_time() < 30: 0"
    )
    loops = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(_LOOPS)]
    try:
        return _guessing()(here, 100 + number)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _stopped(here: Bed, number: int) -> int:
    """Guess while the daemon stands still."""
    return here.lab.attack(
        *("guess", "--number", "20000", "--seconds", str(STOPPED), "--timeout", "0.2", "--reuse-nonce"),
        *("--silences", "1000", "--sources", f"198.19.{170 + number}.1"),
    ).answered


_CROWD = f"{ATTACKERS} addresses at once, to each"
WAYS: Mapping[str, Trial] = {
    "one after the other, UDP/IPv4": _guessing(),
    "one after the other, UDP/IPv6": _by_ipv6,
    "one after the other, TCP": _guessing("--transport", "TCP"),
    "one after the other, TLS": _on_one_connection("TLS"),
    "one after the other, WS": _on_one_connection("WS"),
    f"{PIPELINED} at once, UDP": _at_once(),
    f"{PIPELINED} at once, TCP": _at_once("--transport", "TCP"),
    "hidden, within TCP segments, 200 at once": _within_segments,
    _CROWD: _crowd,
    "4 from each of 1 000 addresses of one /64, in all": lambda here, number: one_prefix(here.lab, number),
    f"{_LOOPS} busy loops on the machine, UDP": _busy,
}
_STOPPED = f"the daemon stopped for {STOPPED} s, UDP"
MOST: Mapping[str, tuple[int, str]] = {
    _CROWD: (THRESHOLD + 1, ": the ration lets one through after a second, as long as 1 000 guesses take"),
    _STOPPED: (MOST_STOPPED, ""),
}
"""The most answers by the ways that get more than the threshold, and the reason."""
_ONE_BY_ONE = frozenset(name for name in WAYS if "addresses" in name or "busy" in name or "at once" in name)
"""The ways that keep the machine busy: each trial waits for the end of the last one."""


@contextmanager
def rationed(backend: str, ration: Mapping[str, object]) -> Iterator[Bed]:
    """Yield a bed whose Asterisk answers by every transport, with this ration."""
    firewall = {"backend": backend, "ration": ration}
    with bed(GUESS, extra=open_pbx.configured("22"), firewall=firewall) as here:
        if ration != OFF:
            until_rationed(here.guard)
        if ration == BOTH:
            until_asking(here.guard)
        route_prefixes(here.lab)
        yield here


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    on = [_tried(backend, ON, TRIALS) for backend in BACKENDS]
    off = _tried(BACKENDS[0], OFF, TRIALS_WITHOUT)
    for name in (*WAYS, _STOPPED):
        yield _answered(name, [count for found in on for count in found[name]], off[name])
    yield from _registration()
    for backend in BACKENDS:
        yield _together(backend)


def _tried(backend: str, ration: Mapping[str, object], trials: int) -> dict[str, list[int]]:
    """Make every trial with one Asterisk and one daemon; return the counts. Each has a network of its own."""
    found: dict[str, list[int]] = {}
    with rationed(backend, ration) as here:
        for at, (name, trial) in enumerate(WAYS.items()):
            numbers = range(at * TRIALS + 1, at * TRIALS + trials + 1)
            apart = 0.0 if name in _ONE_BY_ONE else _APART
            found[name] = _in_turn(partial(trial, here), numbers, apart)
            time.sleep(_REST)
        first = len(WAYS) * TRIALS + 1
        os.kill(here.guard.pid, signal.SIGSTOP)
        try:
            found[_STOPPED] = _in_turn(partial(_stopped, here), range(first, first + trials), _APART)
        finally:
            os.kill(here.guard.pid, signal.SIGCONT)
    return found


def _in_turn(trial: Callable[[int], int], numbers: Sequence[int], apart: float) -> list[int]:
    """Make these trials one after the other, or each ``apart`` seconds after the begin of the last one."""
    if not apart:
        return [trial(number) for number in numbers]
    with ThreadPoolExecutor(len(numbers)) as pool:
        running = []
        for number in numbers:
            running.append(pool.submit(trial, number))
            time.sleep(apart)
        return [one.result() for one in running]


def _answered(name: str, on: Sequence[int], off: Sequence[int]) -> Figure:
    most, why = MOST.get(name, (THRESHOLD, ""))
    return Figure(
        what=f"guesses answered with the ration: {name}",
        measured=spread(on),
        must=f"≤ {most} in every trial{why}; without the ration 4 or more",
        reached=max(on) <= most and min(off) >= 4,
        compared=f"without the ration: {spread(off)}",
        cores=PLACED,
    )


def _registration() -> Iterator[Figure]:
    """Register new phones by turns with and without the rations; compare their times, and the CPU."""
    with rationed("nftables", BOTH) as on, rationed("nftables", OFF) as off:
        before = _spent(on), _spent(off)
        times = [(_register(on, number), _register(off, number)) for number in range(REGISTRATIONS)]
        after = _spent(on), _spent(off)
    with_, without = (statistics.median(column) for column in zip(*times, strict=True))
    yield Figure(
        what="median time of a new phone's registration, with against without the rations",
        measured=f"{with_ / without:.2f} times ({1000 * with_:.1f} ms, n={REGISTRATIONS})",
        must="≤ 1.05 times",
        reached=with_ / without <= 1.05,
        compared=f"without the rations: {1000 * without:.1f} ms",
        cores=PLACED.replace("attacker", "phones"),
    )
    for at, name in enumerate(("Asterisk", "ringfence")):
        more = (after[0][at] - before[0][at]) / (after[1][at] - before[1][at])
        yield Figure(
            what=f"CPU of {name} in these registrations, with against without the rations",
            measured=f"{more:.2f} times",
            must=f"≤ {MOST_OF_CPU} times: two runs differ by 3 %",
            reached=more <= MOST_OF_CPU,
            cores=PLACED.replace("attacker", "phones"),
        )


def _register(here: Bed, number: int) -> float:
    """Register a phone from a new address, whose neighbours come much later; return the seconds."""
    address = f"198.19.{number % 250}.{1 + number // 250}"
    with phones.phones_at(here.lab, address, ["phone1"]) as (phone,):
        began = time.perf_counter()
        if phone.register() != 200:
            raise RuntimeError(f"{address} could not register")
        return time.perf_counter() - began


def _spent(here: Bed) -> tuple[float, float]:
    """Return the CPU seconds of Asterisk and of the daemon so far."""
    return here.lab.asterisk.cpu_seconds(), cpu_seconds(here.guard.pid)


def _together(backend: str) -> Figure:
    """Register many new phones behind one address at the same moment."""
    accounts = [f"phone{number}" for number in range(1, phones.OFFICE + 1)]
    seconds: list[float] = []
    late = bans = 0
    with rationed(backend, BOTH) as here:
        for number in range(1, 2 * TRIALS + 1):
            with phones.phones_at(here.lab, f"198.19.{160 + number}.1", accounts) as office:
                times = phones.together(office, _timed)
            seconds += times
            late += sum(time > PHONE_SECONDS for time in times)
        bans = len(here.guard.bans())
    return Figure(
        what=f"{phones.OFFICE} new phones behind one address at once, {backend}: not registered after "
        f"{PHONE_SECONDS} s; bans",
        measured=f"{late} of {len(seconds)}; {bans}; seconds to register: {spread(seconds)}",
        must="0; 0",
        reached=(late, bans) == (0, 0),
        cores=PLACED.replace("attacker", "phones"),
    )


def _timed(phone: phones.Phone) -> float:
    """Register; return the seconds, or infinity if it fails."""
    began = time.perf_counter()
    return time.perf_counter() - began if phone.register() == 200 else math.inf
