"""The lines of the rations in ``ringfence status``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.status import limit_lines
from ringfence.plurals import counted

_OVER = "over the ration"


def lines(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the status line of each limit on strangers' packets that is on, with True (all is well)."""
    refused, asked = counted(report["rationed"], "packet"), counted(report["asked"], "packet")
    yield from limit_lines(report, "ration", f"{refused} to strangers", _OVER)
    yield from limit_lines(report, "asking", f"{asked} from strangers", _OVER, waits=report["asking_waits"])
