"""How fast the past is told again, beside fail2ban-regex on the same logs, and in how much memory a long one.

The logs are lines that a real Asterisk wrote, again and again with other addresses, Call-IDs and times. What
is timed is the whole process, from its start to its end, ringfence and fail2ban by turns.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count, cycle, islice
from pathlib import Path

from attrs import frozen
from tests.bench.figures import Figure, spread
from tests.support.captures import Capture, capture
from tests.support.lab import Lab

LINES = 200_000
LONG = 1_000_000_000
"""Bytes of the long log."""

ROUNDS = 5
GUESSES_OF_ONE = 40
BETWEEN = 0.007  # seconds from one guess to the next
START = 1_795_154_722.0
MEBIBYTE = 2**20

_TIME = re.compile(rb"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d\.\d{3}")
_SESSION = re.compile(rb'SessionID="([^"]+)"|\(callid: ([^)]+)\)')


@frozen
class Guess:
    """The lines that a real Asterisk wrote of one guess, or of one good registration."""

    lines: bytes
    address: bytes
    session: bytes

    @classmethod
    def recorded(cls, recording: Capture, log: Path) -> "Guess":
        """Take the first one of a recording."""
        lines = log.read_bytes().splitlines(keepends=True)
        sessions = [b"".join(found.groups(b"")) for found in map(_SESSION.search, lines) if found is not None]
        first = b"".join(line for line in lines if sessions[0] in line)
        return cls(first, str(recording.source).encode(), sessions[0])

    def again(self, number: int) -> bytes:
        """Write it as if it were another one, later and from elsewhere."""
        moment = datetime.fromtimestamp(START + number * BETWEEN, UTC)
        date, clock = f"{moment:%Y-%m-%d}".encode(), f"{moment:%H:%M:%S.%f}"[:-3].encode()
        sender = number // GUESSES_OF_ONE
        address = b"198.%d.%d.%d" % (18 + sender // 65_536 % 2, sender // 256 % 256, sender % 256)
        session = b"%016x" % (number * 0x9E37_79B9_7F4A_7C15 % 2**64)
        lines = _TIME.sub(lambda found: date + found[1] + clock, self.lines)
        return lines.replace(self.session, session).replace(self.address, address)


def security() -> Iterator[bytes]:
    """Give the lines of a log of security events: wrong passwords, unknown accounts, a phone now and then."""
    wrong, unknown, good = (
        Guess.recorded(recording, recording.security_log)
        for recording in (
            capture("asterisk-22", "wrong-password-register"),
            capture("asterisk-22", "unknown-account-register"),
            capture("asterisk-22", "good-register"),
        )
    )
    return _lines([wrong, unknown, wrong, good])


def notices() -> Iterator[bytes]:
    """Give the lines of a log of notices: unknown accounts, and wrong passwords."""
    wrong, unknown = (
        Guess.recorded(recording, recording.messages_log)
        for recording in (
            capture("asterisk-22", "wrong-password-register"),
            capture("asterisk-22", "unknown-account-register"),
        )
    )
    return _lines([unknown, wrong])


def _lines(guesses: Sequence[Guess]) -> Iterator[bytes]:
    for number, guess in zip(count(), cycle(guesses), strict=False):
        yield from guess.again(number).splitlines(keepends=True)


def write(path: Path, lines: Iterator[bytes], *, size: int = 0) -> None:
    """Write a log of ``LINES`` lines, or of so many bytes."""
    with path.open("wb") as file:
        if not size:
            file.writelines(islice(lines, LINES))
        while file.tell() < size:
            file.writelines(islice(lines, LINES))


def ours(log: Path) -> list[str]:
    """Give the command that tells a log again."""
    return [str(Path(sys.executable).with_name("ringfence")), "replay", "--json", str(log)]


def theirs(root: Path, log: Path) -> list[str]:
    """Give fail2ban's, with the filter that it has for Asterisk."""
    etc = root / "etc/fail2ban"
    program = root / "usr/bin/fail2ban-regex"
    return [
        "/usr/bin/python3", str(program), "-c", str(etc), "--usedns", "no", "--print-no-missed",
        str(log), str(etc / "filter.d/asterisk.conf"),
    ]  # fmt: skip


def seconds(command: Sequence[str], root: Path | None = None) -> float:
    """Time a whole process."""
    packages = {"PYTHONPATH": str(root / "usr/lib/python3/dist-packages")} if root else {}
    began = time.perf_counter()
    subprocess.run(command, env=os.environ | packages, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def rates(log: Path, root: Path | None) -> tuple[list[float], list[float]]:
    """Give the lines a second of both, by turns."""
    mine, others = [], []
    for _ in range(ROUNDS):
        mine.append(LINES / seconds(ours(log)))
        if root is not None:
            others.append(LINES / seconds(theirs(root, log), root))
    return mine, others


def memory(log: Path) -> tuple[int, int]:
    """Tell a log again; give the most memory that all its processes had at once (bytes), and the lines."""
    most = 0
    with tempfile.TemporaryFile() as out, subprocess.Popen(ours(log), stdout=out) as process:
        while process.poll() is None:
            most = max(most, sum(map(_resident, _family(process.pid))))
            time.sleep(0.02)
        out.seek(0)
        return most, json.load(out)["lines"]


def _family(pid: int) -> list[int]:
    """Give a process and those that it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:  # it has ended meanwhile
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _resident(pid: int) -> int:
    """Give a process' resident memory (bytes): what two of them share counts in both."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _speed(what: str, log: Path, root: Path | None) -> Figure:
    mine, others = rates(log, root)
    ratio = statistics.median(mine) / statistics.median(others) if others else None
    return Figure(
        what=f"`replay` of {LINES} lines of {what}, lines a second",
        measured=spread([round(rate) for rate in mine]) + (f", {ratio:.1f} times" if ratio else ""),
        must="≥ 3 times fail2ban-regex",
        reached=None if ratio is None else ratio >= 3,
        compared=f"fail2ban-regex: {spread([round(rate) for rate in others])}" if others else "",
    )


def figures(_: Lab, root: Path | None) -> list[Figure]:
    """Measure, and give the rows."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        rows = []
        for what, lines in (("a log of security events", security()), ("a log of notices", notices())):
            write(log, lines)
            rows.append(_speed(what, log, root))
        write(log, security(), size=LONG)
        most, number = memory(log)
    return [
        *rows,
        Figure(
            what=f"`replay` of a log of {LONG / 1e9:.0f} GB, {number} lines: memory of all its processes",
            measured=f"{most / MEBIBYTE:.0f} MiB",
            must="≤ 100 MB",
            reached=most <= 100_000_000,
        ),
    ]
