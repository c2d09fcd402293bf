"""When enough is known of the friends to ban, and to limit."""

import pytest

from ringfence.friends.known import (
    AFTER_LISTENING,
    IN_ALL,
    LIMITER_IN_ALL,
    REMEMBERED_AFTER_LISTENING,
    REMEMBERED_IN_ALL,
    Ear,
    Known,
)

BEGAN = 100.0


def begun(*ears: Ear, remembered: bool = False) -> Known:
    """Give what waits for these since BEGAN."""
    known = Known()
    known.remembered = remembered
    known.begin(lambda: ears, BEGAN)
    return known


def test_nothing_is_known_before_the_sources_are() -> None:
    """At the mounting of the guard nobody has been asked yet; what is remembered suffices for the limiter."""
    known = Known()
    assert not known.for_bans(BEGAN)
    assert not known.for_limiter(BEGAN)
    known.remembered = True
    assert not known.for_bans(BEGAN)
    assert known.for_limiter(BEGAN)


def test_every_roster_is_enough() -> None:
    """With the last roster both may go on, and with no Asterisk to ask at once; that is not taken back."""
    ears = [Ear(since=BEGAN, rostered=True), Ear(since=BEGAN, rostered=False)]
    known = Known()
    known.begin(lambda: ears, BEGAN)
    assert (known.for_bans(BEGAN), known.for_limiter(BEGAN)) == (False, False)
    ears[1] = Ear(since=None, rostered=True)
    assert (known.for_bans(BEGAN), known.for_limiter(BEGAN)) == (True, True)
    ears[1] = Ear(since=None, rostered=False)
    assert (known.for_bans(BEGAN), known.for_limiter(BEGAN)) == (True, True)

    nobody = begun()
    assert (nobody.for_bans(BEGAN), nobody.for_limiter(BEGAN)) == (True, True)


@pytest.mark.parametrize(
    ("remembered", "after", "in_all"),
    [(False, AFTER_LISTENING, IN_ALL), (True, REMEMBERED_AFTER_LISTENING, REMEMBERED_IN_ALL)],
)
def test_bans_do_not_wait_for_ever(*, remembered: bool, after: float, in_all: float) -> None:
    """Some seconds after all are heard, and some more after the start where one is not heard at all."""
    heard = begun(
        Ear(since=BEGAN + 0.5, rostered=False), Ear(since=BEGAN, rostered=True), remembered=remembered
    )
    assert not heard.for_bans(BEGAN + 0.4 + after)
    assert heard.for_bans(BEGAN + 0.5 + after)
    silent = begun(Ear(since=BEGAN, rostered=False), Ear(since=None, rostered=False), remembered=remembered)
    assert not silent.for_bans(BEGAN + in_all - 0.1)
    assert silent.for_bans(BEGAN + in_all)


def test_the_limiter_waits_longer() -> None:
    """Half a minute where nobody tells; what the store remembers is enough at once."""
    known = begun(Ear(since=BEGAN, rostered=False))
    assert not known.for_limiter(BEGAN + LIMITER_IN_ALL - 0.1)
    assert known.for_limiter(BEGAN + LIMITER_IN_ALL)
    assert begun(Ear(since=None, rostered=False), remembered=True).for_limiter(BEGAN)
