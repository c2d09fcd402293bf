"""The test bed of a row: a new Asterisk, a new network and a new guard, each on its own cores.

The attackers run on the last core and the guard on the first one, so that an attack takes no processor time
from its guard. Asterisk may use every core.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from attrs import asdict, frozen
from tests.bench.fail2ban import Fail2ban
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded, preferred
from tests.support.lab import Lab

from ringfence.detect.rules import RULES
from ringfence.features.ration.settings import RationSettings

CORES = sorted(os.sched_getaffinity(0))
GUARD, ATTACKER = CORES[0], CORES[-1]
PLACED = f"guard {GUARD}, attacker {ATTACKER}, Asterisk {', '.join(map(str, CORES))}"
"""The cores of a row, as the table shows them."""

_PORTS, _CONTAINERS = 3.0, 1.5
"""Seconds after which the daemon has found Asterisk's ports, and then containers if there are any."""
_PREFIX = "fd00:20:0"
_ROUTER = "fd00:18::fffe"


def defended(backend: str) -> dict[str, object]:
    """Return the table ``firewall`` with the default limiter and rations, which a bed does not have."""
    ration = {
        name: str(value) if isinstance(value, str) else value
        for name, value in asdict(RationSettings()).items()
    }
    return {"backend": backend, "limit": {}, "ration": ration}


def until_defended(guard: Guard) -> None:
    """Wait until every ration drops packets."""

    def drop() -> bool:
        state = guard.ask("status")["firewall"]
        return {state[name] for name in ("ration", "asking") if name in state} == {"enforce"}

    until(drop, "the rations")


@frozen
class Bed:
    """A laboratory with ringfence as its guard."""

    lab: Lab
    guard: Guard


MOST_OF_BASE = 1.15
"""The most CPU time of ringfence, of that of an earlier commit; runs of one commit differ by a tenth."""


def environ_of(base: Path) -> dict[str, str]:
    """Return the environment of a daemon of an earlier commit, whose tree is ``base``."""
    return {"PYTHONPATH": str(base / "src")}


def only(**rules: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Return the tables of rules in which only these rules are enabled."""
    unknown = rules.keys() - {rule.name for rule in RULES}
    if unknown:
        raise ValueError(f"there is no rule {', '.join(sorted(unknown))}")
    return {rule.name: dict(rules.get(rule.name, {"enabled": False})) for rule in RULES}


OBSERVE = {"mode": "observe"}
"""The limiter only counts the packets that it would drop."""
GUESS = only(guess={})
"""The rule ``guess`` alone, with its defaults."""


@contextmanager
def bed(
    rules: Mapping[str, object] | None = None,
    *,
    release: str = "22",
    extra: Mapping[str, str] | None = None,
    priority: bool = True,
    placed: bool = True,
    folder: Path | None = None,
    **settings: Any,  # noqa: ANN401 - whatever TOML holds
) -> Iterator[Bed]:
    """Start an Asterisk and ringfence for one row; ``rules`` and ``settings`` are ringfence's tables.

    By default the backend is ipset, and the limiter drops nothing; ``firewall`` changes that. ``priority``
    gives the daemon the priority of the systemd unit. ``placed`` gives each process its cores; otherwise all
    share all cores. ``folder`` is the daemon's, which may hold its database; by default it is a new one.
    """
    tables = {**settings, **({"rules": rules} if rules is not None else {})}
    tables["firewall"] = {"backend": "ipset", "limit": OBSERVE, **settings.get("firewall", {})}
    with (
        Lab.made(release, extra) as lab,
        tempfile.TemporaryDirectory() as new,
        guarded(lab, folder or Path(new), **tables) as guard,
    ):
        if priority:
            preferred(guard)
        _until_planned(guard)
        with on_cores(lab.asterisk.pid, guard.pid) if placed else nullcontext():
            yield Bed(lab, guard)


def _until_planned(guard: Guard) -> None:
    """Wait until the daemon has added the rules for Asterisk's ports and for containers."""
    for what, seconds in ("sip_ports", _PORTS), ("containers", _CONTAINERS):
        changed = re.compile(rf"event=firewall\.changed what=\S*{what}")
        with suppress(AssertionError):  # it found none
            until(lambda changed=changed: changed.search(guard.log), what, seconds, 0.05)  # type: ignore[misc]


@contextmanager
def peer_bed(
    root: Path, maxretry: int = 5, log: str = "messages", extra: Mapping[str, str] | None = None
) -> Iterator[tuple[Lab, Fail2ban]]:
    """Start an Asterisk and fail2ban for one row."""
    with (
        Lab.made("22", extra) as lab,
        tempfile.TemporaryDirectory() as folder,
        Fail2ban(lab, root, Path(folder), maxretry=maxretry, log=log) as guard,
        on_cores(lab.asterisk.pid, guard.pid),
    ):
        yield lab, guard


@contextmanager
def on_cores(asterisk: int, *guards: int) -> Iterator[None]:
    """Pin the processes to their cores, and this one with its new children to the attacker's."""
    before = os.sched_getaffinity(0)
    _pin(asterisk, {*CORES})
    for guard in guards:
        _pin(guard, {GUARD})
    _pin(os.getpid(), {ATTACKER})
    try:
        yield
    finally:
        _pin(os.getpid(), before)


def _pin(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def route_prefixes(lab: Lab) -> None:
    """Route the networks of ``in_prefix`` to the attacker's side."""
    whole = f"{_PREFIX}::/48"
    lab.run("ip", "route", "add", whole, "via", _ROUTER)
    command = lab.network.in_attacker("ip", "route", "add", "local", whole, "dev", "lo")
    subprocess.run(command, check=True, timeout=10)


def in_prefix(number: int, host: str) -> str:
    """Return an address of the attacker's side in the /64 with this number."""
    return f"{_PREFIX}:{number:x}::{host}"
