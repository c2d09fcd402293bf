"""The line of the fence in ``ringfence status``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.output import short_time
from ringfence.cli.status import UNTIL_KNOWN
from ringfence.plurals import counted


def lines(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the status line of the fence, with True (all is well); nothing if the fence is off.

    It has the mode, the trial, the packets from outside, and the number of friends that were outside.
    """
    fence = report["fence"]
    if fence["configured"] == "off":
        return
    waits = UNTIL_KNOWN if report["fence_waits"] else ""
    trial = "" if fence["trial"] is None else f", a trial until {short_time(fence['trial'])}"
    packets = "unknown, as nothing is dropped or counted"
    if fence["counts"]:
        verb = "dropped" if fence["mode"] == "enforce" else "from outside, but passed"
        packets = f"{counted(report['fenced'], 'packet')} {verb}"
        if fence["also"]:
            services = counted(len(fence["also"]), "other service")
            packets += f"; {counted(report['fenced_also'], 'packet')} from outside to {services}"
    outside = counted(len(fence["outside"]), "friend")
    yield f"fence     {fence['mode']}{waits}{trial}: {packets}; {outside} outside", True
