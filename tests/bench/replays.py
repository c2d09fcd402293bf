"""The speed of a replay, compared with fail2ban-regex on the same logs, and its memory for a long log.

The logs repeat lines of a real Asterisk with other addresses, Call-IDs and times. The whole process is timed,
from its start to its end, with ringfence and fail2ban in turn.
"""

import json
import os
import re
import resource
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

LINES = 100_000
LONG = 400_000_000
"""The size of the long log (bytes)."""

ROUNDS = 3
LEAST = 0.5
"""The least speed, of that of fail2ban-regex.

It matches lines, and a replay also judges: of an attack from many phones' addresses it looks at each. 100 000
lines take seconds.
"""
GUESSES_OF_ONE = 40
BETWEEN = 0.007  # seconds from one guess to the next
START = 1_795_154_722.0
MEGABYTE = 1_000_000
MOST = 120 * MEGABYTE
"""The most memory: less than a third of the long log, which must not be held in memory."""

_TIME = re.compile(rb"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d\.\d{3}")
_SESSION = re.compile(rb'SessionID="([^"]+)"|\(callid: ([^)]+)\)')


@frozen
class Guess:
    """The lines of a real Asterisk about one guess, or about one good registration."""

    lines: bytes
    address: bytes
    session: bytes

    @classmethod
    def recorded(cls, recording: Capture, log: Path) -> "Guess":
        """Return the first guess of a recording."""
        lines = log.read_bytes().splitlines(keepends=True)
        sessions = [b"".join(found.groups(b"")) for found in map(_SESSION.search, lines) if found is not None]
        first = b"".join(line for line in lines if sessions[0] in line)
        return cls(first, str(recording.source).encode(), sessions[0])

    def again(self, number: int) -> bytes:
        """Return the lines with another time and another address."""
        moment = datetime.fromtimestamp(START + number * BETWEEN, UTC)
        date, clock = f"{moment:%Y-%m-%d}".encode(), f"{moment:%H:%M:%S.%f}"[:-3].encode()
        sender = number // GUESSES_OF_ONE
        address = b"198.%d.%d.%d" % (18 + sender // 65_536 % 2, sender // 256 % 256, sender % 256)
        session = b"%016x" % (number * 0x9E37_79B9_7F4A_7C15 % 2**64)
        lines = _TIME.sub(lambda found: date + found[1] + clock, self.lines)
        return lines.replace(self.session, session).replace(self.address, address)


def security() -> Iterator[bytes]:
    """Yield the lines of a log of security events: wrong passwords, unknown accounts, sometimes a phone."""
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
    """Yield the lines of a log of notices: unknown accounts, and wrong passwords."""
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
    """Write a log of ``LINES`` lines, or of ``size`` bytes."""
    with path.open("wb") as file:
        if not size:
            file.writelines(islice(lines, LINES))
        while file.tell() < size:
            file.writelines(islice(lines, LINES))


def ours(log: Path) -> list[str]:
    """Return the command that replays a log."""
    return [str(Path(sys.executable).with_name("ringfence")), "replay", "--json", str(log)]


def theirs(root: Path, log: Path) -> list[str]:
    """Return the command of fail2ban, with its filter for Asterisk."""
    etc = root / "etc/fail2ban"
    program = root / "usr/bin/fail2ban-regex"
    return [
        "/usr/bin/python3", str(program), "-c", str(etc), "--usedns", "no", "--print-no-missed",
        str(log), str(etc / "filter.d/asterisk.conf"),
    ]  # fmt: skip


@frozen
class Times:
    """The cost of one run: seconds on the clock, and seconds of processors."""

    wall: float
    cpu: float


def timed(command: Sequence[str], root: Path | None = None) -> Times:
    """Time a command from its start to its end."""
    packages = {"PYTHONPATH": str(root / "usr/lib/python3/dist-packages")} if root else {}
    began, worked = time.perf_counter(), _cpu_of_children()
    subprocess.run(command, env=os.environ | packages, stdout=subprocess.DEVNULL, check=True)
    return Times(time.perf_counter() - began, _cpu_of_children() - worked)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def race(log: Path, root: Path | None) -> tuple[list[Times], list[Times]]:
    """Time both, in turn."""
    mine, others = [], []
    for _ in range(ROUNDS):
        mine.append(timed(ours(log)))
        if root is not None:
            others.append(timed(theirs(root, log), root))
    return mine, others


def memory(log: Path) -> tuple[int, int]:
    """Replay a log; return the largest memory of the process (bytes), and the lines."""
    most = 0
    with tempfile.TemporaryFile() as out, subprocess.Popen(ours(log), stdout=out) as process:
        while process.poll() is None:
            most = max(most, _resident(process.pid))
            time.sleep(0.02)
        out.seek(0)
        return most, json.load(out)["lines"]


def _resident(pid: int) -> int:
    """Return the largest resident memory of a process so far (bytes)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _speed(what: str, log: Path, root: Path | None) -> Figure:
    mine, others = race(log, root)
    ratio = _median_rate(mine) / _median_rate(others) if others else None
    measured = _rates(mine)
    if ratio is not None:
        busy = statistics.median(one.cpu for one in others) / statistics.median(one.cpu for one in mine)
        measured += f", {ratio:.1f} times ({busy:.1f} times for each second of a processor)"
    return Figure(
        what=f"`replay` of {LINES} lines of {what}, lines a second",
        measured=measured,
        must=f"median ≥ {LEAST} times fail2ban-regex, which matches lines and judges nothing",
        reached=None if ratio is None else ratio >= LEAST,
        compared=f"fail2ban-regex {_rates(others)}" if others else "",
    )


def _rates(runs: Sequence[Times]) -> str:
    return spread([round(LINES / one.wall) for one in runs])


def _median_rate(runs: Sequence[Times]) -> float:
    return LINES / statistics.median(one.wall for one in runs)


def figures(root: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        for what, lines in (("a log of security events", security()), ("a log of notices", notices())):
            write(log, lines)
            yield _speed(what, log, root)
        write(log, security(), size=LONG)
        most, number = memory(log)
    yield Figure(
        what=f"`replay` of a log of {LONG // MEGABYTE} MB, {number} lines: memory",
        measured=f"{most / MEGABYTE:.0f} MB",
        must=f"≤ {MOST // MEGABYTE} MB",
        reached=most <= MOST,
    )
