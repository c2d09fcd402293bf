"""Start-up gate: when enough is known about the friends to ban and to limit."""

import pytest

from ringfence.friends.readiness import (
    AFTER_LISTENING,
    IN_ALL,
    LIMITER_IN_ALL,
    REMEMBERED_AFTER_LISTENING,
    REMEMBERED_IN_ALL,
    SourceReadiness,
    StartupGate,
)

BEGAN = 100.0


def begun(*ears: SourceReadiness, remembered: bool = False) -> StartupGate:
    """Return a gate that waits for these sources since BEGAN."""
    known = StartupGate()
    known.remembered = remembered
    known.begin(lambda: ears, BEGAN)
    return known


def test_nothing_is_known_before_the_sources_are() -> None:
    """Before the sources are known, nothing starts, unless the store's friends suffice for the limiter."""
    known = StartupGate()
    assert not known.for_bans(BEGAN)
    assert not known.for_limiter(BEGAN)
    known.remembered = True
    assert not known.for_bans(BEGAN)
    assert known.for_limiter(BEGAN)


def test_bans_begin_when_every_roster_is_known() -> None:
    """Bans and the limiter start with the last roster, or at once without an Asterisk, and never stop."""
    ears = [SourceReadiness(since=BEGAN, roster_ready=True), SourceReadiness(since=BEGAN, roster_ready=False)]
    known = StartupGate()
    known.begin(lambda: ears, BEGAN)
    assert (known.for_bans(BEGAN), known.for_limiter(BEGAN)) == (False, False)
    ears[1] = SourceReadiness(since=None, roster_ready=True)
    assert (known.for_bans(BEGAN), known.for_limiter(BEGAN)) == (True, True)
    ears[1] = SourceReadiness(since=None, roster_ready=False)
    assert (known.for_bans(BEGAN), known.for_limiter(BEGAN)) == (True, True)

    nobody = begun()
    assert (nobody.for_bans(BEGAN), nobody.for_limiter(BEGAN)) == (True, True)


@pytest.mark.parametrize(
    ("remembered", "after", "in_all"),
    [(False, AFTER_LISTENING, IN_ALL), (True, REMEMBERED_AFTER_LISTENING, REMEMBERED_IN_ALL)],
)
def test_the_wait_for_rosters_has_an_end(*, remembered: bool, after: float, in_all: float) -> None:
    """Bans start some seconds after all sources are connected, or later if one source stays unavailable."""
    heard = begun(
        SourceReadiness(since=BEGAN + 0.5, roster_ready=False),
        SourceReadiness(since=BEGAN, roster_ready=True),
        remembered=remembered,
    )
    assert not heard.for_bans(BEGAN + 0.4 + after)
    assert heard.for_bans(BEGAN + 0.5 + after)
    silent = begun(
        SourceReadiness(since=BEGAN, roster_ready=False),
        SourceReadiness(since=None, roster_ready=False),
        remembered=remembered,
    )
    assert not silent.for_bans(BEGAN + in_all - 0.1)
    assert silent.for_bans(BEGAN + in_all)


def test_the_limiter_waits_longer() -> None:
    """The limiter waits half a minute without rosters, and starts at once with friends from the store."""
    known = begun(SourceReadiness(since=BEGAN, roster_ready=False))
    assert not known.for_limiter(BEGAN + LIMITER_IN_ALL - 0.1)
    assert known.for_limiter(BEGAN + LIMITER_IN_ALL)
    assert begun(SourceReadiness(since=None, roster_ready=False), remembered=True).for_limiter(BEGAN)
