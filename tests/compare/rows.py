"""The rows of the comparison: each is an attack, or a cost, that is measured with every guard.

Each row has a new network, Asterisk and guard, and each trial senders of its own.
"""

import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from attrs import frozen
from tests.bench.attacks import PIPELINED, UDP, guessing, pipelined
from tests.bench.busy import PHONES, SECONDS, busy
from tests.bench.figures import spread
from tests.bench.packets import VOICE, packet_time
from tests.bench.testbed import on_cores
from tests.compare.guards import Guard, Running, in_kernel
from tests.support import open_pbx
from tests.support.captures import FORGED
from tests.support.company import configured
from tests.support.forger import Forger, quiet
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in
from tests.support.process import resident
from tests.support.sip_raw import Raw, calling, guesses

RELEASE = "22"
"""Of Asterisk."""
TRIALS = 3
ATTACKERS = 200
SLOW, APART = 10, 12
"""The guesses of a slow guesser, and the seconds between them."""
MANY = 300
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

Measure = Callable[[Guard], str]


@frozen
class Row:
    """What is measured, and how. ``brief`` rows are in the README too, also those in which rivals are better.

    A row that is measured ``together`` mostly waits, so that it is measured with all guards at the same time.
    """

    what: str
    measure: Measure
    brief: bool = False
    together: bool = False


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
            *("guess", "--number", "60", "--silences", "3", "--reuse-nonce", "--parallel", str(ATTACKERS)),
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
        return len(guesses(caller, Raw(call_id=b"\xff{}"), MANY))


def _blamed(guard: Guard) -> str:
    found = []
    with guarded(guard) as (lab, running):
        for number in range(1, TRIALS + 1):
            attack = ("guess", "--number", str(MANY), "--sources", UDP.source(number), *_BLAMING)
            found.append(_reached(lab.attack(*attack).answered))
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
    with Lab.made(RELEASE) as lab, tempfile.TemporaryDirectory() as folder:
        prepared = guard.prepare(lab, Path(folder), BANS)
        began = time.monotonic()
        seen: list[tuple[float, int]] = []

        def look() -> None:
            while not seen or (seen[-1][1] < len(BANS) and seen[-1][0] < _ALL_WITHIN):
                seen.append((time.monotonic() - began, in_kernel(lab, BANS)))
                time.sleep(0.2 + seen[-1][0] / 20)  # a look takes a processor as long as some bans

        looking = threading.Thread(target=look)
        looking.start()
        with prepared:
            looking.join()
    seconds, made = seen[-1]
    return f"{seconds:.1f} s" if made == len(BANS) else f"{made} after {seconds:.0f} s"


def _busy(guard: Guard) -> str:
    """Measure the CPU time of the guard and of Asterisk, while phones call with media."""

    @contextmanager
    def company() -> Iterator[tuple[Lab, Sequence[int]]]:
        with guarded(guard, configured(PHONES)) as (lab, running):
            yield lab, running.pids

    _, found = busy(company())
    failed = found.done["unregistered"] + found.done["uncalled"]
    return f"{found.guard:.2f} s; {found.asterisk:.2f} s" + (f"; {failed} failed" if failed else "")


def _voice(guard: Guard) -> str:
    """Measure the processor time of a packet of voice from a stranger, and of one to it, with one ban."""
    arriving, leaving = [], []
    with guarded(guard) as (lab, running):
        _reached(lab.attack("guess", "--number", str(MANY), "--sources", UDP.source(1)).answered)
        running.settle()
        with (
            socket_in(lab.network.pbx, kind=socket.SOCK_DGRAM) as here,
            socket_in(lab.network.attacker, kind=socket.SOCK_DGRAM) as there,
        ):
            here.bind((PBX_IPV4, VOICE))
            there.bind((UDP.source(2), VOICE))
            here.connect(there.getsockname())
            there.connect(here.getsockname())
            for _ in range(_ROUNDS):
                arriving.append(packet_time(there))
                leaving.append(packet_time(here))
    return " and ".join(f"{statistics.median(times) * 1e6:.2f} µs" for times in (arriving, leaving))


def _memory(guard: Guard) -> str:
    if not guard.version:
        return _NOTHING
    with guarded(guard) as (_, running):
        return f"{sum(map(resident, running.pids)) / 1_000_000:.1f} MB"


ROWS: Sequence[Row] = (
    Row("guesses answered, one after the other", answered(guessing(UDP)), brief=True),
    Row(f"{PIPELINED} guesses at once: answered", answered(pipelined), brief=True),
    Row(f"{ATTACKERS} addresses guess at once: answers to the one with most", answered(_crowd)),
    Row(f"{SLOW} guesses, one each {APART} s: answered", _slow, brief=True, together=True),
    Row(f"{MANY} guesses without a security event of Asterisk: answered", answered(_hidden), brief=True),
    Row(f"{MANY} guesses that make the log name another address: answered", _blamed, brief=True),
    Row(f"{FORGED_PACKETS} packets with a registered phone's address: phones cut off", _phones, brief=True),
    Row("a new phone tries one unknown account once: banned", _newcomers),
    Row(f"start with {len(BANS)} bans, as after a boot: until the kernel has all", _start, brief=True),
    Row(
        f"CPU in {SECONDS:.0f} s with {PHONES} phones that call, and scanners: the guard; Asterisk",
        _busy,
        brief=True,
    ),
    Row("CPU of a packet of voice from a stranger, and of one to it", _voice, brief=True),
    Row("memory at rest, of all processes", _memory, brief=True),
)
