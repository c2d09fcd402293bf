"""Start-up gate: when enough is known about the friends to ban and to limit."""

import pytest

from ringfence.friends.startup import (
    AFTER_LISTENING,
    IN_ALL,
    LIMITS_IN_ALL,
    REMEMBERED_AFTER_LISTENING,
    REMEMBERED_IN_ALL,
    ROSTERS_LAST,
    SourceReadiness,
    StartupGate,
)

BEGAN = 100.0


def waits(*sources: SourceReadiness, at: float = BEGAN, remembered: bool = False) -> tuple[bool, bool]:
    """Return whether bans and the limiter still wait ``at`` this time for sources that began at BEGAN."""
    gate = StartupGate()
    gate.remembered = remembered
    gate.update([SourceReadiness(since=None, roster_ready=False)], BEGAN)
    gate.update(sources, at)
    return not gate.for_bans, not gate.for_limits


def test_nothing_is_known_before_the_sources_are() -> None:
    """Before the sources are known, nothing starts, unless the store's friends suffice for the limiter."""
    gate = StartupGate()
    assert (gate.for_bans, gate.for_limits) == (False, False)
    gate.remembered = True
    assert (gate.for_bans, gate.for_limits) == (False, True)


def test_bans_begin_when_every_roster_is_known() -> None:
    """Bans and the limiter start with the last roster, or at once without an Asterisk, and never stop."""
    ready, late = (
        SourceReadiness(since=BEGAN, roster_ready=True),
        SourceReadiness(since=BEGAN, roster_ready=False),
    )
    gate = StartupGate()
    gate.update([ready, late], BEGAN)
    assert (gate.for_bans, gate.for_limits) == (False, False)
    gate.update([ready, SourceReadiness(since=None, roster_ready=True)], BEGAN)
    assert (gate.for_bans, gate.for_limits) == (True, True)
    gate.update([ready, late], BEGAN)
    assert (gate.for_bans, gate.for_limits) == (True, True)
    assert waits() == (False, False)


@pytest.mark.parametrize(
    ("remembered", "after", "in_all"),
    [(False, AFTER_LISTENING, IN_ALL), (True, REMEMBERED_AFTER_LISTENING, REMEMBERED_IN_ALL)],
)
def test_the_wait_for_rosters_has_an_end(*, remembered: bool, after: float, in_all: float) -> None:
    """Bans start some seconds after all sources are connected, or later if one source stays unavailable."""
    late = SourceReadiness(since=BEGAN + 0.5, roster_ready=False)
    ready = SourceReadiness(since=BEGAN, roster_ready=True)
    assert waits(late, ready, at=BEGAN + 0.4 + after, remembered=remembered)[0]
    assert not waits(late, ready, at=BEGAN + 0.5 + after, remembered=remembered)[0]
    silent = SourceReadiness(since=None, roster_ready=False)
    assert waits(late, silent, at=BEGAN + in_all - 0.1, remembered=remembered)[0]
    assert not waits(late, silent, at=BEGAN + in_all, remembered=remembered)[0]


def test_the_limiter_waits_longer() -> None:
    """The limiter waits half a minute without rosters, and starts at once with friends from the store."""
    late = SourceReadiness(since=BEGAN, roster_ready=False)
    assert waits(late, at=BEGAN + LIMITS_IN_ALL - 0.1)[1]
    assert not waits(late, at=BEGAN + LIMITS_IN_ALL)[1]
    assert not waits(late, remembered=True)[1]


def test_a_roster_that_is_missing_for_long() -> None:
    """Ten minutes after one Asterisk was lost its phones may be unknown, until it has reported them again."""
    gate = StartupGate()
    here = SourceReadiness(since=BEGAN, roster_ready=True)
    lost = SourceReadiness(since=None, roster_ready=True)
    back = SourceReadiness(since=BEGAN + 700.0, roster_ready=False)
    lacks = []
    for source, at in ((here, 0.0), (lost, 1.0), (lost, 599.0), (lost, 600.0), (back, 700.0), (here, 701.0)):
        gate.update([here, source], BEGAN + at)
        lacks.append(gate.lacks_roster)
    assert lacks == [False, False, False, True, True, False]
    assert (gate.for_bans, gate.for_limits) == (True, True)


def test_without_ami_no_roster_is_missing() -> None:
    """If no Asterisk has AMI, the configuration says so, and there is no roster to wait for."""
    gate = StartupGate()
    for at in (0.0, ROSTERS_LAST):
        gate.update([], BEGAN + at)
        assert not gate.lacks_roster
