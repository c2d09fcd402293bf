"""The lines about feeds in ``ringfence status``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.output import short_time
from ringfence.plurals import counted


def lines(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield a status line for each feed, with whether all is well.

    The line has the feed's state, its number of networks, how many are left out, and what is wrong.
    """
    for feed in report["feeds"]:
        left = f" ({feed['left_out']} left out)" if feed["left_out"] else ""
        checked = f", checked {short_time(feed['checked'], 'never')}"
        problem = f": {feed['problem']}" if feed["problem"] else ""
        networks = counted(feed["networks"], "network")
        text = f"feed      {feed['name']}: {feed['state']}, {networks}{left}{checked}{problem}"
        yield text, feed["state"] == "in force" and not problem
