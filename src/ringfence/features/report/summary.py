"""Computes the report of a period from the daemon's answers, as values that JSON can represent.

This has no side effects. The keys are an interface for scripts: keys may be added, but not changed or
removed. Text from outside needs no escaping here, because the daemon's answers are already escaped.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_network
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from attrs import frozen

from ringfence import street
from ringfence.control import MOST_ENDED
from ringfence.features.report.text import GROUPS
from ringfence.lists.regions import known_locations
from ringfence.values.location import area_of, operator_of
from ringfence.values.network import format_network

# -- the locations of the addresses of a report


def locations_by_name(
    databases: Sequence[Path], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Mapping[str, str]]:
    """Return what is known about the location of the address of each row (``values/location.py``).

    The keys of the result are the rows' names (``name`` is an address or an IPv6 /64). Without databases it
    is empty.
    """
    if not databases:
        return {}

    names = [str(row["name"]) for row in rows]
    found = known_locations(databases, [ip_network(name).network_address for name in names])
    return dict(zip(names, found, strict=True))


MOST_ROWS = 20
"""The maximum number of rows of a table. Those with the most attempts are kept."""
MOST_PHONES = 200
"""The maximum number of alarms about phones. The latest ones are kept."""
_WIDER = {4: 24, 6: 48}
"""The prefix length of the networks into which addresses are grouped, by IP version."""
_LENGTHS = {
    "up to 10 minutes": 600.0,
    "up to an hour": 3_600.0,
    "up to a day": 86_400.0,
    "up to a week": 7 * 86_400.0,
    "longer": inf,
}
"""The classes of bans by length: the name of each class, and its longest ban in seconds."""
_PHONES = ("phone.", "phones.", "password.")
"""The code of each alarm about phones begins with one of these texts."""

Row = Mapping[str, Any]


@frozen
class ReportAnswers:
    """The daemon's answers to the requests about one period.

    ``history`` has the counts over time, and ``ended`` the bans that ended in the period. ``addresses`` and
    ``accounts`` are those with the most attempts, the most first. ``alarms`` are the active and the cleared
    alarms. ``status`` is the daemon's status; None if no daemon runs.

    ``locations`` has what is known about the location of each address, by the ``name`` of its row. Unknown
    parts are missing.
    """

    history: Row
    ended: Sequence[Row]
    addresses: Sequence[Row]
    accounts: Sequence[Row]
    alarms: Sequence[Row]
    status: Row | None
    locations: Mapping[str, Mapping[str, str]]


def summary_of(answers: ReportAnswers) -> dict[str, Any]:
    """Return the report of a period: its tables and its totals, by their names, as JSON values."""
    history, since = answers.history, answers.history["since"]
    keys = _network, area_of, operator_of
    located = [{**row, **answers.locations.get(row["name"], {})} for row in answers.addresses]
    alarms = [row for row in answers.alarms if not row.get("cleared") or row["cleared"] >= since]
    phones = sorted(
        (row for row in alarms if row["code"].startswith(_PHONES)), key=lambda row: str(row["since"])
    )
    return {
        "since": since,
        "until": history["until"],
        "history": history,
        "addresses": located[:MOST_ROWS],
        **{kind: _groups(located, map(key, located)) for kind, key in zip(GROUPS, keys, strict=True)},
        "accounts": [*answers.accounts[:MOST_ROWS]],
        "phones": phones[-MOST_PHONES:],
        "phones_left_out": max(0, len(phones) - MOST_PHONES),
        "held": _held(answers.ended),
        "dropped": _dropped(answers.status),
    }


def _groups(rows: Sequence[Row], names: Iterable[str]) -> list[dict[str, Any]]:
    """Group the addresses in ``rows``. Return for each group its numbers of attempts and of addresses.

    ``names`` has the name of the group of each address. If it is "" (unknown), the address is left out. The
    group with the most attempts is first; at most MOST_ROWS groups are returned.
    """
    attempts, addresses = Counter[str](), Counter[str]()
    for row, name in zip(rows, names, strict=True):
        if name:
            attempts[name] += row["attempts"]
            addresses[name] += 1
    return [
        {"name": name, "attempts": number, "addresses": addresses[name]}
        for name, number in attempts.most_common(MOST_ROWS)
    ]


def _network(row: Row) -> str:
    network = ip_network(row["name"])
    return format_network(network.supernet(new_prefix=min(network.prefixlen, _WIDER[network.version])))


def _held(ended: Sequence[Row]) -> dict[str, Any]:
    """Return how long the ended bans lasted, how they ended, and how many of them were repeat bans.

    ``median`` is the median of their lengths in seconds; None if no ban ended. ``more``: there are as many
    bans as an answer may have, so earlier bans of the period may be missing.
    """
    lengths = [_seconds(row["ended"]) - _seconds(row["since"]) for row in ended]
    counts = Counter(bisect_left([*_LENGTHS.values()], length) for length in lengths)
    return {
        "bans": len(ended),
        "more": len(ended) >= MOST_ENDED,
        "median": round(median(lengths)) if lengths else None,
        "lengths": [{"name": name, "bans": counts[number]} for number, name in enumerate(_LENGTHS)],
        "ends": dict(Counter(str(row["end"]) for row in ended).most_common()),
        "repeated": sum(row["offence"] > 1 for row in ended),
    }


def _dropped(status: Row | None) -> dict[str, Any] | None:
    """Return the numbers of packets that the kernel dropped since ringfence made its firewall rules.

    The numbers come from the daemon's ``status``. The result has those of features by name, and under
    ``rules`` those of each rule for bans. Return None if ``status`` is None.
    """
    if status is None:
        return None
    return {
        **{name: number for one in street.modules("report") for name, number in one.dropped(status).items()},
        "rules": [{"rule": use["rule"], "packets": use["packets"]} for use in status["firewall"]["rules"]],
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
