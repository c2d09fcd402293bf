"""The corpus of log lines (tests/corpus): its files as values. Its README describes the format."""

import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from attrs import define, evolve

from ringfence.parse.line_result import LineResult
from ringfence.parse.log import LogReader
from ringfence.values.event import SecurityEvent, SourceId

FOLDER = Path(__file__).parent.parent / "corpus"
FILES = sorted(FOLDER.glob("*.txt"))
SOURCE = SourceId("pbx", "log:messages")
_CLOCK = "2026-11-20T06:10:00+00:00"
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")


@define
class Sample:
    """One message and the expected result of each of its lines."""

    file: str
    number: int
    now: float
    zone: str
    lines: list[bytes]
    yields: list[str]

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"

    @property
    def data(self) -> bytes:
        """The bytes of a log that holds only this message."""
        return b"".join(line + b"\n" for line in self.lines)

    def read(self) -> list[LineResult]:
        """Return the results of its lines."""
        reader = LogReader(SOURCE, timezone=ZoneInfo(self.zone))
        return reader.receive(self.data, self.now) + reader.end(self.now)


def samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of one file."""
    sample = Sample(path.name, 1, datetime.fromisoformat(_CLOCK).timestamp(), "UTC", [], [])
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.startswith(b"=> "):
            sample.yields.append(line[3:].decode())
            continue
        if sample.yields:
            yield sample
            sample = evolve(sample, number=number, lines=[], yields=[])
        if line.startswith(b"# now: "):
            sample.now = datetime.fromisoformat(line[7:].decode()).timestamp()
        elif line.startswith(b"# zone: "):
            sample.zone = line[8:].decode()
        elif line and not line.startswith(b"#"):
            sample.lines.append(_ESCAPE.sub(_unescaped, line))
    if sample.yields:
        yield sample


def expected_values(text: str) -> dict[str, str]:
    """Return the expected values of an event."""
    return dict(word.split("=", 1) for word in shlex.split(text))


def as_text(event: SecurityEvent) -> dict[str, str]:
    """Return an event as text, in the form of the corpus."""
    return {
        "kind": event.kind,
        "service": event.service,
        "address": str(event.remote.address),
        "port": str(event.remote.port),
        "transport": event.remote.transport,
        "account": event.account,
        "session": event.session.decode("utf-8", "backslashreplace"),
        "acl": event.acl_name,
        "time": f"{event.time:.3f}".rstrip("0").rstrip("."),
        "tampered": "yes" if event.tampered else "no",
        "witness": event.source.name.removeprefix(SOURCE.name + "#"),
        "challenge": event.challenge.decode(),
        "response": event.response.decode(),
    }


def _unescaped(match: re.Match[bytes]) -> bytes:
    said = match[1]
    if said[:1] == b"x":
        return bytes([int(said[1:], 16)])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"e": b""}.get(said, said)
