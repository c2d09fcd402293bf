"""Ten thousand bans in ten seconds, while every channel of notifications hangs.

Each of ten thousand addresses makes one guess, and one guess is a ban. The time from a report to its ban is
that from the bytes of the manager interface to the line of the daemon's log, which it writes after the
kernel's acknowledgement. Runs with and without channels alternate. The channels are a mail server that never
answers, and two programs that never end.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.bench.crowd import packet
from tests.bench.figures import Figure, spread
from tests.bench.testbed import ATTACKER, GUARD, on_cores, only
from tests.support.daemon import Guard, ami_server, until
from tests.support.guarded import preferred
from tests.support.netns import netns
from tests.support.peers import raw_server
from tests.support.programs import program_service

NUMBER = 10_000
SECONDS = 10.0
RUNS = 3
MOST_SLOWER = 1.1
MOST_MESSAGES = 3

_BATCH = 10
_FIRST = IPv4Address("198.18.0.1")
_PLACED = re.compile(r"^timestamp=(\S+) .* event=ban\.placed address=([0-9.]+)/32 ", re.MULTILINE)
_FILTER = {"digest": "3s", "timeout": "5s"}


@frozen
class Run:
    """The time from report to ban of each address (milliseconds), and the messages of each channel."""

    delays: Sequence[float]
    messages: tuple[int, ...] = ()


def figures(_other: Path | None) -> Iterator[Figure]:
    """Yield the row."""
    runs: dict[bool, list[Run]] = {True: [], False: []}
    for _ in range(RUNS):
        for with_channels in (False, True):
            runs[with_channels].append(run(with_channels=with_channels))
    without, within = (
        [statistics.median(one.delays) for one in runs[with_channels]] for with_channels in (False, True)
    )
    ratio = statistics.median(within) / statistics.median(without)
    messages = max(number for one in runs[True] for number in one.messages)
    yield Figure(
        what=(
            f"{NUMBER} bans in {SECONDS:.0f} s with three channels that hang: time from report to ban, with "
            "against without (the median of each run); messages of a channel"
        ),
        measured=f"{ratio:.2f} times ({spread(within, ' ms')} against {spread(without, ' ms')}); {messages}",
        must=f"≤ {MOST_SLOWER} times; ≤ {MOST_MESSAGES}",
        reached=ratio <= MOST_SLOWER and messages <= MOST_MESSAGES,
        cores=f"guard and channels {GUARD}, attacker {ATTACKER}",
    )


def run(*, with_channels: bool) -> Run:
    """Ban all addresses once, and return the times."""
    tables: dict[str, Any] = {
        "rules": only(guess={"attempts": 1}),
        "firewall": {"backend": "nftables", "limit": {"mode": "off"}},
    }
    with (
        netns(),
        tempfile.TemporaryDirectory() as name,
        ami_server() as pbx,
        raw_server(lambda _: None) as port,
        program_service(Path(name)),
    ):
        folder = Path(name)
        if with_channels:
            tables["notify"] = _channels(folder, port)
        with Guard(folder, ami={"port": pbx.port}, **tables) as guard:
            preferred(guard)
            until(lambda: guard.source_is("listening"), "the source listens")
            with on_cores(guard.pid, os.getpid()):
                sent = _send(pbx.send)
                until(lambda: guard.ask("status")["placed"] == NUMBER, "the bans")
            channels = guard.ask("status")["notify"]
        placed = {address: _seconds(moment) for moment, address in _PLACED.findall(guard.log)}
    return Run(
        [1_000 * (placed[address] - moment) for address, moment in sent.items()],
        tuple(one["sent"] + (one["waiting"] > 0) for one in channels),
    )


def _channels(folder: Path, port: int) -> dict[str, list[dict[str, object]]]:
    """Return a channel of each kind, none of which ever answers."""
    program = folder / "hangs"
    program.write_text("#!/bin/sh\nexec sleep 3600\n", "utf-8")
    program.chmod(0o755)
    service = {"socket": str(folder / "notify.socket"), **_FILTER}
    (folder / "apprise.yml").write_text("urls: []\n", "utf-8")
    return {
        "mail": [{"to": ["root"], "port": port, **_FILTER}],
        "apprise": [{"config": str(folder / "apprise.yml"), "command": str(program), **service}],
        "hook": [{"command": [str(program)], **service}],
    }


def _send(send: Any) -> dict[str, float]:  # noqa: ANN401 - a method of the server
    """Send the events at an even rate; return the time of each address's event (wall clock)."""
    sent: dict[str, float] = {}
    began = time.monotonic()
    for start in range(0, NUMBER, _BATCH):
        time.sleep(max(0.0, began + SECONDS * start / NUMBER - time.monotonic()))
        addresses = [_FIRST + at for at in range(start, start + _BATCH)]
        packets = b"".join(packet(one, start + at, b"TCP") for at, one in enumerate(addresses))
        sent |= dict.fromkeys(map(str, addresses), time.time())
        send(packets)
    return sent


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
