"""The rows of the comparison: each is an attack, or a cost, that is measured with every guard.

Each row has a new network, Asterisk and guard, and each trial senders of its own.
"""

import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from attrs import evolve, frozen
from tests.bench.attacks import PIPELINED, SEQUENTIAL, UDP, guessing, pipelined
from tests.bench.busy import PHONES
from tests.bench.figures import spread
from tests.bench.packets import VOICE, packet_time
from tests.bench.testbed import on_cores
from tests.compare.busy import PERIODS, SECONDS, costs
from tests.compare.guards import Guard, Running, in_kernel
from tests.support import open_pbx
from tests.support.captures import FORGED
from tests.support.company import configured
from tests.support.forger import Forger, quiet
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, Network, socket_in
from tests.support.process import resident
from tests.support.sip_raw import Raw, calling, guesses

RELEASE = "22"
"""Of Asterisk."""
TRIALS = 3
TURNS = 2
"""The trials of a row with a company of phones: each takes more than a minute with each guard."""
ATTACKERS, EACH = 200, 60
"""The addresses that guess at once, and the guesses of each."""
SLOW, APART = 8, 12
"""The guesses of a slow guesser, more than each guard permits in a row, and the seconds between them."""
PACED, PAUSE = 150, 0.02
"""The guesses of an attacker who gives each guard seconds to react, and the seconds between them.

At full speed they would show how fast a guard is, and not whether it sees them.
"""
MANY = 300
"""The guesses of the sender who is banned while packets are measured."""
FORGED_PACKETS = 7
BANS: Sequence[IPv4Network] = [IPv4Network(0x64400001 + 2 * number) for number in range(10_000)]
"""Every second address of a part of 100.64.0.0/10: neighbours might be listed as one range."""
_ALL_WITHIN = 120.0
"""Seconds until all bans are in the kernel, or the count is the figure."""
_ROUNDS = 201
_NOTHING = "-"
"""The cell of a row that has no meaning without a guard."""
_BLAMING = (
    *("--call-id", rf"{{}}\xffm\" <sip:a@h>' failed for '{FORGED}:5060' (callid: zz{{}}"),
    *("--display", r'"x\x1b" '),
)
"""Text in a request that makes Asterisk's log name another address (:mod:`tests.bench.hostile`)."""

_COMPANY = (
    f"CPU in {PERIODS * SECONDS:.0f} s with {PHONES} phones that call, half of the time with media, and "
    "scanners: the guard; Asterisk"
)
_FORGING = f"{FORGED_PACKETS} packets with a registered phone's address: phones cut off"
_PACED_GUESSES = f"{PACED} guesses, {1000 * PAUSE:.0f} ms apart,"
_AS_LATER = "as on later days"
"""The cell of a first day, with a guard that learns nothing about phones."""

Measured = str | tuple[float, ...]
"""The text of a cell, or the times (seconds) that one of its trials found."""
Measure = Callable[[Guard], Measured]


@frozen
class Row:
    """What is measured, and how. ``brief`` rows are in the README too, also those in which rivals are better.

    A row that is measured ``together`` mostly waits, so that it is measured with all guards at the same time.
    In a row with several ``turns``, each guard has one trial in each turn: the speed of a machine changes
    within minutes.
    """

    what: str
    measure: Measure
    brief: bool = False
    together: bool = False
    turns: int = 1


def shown(trials: Sequence[Measured]) -> str:
    """Return the cell of these trials: the first text if there is one, or else the spread of each time."""
    texts = [one for one in trials if isinstance(one, str)]
    times = [one for one in trials if not isinstance(one, str)]
    return texts[0] if texts else "; ".join(spread(series, " s") for series in zip(*times, strict=True))


@contextmanager
def guarded(
    guard: Guard, asterisk: Mapping[str, str] | None = None, bans: Sequence[IPv4Network] = ()
) -> Iterator[tuple[Lab, Running]]:
    """Start an Asterisk with this configuration, and its guard."""
    with (
        Lab.made(RELEASE, asterisk) as lab,
        tempfile.TemporaryDirectory() as folder,
        guard.prepare(lab, Path(folder), bans) as running,
        on_cores(lab.asterisk.pid, *running.pids),
    ):
        yield lab, running


def answered(trial: Callable[[Lab, int], int]) -> Measure:
    """Return the measure that makes several trials; each returns the number of guesses that were answered."""

    def measure(guard: Guard) -> str:
        found = []
        with guarded(guard, open_pbx.configured(RELEASE)) as (lab, running):
            for number in range(1, TRIALS + 1):
                found.append(_reached(trial(lab, number)))
                running.settle()
        return spread(found)

    return measure


def _reached(answers: int) -> int:
    """Return ``answers``; raise RuntimeError if there are none: the attack did not reach Asterisk."""
    if not answers:
        raise RuntimeError("no answer at all: the attack did not reach Asterisk")
    return answers


def _crowd(lab: Lab, number: int) -> int:
    """Guess from many addresses at once; return the most answers to one of them."""
    return max(
        lab.attack(
            *("guess", "--number", str(EACH), "--silences", "3", "--reuse-nonce"),
            *("--parallel", str(ATTACKERS)),
            *("--sources", f"198.19.{130 + number}.1-198.19.{130 + number}.{ATTACKERS}"),
        ).by_source.values()
    )


def _slowly(lab: Lab, number: int) -> int:
    most = ("--number", str(SLOW), "--pause", str(APART), "--seconds", str(2 * SLOW * APART))
    return lab.attack("guess", *most, "--sources", UDP.source(number)).answered


def _slow(guard: Guard) -> str:
    with guarded(guard) as (lab, _):
        return str(_reached(_slowly(lab, 1)))


def _hidden(lab: Lab, number: int) -> int:
    """Guess with a Call-ID that is not UTF-8: Asterisk writes no security event about it."""
    with calling(lab, UDP.source(number)) as caller:
        return len(guesses(caller, Raw(call_id=b"\xff{}"), PACED, pause=PAUSE))


def _blamed(guard: Guard) -> str:
    found = []
    with guarded(guard) as (lab, running):
        for number in range(1, TRIALS + 1):
            attack = ("guess", "--number", str(PACED), "--pause", str(PAUSE), *_BLAMING)
            found.append(_reached(lab.attack(*attack, "--sources", UDP.source(number)).answered))
            running.settle()
        other = str(FORGED) in running.banned()
    return f"{spread(found)}; the other address {'banned' if other else 'not banned'}"


def _phones(guard: Guard) -> str:
    """Forge packets from the addresses of registered phones, and count the phones that are cut off."""
    cut, scopes = 0, set()
    with guarded(guard) as (lab, running):
        quiet(lab)
        for number in range(1, TRIALS + 1):
            phone = f"198.18.1.{20 + number}"
            register = ("register", "--sources", phone)
            if not lab.attack(*register).answered:
                raise RuntimeError(f"the phone at {phone} could not register")
            running.settle()
            Forger(lab, phone, 1, FORGED_PACKETS, 20.0).sent()
            running.settle()
            cut += not lab.attack(*register).answered
            scopes |= {scope for address, scope in running.banned().items() if address == phone}
    return f"{cut} of {TRIALS}" + (f" ({', '.join(sorted(scopes))})" if scopes else "")


def _newcomers(guard: Guard) -> str:
    sources = {f"198.19.240.{number}" for number in range(1, TRIALS + 1)}
    with guarded(guard) as (lab, running):
        for source in sorted(sources):
            _reached(lab.attack("guess", "--account", "nobody", "--sources", source).answered)
        running.settle()
        return f"{len(sources & running.banned().keys())} of {TRIALS}"


def _start(guard: Guard) -> str:
    """Start the guard with many bans in its database; return the seconds until the kernel has all."""
    if not guard.version:
        return _NOTHING
    with (
        ThreadPoolExecutor(1) as threads,
        Lab.made(RELEASE) as lab,
        tempfile.TemporaryDirectory() as folder,
    ):
        prepared = guard.prepare(lab, Path(folder), BANS)
        began = time.monotonic()

        def look() -> tuple[float, int]:
            while True:
                seconds, made = time.monotonic() - began, in_kernel(lab, BANS)
                if made == len(BANS) or seconds >= _ALL_WITHIN:
                    return seconds, made
                time.sleep(0.2 + seconds / 20)  # a look takes a processor as long as some bans

        looking = threads.submit(look)
        with prepared:
            seconds, made = looking.result()
    return f"{seconds:.1f} s" if made == len(BANS) else f"{made} after {seconds:.0f} s"


def _first_day(guard: Guard) -> Measured:
    """Measure the CPU time of a guard to which all phones are new, and of Asterisk."""
    return _AS_LATER if guard.prepare_later is None else _with_company(guard)


def _later(guard: Guard) -> Measured:
    """Measure the CPU time of the guard and of Asterisk on a day on which the guard knows the phones."""
    return _with_company(evolve(guard, prepare=guard.prepare_later or guard.prepare))


def _with_company(guard: Guard) -> tuple[float, float]:
    with guarded(guard, configured(PHONES)) as (lab, running):
        return costs(lab, running.pids)


def _voice(guard: Guard) -> str:
    """Measure the processor time of a packet of voice from a stranger, and of one to it, with one ban.

    Each round also measures a network without a guard: the speed of a machine changes from one second to the
    next.
    """
    with guarded(guard) as (lab, running), Network() as bare:
        _reached(lab.attack("guess", "--number", str(MANY), "--sources", UDP.source(1)).answered)
        running.settle()
        with _voice_ends(lab.network) as ours, _voice_ends(bare) as others:
            senders = [end for pair in zip(ours, others, strict=True) for end in pair]
            rounds = [[packet_time(sender) for sender in senders] for _ in range(_ROUNDS)]
    arriving, arriving_bare, leaving, leaving_bare = zip(*rounds, strict=True)
    return f"{_against(arriving, arriving_bare)} and {_against(leaving, leaving_bare)}"


@contextmanager
def _voice_ends(network: Network) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield the sockets of a stranger and of the PBX, both at a port of voice, connected, never read."""
    with (
        socket_in(network.attacker, kind=socket.SOCK_DGRAM) as there,
        socket_in(network.pbx, kind=socket.SOCK_DGRAM) as here,
    ):
        here.bind((PBX_IPV4, VOICE))
        there.bind((UDP.source(2), VOICE))
        here.connect(there.getsockname())
        there.connect(here.getsockname())
        yield there, here


def _against(times: Sequence[float], bare: Sequence[float]) -> str:
    """Return the times of some rounds, against those without a guard in the same rounds."""
    pairs = [*zip(times, bare, strict=True)]
    ratio = statistics.median(one / other for one, other in pairs)
    more = statistics.median(1e6 * (one - other) for one, other in pairs)
    return f"{ratio:.2f} times ({more:+.2f} µs)"


def _memory(guard: Guard) -> str:
    if not guard.version:
        return _NOTHING
    with guarded(guard) as (_, running):
        return f"{sum(map(resident, running.pids)) / 1_000_000:.1f} MB"


ROWS: Sequence[Row] = (
    Row(f"{SEQUENTIAL} guesses, one after the other: answered", answered(guessing(UDP)), brief=True),
    Row(f"{PIPELINED} guesses at once: answered", answered(pipelined), brief=True),
    Row(f"{ATTACKERS} addresses, {EACH} guesses each at once: most answers to one of them", answered(_crowd)),
    Row(f"{SLOW} guesses, one each {APART} s: answered", _slow, brief=True, together=True),
    Row(f"{_PACED_GUESSES} without a security event of Asterisk: answered", answered(_hidden), brief=True),
    Row(f"{_PACED_GUESSES} that make the log name another address: answered", _blamed, brief=True),
    Row(_FORGING, _phones, brief=True, together=True),
    Row("a new phone tries one unknown account once: banned", _newcomers, together=True),
    Row(f"start with {len(BANS)} bans, as after a boot: until the kernel has all", _start, brief=True),
    Row(f"{_COMPANY}, on later days", _later, brief=True, turns=TURNS),
    Row(f"{_COMPANY}, on the guard's first day", _first_day, brief=True, turns=TURNS),
    Row("CPU of a packet of voice from a stranger, and of one to it, against no guard", _voice, brief=True),
    Row("memory at rest, of all processes", _memory, brief=True),
)
