"""Very many bans: networks, a store with their bans, and the cost of a command that lists them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from pathlib import Path

from attrs import evolve, frozen
from tests.support.attempts import ATTEMPT

from ringfence.store.database import Store
from ringfence.values.ban import Ban, Origin, Scope
from ringfence.values.network import Network

ATTEMPTS = 5
SECONDS = 86_400.0
_PART = 5_000  # bans in one transaction
_IPV4, _IPV6, _PREFIXES = 0x64400000, 0xFD000009 << 96, 0x0A000000  # 100.64/10, fd00:9::, 10/8

# A new process inherits the memory peak of its parent: the figure is never below this program's own 10 MB.
_WATCHED = """\
import json, resource, subprocess, sys, time
began = time.perf_counter()
with open(sys.argv[1], "wb") as output:
    code = subprocess.run(sys.argv[2:], stdout=output).returncode
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"code": code, "seconds": seconds, "peak": peak}))
"""


@frozen
class Cost:
    """The cost of a command: seconds from its start to its end, and its largest memory (bytes)."""

    seconds: float
    peak: int


def addresses(number: int) -> list[Network]:
    """Return ``number`` IPv4 addresses."""
    return [IPv4Network(_IPV4 + n) for n in range(number)]


def mixed(number: int) -> list[Network]:
    """Return ``number`` networks: half are /24 networks, a tenth IPv6 addresses, the rest IPv4 addresses."""
    half, tenth = number // 2, number // 10
    prefixes: list[Network] = [IPv4Network((_PREFIXES + (n << 8), 24)) for n in range(half)]
    return [
        *prefixes,
        *(IPv6Network(_IPV6 + n) for n in range(tenth)),
        *addresses(number - half - tenth),
    ]


def fill(path: Path, networks: Sequence[Network]) -> None:
    """Create a store with a ban of each network for a day from now on, each with five attempts."""
    now = time.time()
    with Store.open(path, owner=True) as store:
        bans = _bans(networks, now)
        while part := list(islice(bans, _PART)):
            store.bans.record(part)


def _bans(networks: Sequence[Network], now: float) -> Iterator[Ban]:
    for index, network in enumerate(networks):
        since = now - 60.0 + index / len(networks)
        made = tuple(
            evolve(ATTEMPT, address=network.network_address, time=since - ATTEMPTS + n)
            for n in range(ATTEMPTS)
        )
        yield Ban(
            network,
            since=since,
            expires=since + SECONDS,
            rule="guess",
            reason="somebody tries",
            origin=Origin.RULE,
            attempts=made,
            scope=Scope.FULL,
        )


def cost_of(output: Path, *command: str) -> Cost:
    """Run a command whose output goes to a file, and return its cost."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _WATCHED, str(output), *command],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    if found["code"]:
        raise RuntimeError(f"{' '.join(command)} failed with {found['code']}: {done.stderr}")
    return Cost(found["seconds"], found["peak"])
