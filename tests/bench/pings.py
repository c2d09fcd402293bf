"""Bans of senders that ask without credentials: carriers and monitors that ping, and scanners of accounts.

A ping is an OPTIONS that no ``identify`` matches, as from an SBC (one account for all) or a monitor (an
account that exists). An hour of pings, one every 29 s, is sent within seconds. chan_sip reports no OPTIONS,
and by TLS they cannot be read, so there the pings of PJSIP alone are measured.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, Bed, bed
from tests.support import open_pbx
from tests.support.pings import AN_HOUR, TRANSPORTS, ask

ACCOUNTS = [str(number) for number in range(700, 720)]
_MONITOR, _SBC = "alice", "s"
_BANNED_WITHIN = 5.0
_PINGED = {"22": TRANSPORTS, "16": ("UDP", "TCP")}


def figures(_: Path | None) -> Iterator[Figure]:
    """Yield the rows."""
    for release, transports in _PINGED.items():
        with bed(release=release, extra=open_pbx.configured(release)) as here:
            for number, transport in enumerate(transports, 1):
                yield _pings(here, release, transport, f"198.19.{number}.")
            if release == "22":
                for number, method in enumerate(("OPTIONS", "REGISTER", "INVITE"), 11):
                    yield _scan(here, method, f"198.19.{number}.7")


def _pings(here: Bed, release: str, transport: str, network: str) -> Figure:
    answered = {
        source: ask(here.lab, source, [account] * AN_HOUR, transport)
        for source, account in ((f"{network}1", _SBC), (f"{network}2", _MONITOR))
    }
    time.sleep(_BANNED_WITHIN)
    bans = [row for row in here.guard.bans() if row["address"] in answered]
    attempts = sum(len(here.guard.ask("why", network=source)["attempts"]) for source in answered)
    whole = all(number == AN_HOUR for number in answered.values())
    return Figure(
        what=(
            f"OPTIONS of a monitor and of an SBC without identify, {AN_HOUR} each (an hour of one every "
            f"29 s), {transport}, Asterisk {release}: bans, attempts"
        ),
        measured=f"{len(bans)}, {attempts}" + ("" if whole else "; not all were answered"),
        must="0, 0",
        reached=whole and not bans and not attempts,
        cores=PLACED,
    )


def _scan(here: Bed, method: str, source: str) -> Figure:
    answered = ask(here.lab, source, ACCOUNTS, method=method.encode(), pause=0.1)
    end = time.monotonic() + _BANNED_WITHIN
    rules: list[str] = []
    while not rules and time.monotonic() < end:
        time.sleep(0.1)
        rules = [row["rule"] for row in here.guard.bans() if row["address"] == source]
    return Figure(
        what=f"{method} without credentials for {len(ACCOUNTS)} accounts: banned by, answered",
        measured=f"{', '.join(rules) or 'nothing'}, {answered}",
        must="enumeration",
        reached=rules == ["enumeration"],
        cores=PLACED,
    )
