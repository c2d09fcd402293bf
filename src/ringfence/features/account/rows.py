"""The rows about the places of an account that ``ringfence account`` shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.cli.output import head, short_time


def columns(places: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the columns of the table of places, by their heads. Columns without any value are left out."""
    several = len({one["asterisk"] for one in places}) > 1
    found = {
        "NETWORK": [one["network"] for one in places],
        "LAST ADDRESS": [one["address"] for one in places],
        "COUNTRY": [one["country"] for one in places],
        "AS": [one["asn"] for one in places],
        "GRADE": [grade(one) for one in places],
        "SINCE": [short_time(one["since"]) for one in places],
        head("LAST"): [short_time(one["last"]) for one in places],
        "DAYS": [str(one["days"]) for one in places],
        "LOGINS": [str(one["logins"]) for one in places],
        "ASTERISK": [one["asterisk"] if several else "" for one in places],
    }
    return {name: cells for name, cells in found.items() if any(cells)}


def grade(place: Mapping[str, Any]) -> str:
    """Return the grade of a place; an account that was elsewhere on several days may be at home by now."""
    settled = place["grade"] == "elsewhere" and place["home"]
    return f"{place['grade']}, now at home" if settled else str(place["grade"])
