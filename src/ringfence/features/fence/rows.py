"""The rows about the fence that ``ringfence fence status`` and the page of the fence show."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ringfence.cli.plain_text import Row
from ringfence.clock import format_duration
from ringfence.plurals import counted


def rows(fence: Mapping[str, Any], moment: Callable[[str], str]) -> Iterator[Row]:
    """Yield the rows (label and text) about the fence. Do not call this if the fence is off.

    ``fence`` is the daemon's answer to the request ``fence``. ``moment`` returns a time of the answer as
    text.
    """
    waits = fence["configured"] == "enforce" != fence["mode"]
    yield Row("mode", f"{fence['mode']}{_why(fence, moment)}", not waits)
    since = fence["observed"]
    watched = f", for {format_duration(fence['watched'])} in all"
    yield Row("observed", "never" if since is None else f"since {moment(since)}{watched}")
    around = counted(fence["around"], "network")
    yield Row("inside", f"{counted(fence['networks'], 'network')}, {around} of friends and former friends")
    if "named_networks" in fence:
        named = [*fence["named_countries"], *fence["named_networks"]]
        yield Row("named", ", ".join(named) or "no country and no network")
    verb = "dropped" if fence["mode"] == "enforce" else "would be dropped"
    packets = f"{counted(fence['packets'], 'packet')} {verb}"
    yield Row("outside", packets if fence["counts"] else "unknown: nothing is dropped or counted")
    if fence["also"]:
        yield Row("also", f"{', '.join(fence['also'])}: {_also(fence)}")
    if fence["ssh"]:
        yield Row("open", f"{', '.join(fence['ssh'])}: SSH answers there", good=False)
    if since is not None:
        yield Row("friends", f"{len(fence['outside'])} came from outside")
    for gap in fence["gaps"]:
        yield Row("missing", gap, good=False)
    for one in fence["admitted"]:
        by = f", by the link of {one['link']}" if one["link"] else ""
        yield Row("admitted", f"{one['what']} until {moment(one['until'])}{by}")
    if links := fence.get("links"):
        yield Row(
            "links", f"{counted(len(links), 'lasting link')}: {', '.join(one['account'] for one in links)}"
        )


def _also(fence: Mapping[str, Any]) -> str:
    """Return what the fence does at the ports of other services."""
    if not fence["closed"]:
        return "packets from outside are only counted" if fence["counts"] else "everybody reaches them"
    if fence["closed"] == fence["also"]:
        return "packets from outside are dropped"
    return f"packets from outside to {', '.join(fence['closed'])} are dropped, and to the others only counted"


def _why(fence: Mapping[str, Any], moment: Callable[[str], str]) -> str:
    """Return why the fence's mode is not the configured one, or when its trial ends; "" if neither."""
    if not fence["enforcing"]:
        return "; enforcement is switched off: ringfence on"
    if fence["configured"] == "enforce" and not fence["started"]:
        return "; to start it: ringfence fence enforce"
    waits = fence["mode"] != fence["configured"] and fence["whole"]
    reason = ", until the friends are known" if waits else ""
    if fence["trial"] is not None:
        left = format_duration(60 * math.ceil(fence["left"] / 60))
        trial = f"a trial until {moment(fence['trial'])}, {left} left"
        return f"{reason}; {trial}; to keep it: ringfence fence confirm"
    return reason
