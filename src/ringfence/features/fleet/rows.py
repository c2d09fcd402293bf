"""The rows about the fleet that ``ringfence fleet status`` and the page of the fleet show."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ringfence.cli.plain_text import Row
from ringfence.plurals import counted


def rows(fleet: Mapping[str, Any], moment: Callable[[str | None, str], str]) -> Iterator[Row]:
    """Yield the rows (label and text) about bans shared with other hosts, from ``fleet``, not empty.

    ``fleet`` is the daemon's answer to the request ``fleet``. ``moment`` returns a time of this answer as
    text; if the time is None, it returns its second argument.
    """
    yield Row("local API", f"{fleet['url']}, as {fleet['machine']}")
    if not fleet["sends"]:
        yield Row("dry run", "sends no bans; receives decisions, and drops nothing")
    for way in ("pull", "push"):
        problem = fleet[way]["problem"]
        fails = f"; now it fails: {problem}" if problem else ""
        yield Row(f"last {way}", moment(fleet[way]["last"], "never") + fails, not problem)
    lag = "unknown" if fleet["lag"] is None else f"{fleet['lag']} s"
    yield Row("lag", f"{lag} from a ban here until the API showed it")
    waiting = counted(fleet["waiting"], "ban or unban", "bans and unbans")
    yield Row("waiting", f"{waiting}, of which {fleet['failing']} failed before", not fleet["failing"])
    applied = f"{fleet['decisions']}, of which {fleet['in_force']} are applied here"
    yield Row("decisions", "unknown until the first pull" if fleet["pull"]["last"] is None else applied)
    if fleet["left_out"]:
        left = counted(fleet["left_out"], "decision that is", "decisions that are")
        yield Row("left out", f"{left} not applied, such as {', '.join(fleet['left_out_named'])}")
    if fleet["lost"]:
        yield Row("not shared", f"{fleet['lost']} for lack of room, or refused", False)
