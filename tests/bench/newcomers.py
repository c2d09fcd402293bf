"""The effect of one wrong attempt by a new address: each kind of attempt, from each source.

Each attempt comes from its own address, on chan_sip and on PJSIP, and asks for the name of the PBX. ringfence
reads AMI alone, the log alone, both, and both with the wire. All rules are on: no rule may ban after one
attempt. With the wire, strangers that ask for no name are banned, and so are logins elsewhere.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, bed, peer_bed
from tests.support import iax
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.daemon import Guard
from tests.support.guarded import NO_LOGS, NO_WIRE
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in
from tests.support.phones import NAME

TRIALS = 3
_PATIENCE = 7.0
"""Seconds: a bit longer than the wire waits for the reports of Asterisk."""

AMI, LOG = "AMI", "log"
EITHER = frozenset({AMI, LOG})
SOURCES: dict[str, tuple[frozenset[str], dict[str, Any]]] = {
    "AMI": (frozenset({AMI}), {"logs": NO_LOGS, "wire": NO_WIRE}),
    "log": (frozenset({LOG}), {"ami": {"enabled": False}, "wire": NO_WIRE}),
    "both": (EITHER, {"wire": NO_WIRE}),
    "both and wire": (
        EITHER,
        {"bare_address": {"mode": "enforce", "domains": [NAME]}, "account": {"elsewhere": "block"}},
    ),
}
MANAGER = (
    f"\n[general](+)\nbindaddr = {PBX_IPV4}\n"  # an address besides loopback
    "\n[ringfence](+)\npermit = 0.0.0.0/0.0.0.0\n"
)


@frozen
class Kind:
    """A kind of wrong attempt: the function that makes it from an address, and the sources that report it."""

    name: str
    make: Callable[[Lab, str], object]
    reported_by: frozenset[str] = EITHER


def _sip(*options: str, mode: str = "guess") -> Callable[[Lab, str], object]:
    return lambda lab, source: lab.attack(
        mode, *options, "--sources", source, "--timeout", "2", "--domain", NAME
    )


def _log_in(lab: Lab, source: str) -> None:
    """Log in to the manager interface with a user that does not exist."""
    with socket_in(lab.network.attacker) as connection:
        connection.bind((source, 0))
        connection.settimeout(10)
        connection.connect((PBX_IPV4, MANAGER_PORT))
        connection.sendall(b"Action: Login\r\nUsername: root\r\nSecret: wrong\r\n\r\n")
        while connection.recv(4096):
            pass


def _iax(account: str) -> Callable[[Lab, str], object]:
    return lambda lab, source: iax.guess(lab, source, account)


_AT_5080 = ("--target", f"{PBX_IPV4}:5080")
KINDS = {
    "22": (
        Kind("PJSIP, unknown account", _sip("--account", "nobody")),
        Kind("PJSIP, wrong password", _sip()),
        Kind("PJSIP, wrong password by TCP", _sip("--transport", "TCP")),
        Kind("PJSIP, call with a wrong password", _sip("--method", "INVITE")),
        Kind("PJSIP, ACL", _sip("--account", "locked")),
        Kind("IAX2, unknown account", _iax("nobody"), frozenset({LOG})),
        Kind("IAX2, wrong password", _iax(iax.ACCOUNT), frozenset({LOG})),
        Kind("AMI login", _log_in),
    ),
    "16": (
        Kind("chan_sip, unknown account", _sip("--account", "nobody")),
        Kind("chan_sip, wrong password", _sip("--account", "bob")),
        Kind("chan_sip, ACL", _sip("--account", "aclbob")),
        Kind(
            "chan_sip, call to an unknown extension",
            _sip("--method", "INVITE", "--extension", "900441", "--account", "nobody", mode="probe"),
        ),
        Kind("PJSIP, unknown account", _sip("--account", "nobody", *_AT_5080)),
        Kind("PJSIP, wrong password", _sip(*_AT_5080)),
    ),
}


@frozen
class Cost:
    """The counts of one attempt, and the addresses that were banned for it."""

    kind: str
    sources: str
    attempts: int
    bans: int


def costs(release: str, sources: str, network: str) -> Iterator[Cost]:
    """Make one attempt of each kind that these sources can report; yield its cost."""
    kinds, settings = SOURCES[sources]
    settings = {**settings, "ami": {"host": PBX_IPV4, **settings.get("ami", {})}}
    extra = {"manager.conf": MANAGER, **iax.configured()}
    with bed(release=release, extra=extra, **settings) as here:
        lab, guard = here.lab, here.guard
        for last, kind in enumerate(KINDS[release], 1):
            if not kinds & kind.reported_by:
                continue
            before = guard.ask("status")["attempts"]
            kind.make(lab, f"{network}.{last}")
            _rest(guard, before)
            status = guard.ask("status")
            yield Cost(kind.name, sources, status["attempts"] - before, len(guard.bans()))


def _rest(guard: Guard, before: int) -> None:
    """Wait until an attempt is counted, and as long again in case a second one is counted."""
    deadline = time.monotonic() + _PATIENCE
    while guard.ask("status")["attempts"] == before and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)


def theirs(root: Path) -> int:
    """Return the number of new addresses that fail2ban bans after one guess on an unknown account."""
    sources = [f"198.19.240.{trial}" for trial in range(1, TRIALS + 1)]
    with peer_bed(root, log="ringfence") as (lab, guard):
        for source in sources:
            lab.attack("guess", "--account", "nobody", "--sources", source)
        guard.settle()
        return len(guard.banned() & set(sources))


def figures(root: Path | None) -> list[Figure]:
    """Measure both, and return the row."""
    found = [
        cost
        for number, release in enumerate(KINDS)
        for at, sources in enumerate(SOURCES)
        for cost in costs(release, sources, f"198.19.{230 + 4 * number + at}")
    ]
    wrong = [f"{cost.kind}, {cost.sources}: {cost.attempts}" for cost in found if cost.attempts != 1]
    bans = max(cost.bans for cost in found)
    return [
        Figure(
            what="one wrong attempt by a newcomer, any kind, any source; with the wire, `elsewhere` is "
            '"block" and `bare_address` enforced: counts, bans',
            measured=f"{len(found) - len(wrong)} of {len(found)} count 1, {bans}"
            + (f"; {'; '.join(wrong)}" if wrong else ""),
            must="all count 1, 0",
            reached=not wrong and not bans,
            compared=(
                f"fail2ban bans {theirs(root)} of {TRIALS} after one guess for an unknown account"
                if root
                else ""
            ),
            cores=PLACED,
        )
    ]
