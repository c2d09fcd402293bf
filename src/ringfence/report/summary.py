"""The report of a period as JSON values, from the daemon's answers. Pure.

The keys are an interface for scripts: keys may be added, but not changed or removed. Text from outside is
escaped already, because the answers are.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_network
from math import inf
from statistics import median
from typing import Any

from attrs import frozen

from ringfence.model import format_network

MOST_ROWS = 20
"""Rows of each table; those with the most attempts."""
_WIDER = {4: 24, 6: 48}
"""The prefix length of the networks that addresses are counted by."""
_LENGTHS = {
    "up to 10 minutes": 600.0,
    "up to an hour": 3_600.0,
    "up to a day": 86_400.0,
    "up to a week": 7 * 86_400.0,
    "longer": inf,
}
_PHONES = ("phone.", "phones.", "password.")
"""The first part of the codes of alarms about phones."""

Row = Mapping[str, Any]


@frozen
class ReportAnswers:
    """The daemon's answers of a period.

    ``history`` is what happened over time, ``ended`` are the bans that ended, ``addresses`` and ``accounts``
    those with attempts, ``alarms`` the active and the cleared ones. ``status`` is None without a daemon.
    ``locations`` has country and network number of addresses, as far as a database has them.
    """

    history: Row
    ended: Sequence[Row]
    addresses: Sequence[Row]
    accounts: Sequence[Row]
    alarms: Sequence[Row]
    status: Row | None
    locations: Mapping[str, Mapping[str, str]]


def summary_of(answers: ReportAnswers) -> dict[str, Any]:
    """Return the report."""
    history, since = answers.history, answers.history["since"]
    located = [{**row, **answers.locations.get(row["name"], {})} for row in answers.addresses]
    alarms = [row for row in answers.alarms if not row.get("cleared") or row["cleared"] >= since]
    return {
        "since": since,
        "until": history["until"],
        "history": history,
        "addresses": located[:MOST_ROWS],
        "networks": _groups(located, _network),
        "countries": _groups(located, lambda row: str(row.get("country", ""))),
        "operators": _groups(located, _operator),
        "accounts": [*answers.accounts[:MOST_ROWS]],
        "phones": sorted(
            (row for row in alarms if row["code"].startswith(_PHONES)), key=lambda row: str(row["since"])
        ),
        "held": _held(answers.ended),
        "dropped": _dropped(answers.status),
    }


def _groups(rows: Sequence[Row], key: Callable[[Row], str]) -> list[dict[str, Any]]:
    """Return the attempts and the number of addresses of each group; rows without a group are left out."""
    attempts, addresses = Counter[str](), Counter[str]()
    for row in rows:
        if name := key(row):
            attempts[name] += row["attempts"]
            addresses[name] += 1
    return [
        {"name": name, "attempts": number, "addresses": addresses[name]}
        for name, number in attempts.most_common(MOST_ROWS)
    ]


def _network(row: Row) -> str:
    network = ip_network(row["name"])
    return format_network(network.supernet(new_prefix=min(network.prefixlen, _WIDER[network.version])))


def _operator(row: Row) -> str:
    return " ".join(filter(None, (row.get("asn"), row.get("organisation"))))


def _held(ended: Sequence[Row]) -> dict[str, Any]:
    """Return how long the ended bans lasted, and how they ended."""
    lengths = [_seconds(row["ended"]) - _seconds(row["since"]) for row in ended]
    counts = Counter(bisect_left([*_LENGTHS.values()], length) for length in lengths)
    return {
        "bans": len(ended),
        "median": round(median(lengths)) if lengths else None,
        "lengths": [{"name": name, "bans": counts[number]} for number, name in enumerate(_LENGTHS)],
        "ends": dict(Counter(str(row["end"]) for row in ended).most_common()),
        "repeated": sum(row["offence"] > 1 for row in ended),
    }


def _dropped(status: Row | None) -> dict[str, Any] | None:
    """Return the packets that the kernel dropped since its rules were made; None without a daemon."""
    if status is None:
        return None
    return {
        "limiter": status["limiter_drops"],
        "rules": [{"rule": use["rule"], "packets": use["packets"]} for use in status["firewall"]["rules"]],
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
