"""What ringfence costs: CPU beside Asterisk's own, memory at rest, decoding, and the first sign of life."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panoramisk.message import Message
from tests.bench.fail2ban import Fail2ban
from tests.bench.figures import Figure, spread
from tests.support.captures import captures
from tests.support.daemon import Guard
from tests.support.guarded import NO_LOGS, NO_WIRE, guarded
from tests.support.lab import Lab
from tests.support.process import cpu_seconds, resident

from ringfence.model import SourceId
from ringfence.parse.ami import END, AmiDecoder

SOURCES = 20
GUESSES = 500
"""From each source: 10 000 in all, and none reaches the threshold."""
THRESHOLD = 1_000
MEBIBYTE = 2**20
DECODED_BYTES = 24 * MEBIBYTE
CHUNK = 4096
ROUNDS = 7


def share_of_asterisk(lab: Lab, pid: int, network: str, seen: Callable[[], bool]) -> float:
    """Let 10 000 guesses run; give the CPU of ``pid`` as a part of Asterisk's own in that time."""
    before = cpu_seconds(pid), lab.asterisk.cpu_seconds()
    lab.attack(
        *("guess", "--number", str(GUESSES), "--sources", f"198.19.{network}.1-198.19.{network}.{SOURCES}"),
        *("--parallel", "2", "--seconds", "200"),
    )
    while not seen():
        time.sleep(0.2)
    after = cpu_seconds(pid), lab.asterisk.cpu_seconds()
    return (after[0] - before[0]) / (after[1] - before[1])


def ours(lab: Lab, network: str, **sources: Any) -> tuple[float, int]:  # noqa: ANN401 - whatever TOML holds
    """Measure ringfence with these sources: its share of CPU under load, and its memory at rest (bytes)."""
    rules = {"guess": {"attempts": THRESHOLD}}
    with tempfile.TemporaryDirectory() as folder, guarded(lab, Path(folder), rules=rules, **sources) as guard:
        time.sleep(2)
        memory = resident(guard.pid)
        share = share_of_asterisk(lab, guard.pid, network, _Read(guard))
    return share, memory


class _Read:
    """Says whether a guard has counted every guess, and its sources have nothing more to tell."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._events = -1

    def __call__(self) -> bool:
        status = self._guard.status()
        before, self._events = self._events, sum(source["events"] for source in status["sources"])
        return bool(status["attempts"] >= SOURCES * GUESSES and before == self._events)


def theirs(lab: Lab, root: Path) -> tuple[float, int]:
    """Measure fail2ban in the same way."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Fail2ban(lab, root, Path(folder), maxretry=THRESHOLD) as guard,
    ):
        memory = resident(guard.pid)

        def seen() -> bool:
            guard.settle()
            return True

        share = share_of_asterisk(lab, guard.pid, "41", seen)
    return share, memory


def decoding() -> list[float]:
    """Time bytes → security events against panoramisk's Message.from_line on the same bytes; give ratios."""
    recorded = b"".join(c.ami.read_bytes() for c in captures() if c.group == "asterisk-22")
    stream = recorded * (DECODED_BYTES // len(recorded))
    texts = [packet.decode("utf-8", "replace") for packet in stream.split(END) if packet]
    ratios = []
    for _ in range(ROUNDS):
        theirs = _timed(partial(_from_lines, texts))
        decoder = AmiDecoder(SourceId("bench", "ami"))
        decoder.feed(b"Asterisk Call Manager/11.0.0\r\n", 0.0)
        ours = _timed(partial(_feed, decoder, stream))
        ratios.append(theirs / ours)
    return ratios


def first_sign() -> list[float]:
    """Time `ringfence --help` against the import of what it cannot do without; give ratios."""
    ours = [sys.executable, "-m", "ringfence", "--help"]
    bare = [sys.executable, "-c", "import typer, rich.table"]
    for command in (ours, bare):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [_timed(lambda: _run(ours)) / _timed(lambda: _run(bare)) for _ in range(ROUNDS)]


def figures(lab: Lab, root: Path | None) -> list[Figure]:
    """Measure, and give the rows."""
    share, memory = ours(lab, "40", logs=NO_LOGS, wire=NO_WIRE)
    share_of_all, memory_of_all = ours(lab, "42")
    other_share, other_memory = theirs(lab, root) if root else (None, None)
    decoded, sign = decoding(), first_sign()
    load = f"CPU while {SOURCES * GUESSES} guesses run and nothing is banned, of Asterisk's own"
    return [
        Figure(
            what=f"{load}: AMI alone",
            measured=f"{share:.0%}",
            must="≤ 25 %",
            reached=share <= 0.25,
            compared=f"fail2ban: {other_share:.0%}" if other_share is not None else "",
        ),
        Figure(
            what=f"{load}: all three sources",
            measured=f"{share_of_all:.0%}",
            must="≤ 40 %",
            reached=share_of_all <= 0.40,
        ),
        Figure(
            what="bytes → events a second, of panoramisk's `Message.from_line` alone",
            measured=spread(decoded, " times"),
            must="≥ 1.0 times",
            reached=sorted(decoded)[len(decoded) // 2] >= 1.0,
        ),
        Figure(
            what="resident memory at rest: AMI alone",
            measured=f"{memory / MEBIBYTE:.0f} MiB",
            must="≤ 50 MB",
            reached=memory <= 50_000_000,
            compared=f"fail2ban: {other_memory / MEBIBYTE:.0f} MiB" if other_memory is not None else "",
        ),
        Figure(
            what="resident memory at rest: all three sources",
            measured=f"{memory_of_all / MEBIBYTE:.0f} MiB",
            must="≤ 60 MB",
            reached=memory_of_all <= 60_000_000,
        ),
        Figure(
            what="`ringfence --help`, of `python -c 'import typer, rich.table'`",
            measured=spread(sign, " times"),
            must="≤ 2 times",
            reached=sorted(sign)[len(sign) // 2] <= 2.0,
        ),
    ]


def _feed(decoder: AmiDecoder, stream: bytes) -> None:
    for start in range(0, len(stream), CHUNK):
        decoder.feed(stream[start : start + CHUNK], 0.0)


def _from_lines(texts: Sequence[str]) -> None:
    for text in texts:  # none is kept, as none of ours is
        Message.from_line(text)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
