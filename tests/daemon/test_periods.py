"""The period of a request."""

from math import inf, nan

import pytest

from ringfence.config.converters import MAX_DURATION
from ringfence.daemon.periods import period_from
from ringfence.errors import ControlError


def test_a_period_has_a_default() -> None:
    """Without a duration the default is used."""
    assert period_from({}, 60.0) == 60.0
    assert period_from({"seconds": 7}, 60.0) == 7.0


@pytest.mark.parametrize("seconds", [0, -1, nan, inf, MAX_DURATION + 1, "7", None, []])
def test_a_wrong_period_is_refused(seconds: object) -> None:
    """A period is above 0 and at most ten years."""
    with pytest.raises(ControlError):
        period_from({"seconds": seconds}, 60.0)
