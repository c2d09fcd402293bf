"""The number of the limiter in the report of a period."""

from collections.abc import Mapping
from typing import Any


def dropped(status: Mapping[str, Any]) -> dict[str, int]:
    """Return ``{"limiter": packets}``: how many packets the limiter dropped since the rules were made."""
    return {"limiter": status["limiter_drops"]}
