"""Groups of attempts that are alike. An attack is hundreds of equal attempts, and people need one row for it.

The daemon makes the groups, and clients show them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

ALIKE = (
    "address",
    "reason",
    "service",
    "transport",
    "proof",
    "sources",
    "trusted",
    "tampered",
    "forged_address",
    "ban",
)
"""The keys that attempts in one row of ``ringfence why`` share: all but their times and accounts."""

Row = Mapping[str, Any]


def grouped(attempts: Iterable[Row], keys: Iterable[str]) -> list[dict[str, Any]]:
    """Group attempts that have the same values under ``keys``. Return a row for each group.

    ``attempts`` are rows of the daemon's JSON, oldest first. The group with the latest attempt comes first.
    A group has the values of its latest attempt, and three more: the number of attempts (``times``), the time
    of the ``first`` one, and the number of different ``accounts``. If the latest attempt names no account,
    ``account`` is the last one that another attempt of the group names.
    """
    chosen, found = tuple(keys), dict[str, list[Row]]()
    for attempt in attempts:
        alike = repr([attempt[key] for key in chosen])
        group = found.pop(alike, [])  # so a group with a new attempt becomes the last one
        group.append(attempt)
        found[alike] = group
    return [_group(alike) for alike in reversed(found.values())]


def _group(attempts: list[Row]) -> dict[str, Any]:
    accounts = {attempt["account"]: None for attempt in attempts if attempt["account"]}
    last = attempts[-1]
    return {
        **last,
        "account": last["account"] or next(reversed(accounts), ""),
        "accounts": len(accounts),
        "times": len(attempts),
        "first": attempts[0]["time"],
    }
