"""What comes through when very much comes at once: to a real Asterisk, with every source heard.

- Guesses sent ahead without waiting, against the kernel's limiter.
- Two hundred who guess at the same time, each after the answer to the guess before.
- One who floods and may, since he is allowed, while another guesses.

Every trial comes from an address that was never seen before.
"""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from tests.bench.attacks import PIPELINED, PIPELINED_TRIALS, THRESHOLD
from tests.bench.figures import Figure, spread
from tests.support.guarded import guarded, preferred
from tests.support.lab import Lab
from tests.support.sip import Result

BACKENDS = ("ipset", "nftables")
BURSTS = (60, 200)
RATE = 50
MORE = 5  # answers beyond the burst
CROWD = 200
CROWD_GUESSES = 500
CROWD_MORE = 3
FLOOD = 3_000  # guesses a second
FLOOD_SECONDS = 16  # a nonce of Asterisk's is good for 32
FLOODER = "198.19.60.1"
BESIDE_TRIALS = 5
BESIDE_GUESSES = 3_000
_REST = 0.05
_PLANNED = 1.5  # seconds after the start, by when the ports are found


@frozen
class Ahead:
    """One way of sending guesses ahead: the network of its trials' sources belongs to it alone."""

    backend: str
    transport: str
    burst: int
    network: int

    @property
    def name(self) -> str:
        """What people call it."""
        over = "in one TCP stream" if self.transport == "TCP" else "over UDP"
        return f"{over}, burst {self.burst}, {self.backend}"


AHEAD = tuple(
    Ahead(backend, transport, burst, 50 + number)
    for number, (backend, burst, transport) in enumerate(
        (backend, burst, transport)
        for backend, transports in (("ipset", ("UDP", "TCP")), ("nftables", ("UDP",)))
        for burst in BURSTS
        for transport in transports
    )
)
"""How packets come makes no difference to a backend: one of them shows what a stream makes of the limiter."""


def ahead(lab: Lab, backend: str, burst: int) -> dict[Ahead, list[int]]:
    """Let guessers send everything at once, on every way; give the answered guesses of each trial."""
    limit = {"mode": "enforce", "rate": RATE, "burst": burst}
    firewall = {"backend": backend, "limit": limit}
    found: dict[Ahead, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder, guarded(lab, Path(folder), firewall=firewall) as guard:
        preferred(guard)
        time.sleep(_PLANNED)
        for way in AHEAD:
            if (way.backend, way.burst) != (backend, burst):
                continue
            for trial in range(1, PIPELINED_TRIALS + 1):
                result = lab.attack(
                    *("pipeline", "--transport", way.transport, "--number", str(PIPELINED)),
                    *("--sources", f"198.19.{way.network}.{trial}"),
                )
                found.setdefault(way, []).append(result.answered)
                time.sleep(_REST)
    return found


def crowd(lab: Lab, backend: str, part: int) -> list[int]:
    """Let two hundred guess at once, half of them by IPv6, each in a /64 of his own; give the answers."""
    half = CROWD // 2
    _route_prefixes(lab, part)
    ipv4 = f"198.19.{part}.1-198.19.{part}.{half}"
    ipv6 = ",".join(f"{_prefix(part)}:{number:x}::1" for number in range(1, half + 1))
    with (
        tempfile.TemporaryDirectory() as folder,
        guarded(lab, Path(folder), firewall={"backend": backend}) as guard,
    ):
        preferred(guard)
        time.sleep(_PLANNED)
        attacks = [
            lab.start_attack(
                *("guess", "--number", str(CROWD_GUESSES), "--parallel", str(half), "--timeout", "2"),
                *("--target", target, "--sources", sources),
            )
            for target, sources in (("198.18.0.1:5060", ipv4), ("[fd00:18::1]:5060", ipv6))
        ]
        return [answered for attack in attacks for answered in attack.result().by_source.values()]


def _prefix(part: int) -> str:
    return f"fd00:{part:x}:0"


def _route_prefixes(lab: Lab, part: int) -> None:
    """Have prefixes of IPv6 at the attacker's side, as many as there are guessers."""
    whole = f"{_prefix(part)}::/48"
    lab.run("ip", "route", "add", whole, "via", "fd00:18::a")
    subprocess.run(
        lab.network.in_attacker("ip", "route", "add", "local", whole, "dev", "lo"), check=True, timeout=10
    )


def beside(lab: Lab, backend: str, part: int) -> tuple[list[int], Result]:
    """Let one flood who is allowed to, and others guess meanwhile; give their answers, and his."""
    with (
        tempfile.TemporaryDirectory() as folder,
        guarded(
            lab, Path(folder), firewall={"backend": backend}, allow={"networks": [f"{FLOODER}/32"]}
        ) as guard,
    ):
        preferred(guard)
        time.sleep(_PLANNED)
        flooder = lab.start_attack(
            *("pipeline", "--number", str(FLOOD * FLOOD_SECONDS), "--rate", str(FLOOD)),
            *("--seconds", "60", "--sources", FLOODER),
        )
        try:
            time.sleep(2)
            found = []
            for trial in range(1, BESIDE_TRIALS + 1):
                result = lab.attack(
                    *("guess", "--number", str(BESIDE_GUESSES), "--timeout", "1"),
                    *("--sources", f"198.19.{part}.{trial}"),
                )
                found.append(result.answered)
                time.sleep(0.5)
            flood = flooder.result()
        finally:
            flooder.stop()
        if FLOODER in guard.banned():
            raise RuntimeError("who is allowed was banned")
        return found, flood


def figures(lab: Lab, _: Path | None) -> list[Figure]:
    """Measure, and give the rows; what fail2ban does with guesses sent ahead is among the attacks."""
    rows = []
    for backend in BACKENDS:
        for burst in BURSTS:
            rows += [_ahead(way, found) for way, found in ahead(lab, backend, burst).items()]
    for number, backend in enumerate(BACKENDS):
        rows.append(_crowd(backend, crowd(lab, backend, 70 + number)))
    for number, backend in enumerate(BACKENDS):
        rows.append(_beside(backend, *beside(lab, backend, 80 + number)))
    return rows


def _ahead(way: Ahead, found: Sequence[int]) -> Figure:
    return Figure(
        what=f"{PIPELINED} guesses at once with one nonce, the limiter enforcing, answered: {way.name}",
        measured=spread(found),
        must=f"≤ {way.burst + MORE} in every trial",
        reached=max(found) <= way.burst + MORE,
    )


def _crowd(backend: str, found: Sequence[int]) -> Figure:
    return Figure(
        what=f"{CROWD} addresses of IPv4 and IPv6 guess at once, answers to each: {backend}",
        measured=spread(found),
        must=f"≤ {THRESHOLD + CROWD_MORE} to each",
        reached=len(found) == CROWD and max(found) <= THRESHOLD + CROWD_MORE,
    )


def _beside(backend: str, found: Sequence[int], flood: Result) -> Figure:
    speed = f"{flood.sent / flood.seconds:.0f} sent and {flood.per_second:.0f} answered a second"
    return Figure(
        what=f"answers to a guesser while somebody who is allowed floods: {backend}",
        measured=f"{spread(found)}; the flood: {speed}",
        must=f"≤ {THRESHOLD + 1} in every trial",
        reached=max(found) <= THRESHOLD + 1,
    )
