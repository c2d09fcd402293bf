"""The line about the fleet in ``ringfence status``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.output import short_time
from ringfence.plurals import counted


def lines(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the status line about sharing bans, with whether all is well; nothing if none are shared.

    It has when bans were shared last, how late they are elsewhere, what waits, and what fails.
    """
    fleet = report["fleet"]
    if not fleet:
        return
    lag = "unknown" if fleet["lag"] is None else f"{fleet['lag']} s"
    times = ", ".join(f"{way} {short_time(fleet[way]['last'], 'never')}" for way in ("pull", "push"))
    known = fleet["pull"]["last"] is not None
    applied = counted(fleet["in_force"], "decision") if known else "unknown decisions"
    failing = filter(None, dict.fromkeys(fleet[way]["problem"] for way in ("pull", "push")))
    problem = "".join(f"; now it fails: {one}" for one in failing)
    times += "" if fleet["sends"] else "; a dry run, which sends no bans"
    shared = f"{times}; lag {lag}; {fleet['waiting']} waiting; {applied} of others applied"
    yield f"fleet     {shared}{problem}", not problem
