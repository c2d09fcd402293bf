"""The period of a request: how far it looks back."""

from collections.abc import Mapping
from typing import Any

from ringfence.config.converters import MAX_DURATION
from ringfence.errors import ControlError


def period_from(request: Mapping[str, Any], default: float) -> float:
    """Return the argument ``seconds`` of a request, or ``default`` if it is missing.

    Raise ControlError if it is not a number above 0 and at most MAX_DURATION.
    """
    seconds = request.get("seconds", default)
    if not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DURATION:
        raise ControlError("a period needs a duration in seconds, above 0 and at most ten years")
    return float(seconds)
