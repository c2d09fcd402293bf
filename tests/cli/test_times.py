"""Times in the output for people: UTC or local."""

import time
from collections.abc import Iterator

import pytest

from ringfence.cli import output

MOMENT = "2026-11-21T23:30:15Z"


@pytest.fixture(autouse=True)
def _five_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a time zone, and forget the choices afterwards."""
    monkeypatch.setenv("TZ", "TST-5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
    output.choose(local=False)
    output.configure("utc")


def test_times_are_utc_by_default() -> None:
    """Without a choice, times are shown as they are stored."""
    assert output.short_time(MOMENT) == "2026-11-21 23:30"
    assert output.short_time(MOMENT, seconds=True) == "2026-11-21 23:30:15"
    assert output.short_time(None) == "?"
    assert output.head("SINCE") == "SINCE (UTC)"


@pytest.mark.parametrize("by", ["option", "configuration"])
def test_times_can_be_local(by: str) -> None:
    """The option and the configuration each choose local times."""
    if by == "option":
        output.choose(local=True)
    else:
        output.configure("local")

    assert output.short_time(MOMENT) == "2026-11-22 04:30"
    assert output.head("SINCE") == "SINCE (LOCAL)"
