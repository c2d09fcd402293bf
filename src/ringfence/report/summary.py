"""The report of a period as values that JSON can represent, computed from the daemon's answers.

It has no side effects. The keys are an interface for scripts: keys may be added, but not changed or removed.
Text from outside needs no escaping here, because the daemon's answers are already escaped.
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
from ringfence.report import MOST_ENDED

MOST_ROWS = 20
"""The maximum number of rows of a table. Those with the most attempts are kept."""
MOST_PHONES = 200
"""The maximum number of alarms about phones. The latest ones are kept."""
_WIDER = {4: 24, 6: 48}
"""By IP version: the prefix length of the networks into which addresses are grouped."""
_LENGTHS = {
    "up to 10 minutes": 600.0,
    "up to an hour": 3_600.0,
    "up to a day": 86_400.0,
    "up to a week": 7 * 86_400.0,
    "longer": inf,
}
_PHONES = ("phone.", "phones.", "password.")
"""The beginnings of the codes of all alarms about phones."""

Row = Mapping[str, Any]


@frozen
class ReportAnswers:
    """The daemon's answers to the requests about one period.

    ``history`` has the counts over time, and ``ended`` the bans that ended in the period. ``addresses`` and
    ``accounts`` are those with the most attempts, the most first. ``alarms`` are the active and the cleared
    alarms. ``status`` is the daemon's status; None if no daemon runs. ``locations`` has, by the name of an
    address, its country and the number (``asn``) and operator (``organisation``) of its network, as far as
    the configured databases contain them.
    """

    history: Row
    ended: Sequence[Row]
    addresses: Sequence[Row]
    accounts: Sequence[Row]
    alarms: Sequence[Row]
    status: Row | None
    locations: Mapping[str, Mapping[str, str]]


def summary_of(answers: ReportAnswers) -> dict[str, Any]:
    """Return the report, with its tables and totals by name."""
    history, since = answers.history, answers.history["since"]
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
        "networks": _groups(located, _network),
        "countries": _groups(located, lambda row: str(row.get("country", ""))),
        "operators": _groups(located, _operator),
        "accounts": [*answers.accounts[:MOST_ROWS]],
        "phones": phones[-MOST_PHONES:],
        "phones_left_out": max(0, len(phones) - MOST_PHONES),
        "held": _held(answers.ended),
        "dropped": _dropped(answers.status),
    }


def _groups(rows: Sequence[Row], key: Callable[[Row], str]) -> list[dict[str, Any]]:
    """Group addresses; return the number of attempts and of addresses of each group, the most attempts first.

    ``key`` returns the name of an address's group; "" if it is unknown, and then the address is left out.
    """
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
    """Return how long the ended bans lasted, how they ended, and how many of them were repeat bans.

    ``median`` is in seconds; None if no ban ended. ``more``: only the latest bans are counted.
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

    Return None without the daemon's status, which contains these numbers.
    """
    if status is None:
        return None
    return {
        "limiter": status["limiter_drops"],
        "rules": [{"rule": use["rule"], "packets": use["packets"]} for use in status["firewall"]["rules"]],
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
