"""Five thousand bans, while every channel of notifications hangs.

Each of five thousand addresses makes one guess, and one guess is a ban (:mod:`~tests.bench.delays`). Runs
with and without channels alternate. The channels are a mail server that never answers, and two programs that
never end.
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen
from tests.bench.delays import TABLES, ban_times
from tests.bench.figures import Figure, spread
from tests.bench.pace import slowness
from tests.bench.testbed import ATTACKER, GUARD
from tests.support.daemon import Guard, ami_server, until
from tests.support.guarded import preferred
from tests.support.netns import netns
from tests.support.peers import raw_server
from tests.support.programs import program_service

if TYPE_CHECKING:
    from socket import socket

NUMBER = 5_000
SECONDS = 10.0
"""The time of all bans at pace 1; a slow machine gets more. At 1,000 bans a second, it only queues them."""
RUNS = 5
MOST_SLOWER = 1.2
"""Runs without channels differ by a fifth from each other, which is one thousandth of a second."""
MOST_MESSAGES = 3
PROGRAMS = ("apprise-hangs", "hook-hangs")
"""The programs of two channels. Each start of one leaves a file of its name, with a dot and a number."""

_FILTER = {"digest": "3s", "timeout": "5s"}


@frozen
class Run:
    """The time from report to ban of each address (milliseconds), and how often each channel was tried."""

    delays: Sequence[float]
    messages: tuple[int, ...] = ()


def figures(_other: Path | None) -> Iterator[Figure]:
    """Yield the row."""
    runs: dict[bool, list[Run]] = {True: [], False: []}
    seconds = SECONDS * slowness()
    for _ in range(RUNS):
        for with_channels in (False, True):
            runs[with_channels].append(run(seconds, with_channels=with_channels))
    without, within = (
        [statistics.median(one.delays) for one in runs[with_channels]] for with_channels in (False, True)
    )
    ratio = statistics.median(within) / statistics.median(without)
    messages = [number for one in runs[True] for number in one.messages]
    yield Figure(
        what=(
            f"{NUMBER} bans in {SECONDS:.0f} s at pace 1 with three channels that hang: time from report to "
            "ban, with against without (the median of each run); messages of a channel"
        ),
        measured=f"{ratio:.2f} times ({spread(within, ' ms')} against {spread(without, ' ms')}); "
        + spread(messages),
        must=f"≤ {MOST_SLOWER} times; 1 to {MOST_MESSAGES} by each channel",
        reached=ratio <= MOST_SLOWER and min(messages) >= 1 and max(messages) <= MOST_MESSAGES,
        cores=f"guard and channels {GUARD}, attacker {ATTACKER}",
    )


def run(seconds: float, *, with_channels: bool) -> Run:
    """Ban all addresses once, within so many seconds, and return the times."""
    tables = dict(TABLES)
    connections: list[socket] = []
    with (
        netns(),
        tempfile.TemporaryDirectory() as name,
        ami_server() as pbx,
        raw_server(connections.append) as port,
        program_service(Path(name)),
    ):
        folder = Path(name)
        if with_channels:
            tables["notify"] = _channels(folder, port)
        with Guard(folder, ami={"port": pbx.port}, **tables) as guard:
            preferred(guard)
            until(lambda: guard.source_is("listening"), "the source listens")
            [delays] = ban_times([(guard, pbx)], NUMBER, seconds)
        starts = (len(list(folder.glob(f"{name}.*"))) for name in PROGRAMS)
        return Run(delays, (len(connections), *starts) if with_channels else ())


def _channels(folder: Path, port: int) -> dict[str, list[dict[str, object]]]:
    """Return a channel of each kind, none of which ever answers."""
    apprise, hook = (folder / name for name in PROGRAMS)
    for program in (apprise, hook):
        program.write_text('#!/bin/sh\ntouch "$0.$$"\nexec sleep 3600\n', "utf-8")
        program.chmod(0o755)
    service = {"socket": str(folder / "notify.socket"), **_FILTER}
    (folder / "apprise.yml").write_text("urls: []\n", "utf-8")
    return {
        "mail": [{"to": ["root"], "port": port, **_FILTER}],
        "apprise": [{"config": str(folder / "apprise.yml"), "command": str(apprise), **service}],
        "hook": [{"command": [str(hook)], **service}],
    }
