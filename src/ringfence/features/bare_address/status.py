"""The line of the rule ``bare_address`` in ``ringfence status``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.plurals import counted


def lines(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the status line of the rule, with True (all is well); nothing if it is off."""
    found = report.get("bare_address")
    if found is None:
        return
    requests = counted(report["bare_requests"], "request")
    friends = counted(found["without_name"], "friend")
    shown = f"{requests} of strangers for no name of this PBX; so ask {friends}"
    yield f"domains   {found['mode']}: {shown}", True
