"""The line of the limiter in ``ringfence status``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.status import limit_lines
from ringfence.plurals import counted


def lines(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the status line of the limit on packets, with True (all is well), unless the limit is off."""
    packets = counted(report["limiter_drops"], "packet")
    return limit_lines(report, "limiter", packets, "over the limit", waits=report["limiter_waits"])
