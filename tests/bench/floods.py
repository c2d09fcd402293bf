"""The answers of a real Asterisk to very many requests at once, while the guard reads every source.

- Guesses sent without waiting for answers, against the kernel's limiter.
- Two hundred guessers at the same time, each waiting for the answer to its last guess.
- A flood from an allowed address, while another address guesses.

Each row has its own Asterisk and daemon, and each trial its own addresses.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen
from tests.bench.attacks import PIPELINED, PIPELINED_TRIALS, THRESHOLD, UDP
from tests.bench.figures import Figure, spread, unrationed
from tests.bench.testbed import GUESS, PLACED, bed, in_prefix, route_prefixes
from tests.support.daemon import Guard
from tests.support.sip import Result

BACKENDS = ("ipset", "nftables")
BURSTS = (60, 200)
RATE = 50
MORE = 5  # answers beyond the burst
CROWD = 200
CROWD_GUESSES = 500
FLOOD = 3_000  # guesses a second
FLOOD_SECONDS = 28  # a nonce of Asterisk is valid for 32
FLOODER = "198.19.60.1"
BESIDE_TRIALS = 6
BESIDE_GUESSES = 3_000
_REST = 0.05


@frozen
class Ahead:
    """One way to send guesses without waiting for answers."""

    backend: str
    transport: str
    burst: int

    @property
    def name(self) -> str:
        """The name of this way in the row."""
        way = "in one TCP stream" if self.transport == "TCP" else "over UDP"
        return f"{way}, burst {self.burst}, {self.backend}"


AHEAD = tuple(
    Ahead(backend, transport, burst)
    for backend, transports in (("ipset", ("UDP", "TCP")), ("nftables", ("UDP",)))
    for burst in BURSTS
    for transport in transports
)
"""Both backends treat a TCP stream like datagrams, so one backend is enough for streams."""


def ahead(way: Ahead) -> list[int]:
    """Send all guesses at once; return the answered guesses of each trial."""
    limit = {"mode": "enforce", "rate": RATE, "burst": way.burst}
    found = []
    with bed(GUESS, firewall={"backend": way.backend, "limit": limit}) as here:
        for trial in range(1, PIPELINED_TRIALS + 1):
            result = here.lab.attack(
                *("pipeline", "--transport", way.transport, "--number", str(PIPELINED)),
                *("--sources", UDP.source(trial)),
            )
            found.append(result.answered)
            time.sleep(_REST)
    return found


def crowd(backend: str) -> list[int]:
    """Run two hundred guessers at once, half by IPv6, each in its own /64; return the answers."""
    half = CROWD // 2
    ipv4 = f"198.19.70.1-198.19.70.{half}"
    ipv6 = ",".join(in_prefix(number, "1") for number in range(1, half + 1))
    with bed(GUESS, firewall={"backend": backend}) as here:
        route_prefixes(here.lab)
        attacks = [
            here.lab.start_attack(
                *("guess", "--number", str(CROWD_GUESSES), "--parallel", str(half), "--timeout", "2"),
                *("--target", target, "--sources", sources),
            )
            for target, sources in (("198.18.0.1:5060", ipv4), ("[fd00:18::1]:5060", ipv6))
        ]
        return [answered for attack in attacks for answered in attack.result().by_source.values()]


def beside(backend: str) -> tuple[list[int], Result]:
    """Guess during a flood from an allowed address; return the answers to the guessers and to the flood."""
    allow = {"networks": [f"{FLOODER}/32"]}
    with bed(GUESS, firewall={"backend": backend}, allow=allow) as here:
        flooder = here.lab.start_attack(
            *("pipeline", "--number", str(FLOOD * FLOOD_SECONDS), "--rate", str(FLOOD)),
            *("--seconds", "60", "--sources", FLOODER),
        )
        try:
            time.sleep(2)
            found = []
            for trial in range(1, BESIDE_TRIALS + 1):
                result = here.lab.attack(
                    *("guess", "--number", str(BESIDE_GUESSES), "--timeout", "0.5"),
                    *("--sources", UDP.source(trial)),
                )
                found.append(result.answered)
            if not flooder.at_work:
                raise RuntimeError("the flood ended before the last trial")
            flood = flooder.result()
        finally:
            flooder.stop()
        _require_no_ban(here.guard)
        return found, flood


def _require_no_ban(guard: Guard) -> None:
    if FLOODER in guard.banned():
        raise RuntimeError(f"{FLOODER} is allowed, and was banned")


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows; part `attacks` has fail2ban's row for guesses sent without waiting."""
    for way in AHEAD:
        yield _ahead(way, ahead(way))
    for backend in BACKENDS:
        yield _crowd(backend, crowd(backend))
    for backend in BACKENDS:
        yield _beside(backend, *beside(backend))


def _ahead(way: Ahead, found: Sequence[int]) -> Figure:
    return Figure(
        what=f"{PIPELINED} guesses at once with one nonce, the limiter enforcing, answered: {way.name}",
        measured=spread(found),
        must=f"1 to {way.burst + MORE} in every trial",
        reached=min(found) >= 1 and max(found) <= way.burst + MORE,
        cores=PLACED,
    )


def _crowd(backend: str, found: Sequence[int]) -> Figure:
    must, reached = unrationed(found, THRESHOLD + 1)
    return Figure(
        what=f"{CROWD} addresses of IPv4 and IPv6 guess at once, answers to each: {backend}",
        measured=spread(found),
        must=must,
        reached=reached and len(found) == CROWD,
        cores=PLACED,
    )


def _beside(backend: str, found: Sequence[int], flood: Result) -> Figure:
    speed = f"{flood.sent / flood.seconds:.0f} sent and {flood.per_second:.0f} answered a second"
    must, reached = unrationed(found, THRESHOLD + 1)
    return Figure(
        what=f"answers to a guesser while somebody who is allowed floods: {backend}",
        measured=f"{spread(found)}; the flood: {speed}",
        must=must,
        reached=reached,
        cores=PLACED,
    )
