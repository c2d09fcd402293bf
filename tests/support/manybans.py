"""A great many bans: networks, a store that remembers them, and what a command takes to list them."""

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

from ringfence.model import Ban, Network, Origin, Scope
from ringfence.store import Store

ATTEMPTS = 5
SECONDS = 86_400.0
_PART = 5_000  # bans in one transaction
_IPV4, _IPV6, _PREFIXES = 0x64400000, 0xFD000009 << 96, 0x0A000000  # 100.64/10, fd00:9::, 10/8

# Its own memory is a floor of some 10 MB: what a process had before it became another counts for the other.
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
class Spent:
    """What a command took: seconds from its start to its end, and its most memory (bytes)."""

    seconds: float
    peak: int


def addresses(number: int) -> list[Network]:
    """Give so many addresses of IPv4."""
    return [IPv4Network(_IPV4 + n) for n in range(number)]


def mixed(number: int) -> list[Network]:
    """Give so many networks: half of them a /24, one in ten an address of IPv6, the rest of IPv4."""
    half, tenth = number // 2, number // 10
    prefixes: list[Network] = [IPv4Network((_PREFIXES + (n << 8), 24)) for n in range(half)]
    return [
        *prefixes,
        *(IPv6Network(_IPV6 + n) for n in range(tenth)),
        *addresses(number - half - tenth),
    ]


def fill(path: Path, networks: Sequence[Network]) -> None:
    """Make a store in which all of these are banned from now on for a day, each for five attempts."""
    now = time.time()
    with Store.open(path, owner=True) as store:
        bans = _bans(networks, now)
        while part := list(islice(bans, _PART)):
            store.record(part)


def _bans(networks: Sequence[Network], now: float) -> Iterator[Ban]:
    for place, network in enumerate(networks):
        since = now - 60.0 + place / len(networks)
        made = tuple(
            evolve(ATTEMPT, address=network.network_address, time=since - ATTEMPTS + n)
            for n in range(ATTEMPTS)
        )
        yield Ban(network, since, since + SECONDS, "guess", "somebody tries", Origin.RULE, made, Scope.FULL)


def spent(output: Path, *command: str) -> Spent:
    """Run a command whose output goes to a file; give what it took."""
    said = subprocess.run(
        [sys.executable, "-S", "-c", _WATCHED, str(output), *command],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(said.stdout)
    if found["code"]:
        raise RuntimeError(f"{' '.join(command)} failed with {found['code']}: {said.stderr}")
    return Spent(found["seconds"], found["peak"])
