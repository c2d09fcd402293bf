"""``[phones]``: after which time a phone counts as gone."""

from collections.abc import Mapping

from attrs import frozen

from ringfence.clock import format_duration
from ringfence.config.converters import Duration

MOST_AFTER = 3 * 86_400.0
"""The longest ``gone_after`` in seconds. A phone that is away for a week is forgotten."""


@frozen
class PhonesSettings:
    """``[phones]``: how long a phone must be away until the alarm ``phone.gone`` lists it; None for never."""

    gone_after: Duration | None = None


def problems(phones: PhonesSettings, _: Mapping[str, object]) -> list[str]:
    """Return a problem if phones were forgotten before they are listed, or soon after."""
    if phones.gone_after is None or phones.gone_after <= MOST_AFTER:
        return []
    return [f"phones.gone_after: must be at most {format_duration(MOST_AFTER)}"]


TABLE = PhonesSettings
RESTART = True
