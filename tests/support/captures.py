"""The recordings of a real Asterisk (tests/captures) as values: its messages, and the attempts behind them.

The bytes are as received and are always read as bytes. ``attempts`` is the number of attempts that the
client really made. A detector must count exactly these, from any source. It is None where a recording
only shows the shape of messages.
"""

import functools
import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from attrs import frozen

FOLDER = Path(__file__).parent.parent / "captures"
SETS = ("asterisk-16", "asterisk-22", "hostile-16", "hostile-22")
FORGED = IPv4Address("203.0.113.9")
"""The address that every forgery names. It never sent anything."""


@frozen
class Capture:
    """One scenario: its source address, its number of attempts, and the files that were recorded."""

    group: str
    name: str
    source: IPv4Address | IPv6Address
    attempts: int | None

    @property
    def ami(self) -> Path:
        """The bytes of the AMI stream."""
        return FOLDER / self.group / f"{self.name}.ami"

    @property
    def security_log(self) -> Path:
        """The lines that Asterisk added to the log channel of security events."""
        return FOLDER / self.group / f"{self.name}.security.log"

    @property
    def messages_log(self) -> Path:
        """The lines that Asterisk added to the log channel of notices, warnings and errors."""
        return FOLDER / self.group / f"{self.name}.messages.log"

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


@functools.cache
def captures() -> tuple[Capture, ...]:
    """Return every scenario, set by set, in the order of recording."""
    return tuple(capture for group in SETS for capture in _read(group))


def capture(group: str, name: str) -> Capture:
    """Return one scenario: ``capture("asterisk-22", "good-register")``."""
    return next(one for one in captures() if (one.group, one.name) == (group, name))


def _read(group: str) -> list[Capture]:
    index = json.loads((FOLDER / group / "index.json").read_text("utf-8"))
    return [
        Capture(group, entry["name"], ip_address(entry["source"]), entry["attempts"])
        for entry in index["scenarios"]
    ]
