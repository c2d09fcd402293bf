"""Where an address is: its country and its network's operator, as far as they are known.

A location is a mapping with the keys of UNKNOWN. Rows of answers have a part of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Location = Mapping[str, str]

UNKNOWN: Location = {"country": "", "asn": "", "organisation": ""}
"""The location of an address about which nothing is known. A location always has these keys."""
AREAS = {"countries": "COUNTRY"}
"""Groupings of addresses by location (``countries``), each with the head of its column in a table."""


def area_of(location: Mapping[str, Any]) -> str:
    """Return the country of a location or row; "" if it is unknown."""
    return str(location.get("country", ""))


def operator_of(location: Mapping[str, Any]) -> str:
    """Return the AS number and the name of the network's operator in one text; "" if both are unknown."""
    return " ".join(filter(None, (location.get("asn"), location.get("organisation"))))


def parts_of(location: Mapping[str, Any]) -> list[str]:
    """Return the known parts of a location: the country, then the operator's AS number and name."""
    return [str(location[key]) for key in UNKNOWN if location.get(key)]


def text_of(location: Location) -> str:
    """Return a location in one text; "" if nothing is known."""
    return ", ".join(filter(None, (area_of(location), operator_of(location))))


def where(location: Location) -> str:
    """Return the country of a location in words, for a sentence."""
    return area_of(location) or "its country is unknown"


def row_of(location: Location) -> dict[str, str]:
    """Return the part of a location that rows of the daemon's answers have, as {"country": …}."""
    return {"country": area_of(location)}


def column_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return {head: cells} of a table's column with the country of each row; {} if no country is known."""
    cells = [area_of(row) for row in rows]
    return {"COUNTRY": cells} if any(cells) else {}
