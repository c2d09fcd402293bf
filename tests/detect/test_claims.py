"""Claims: bans on a mere claim are short, and so many new ones a minute."""

from ringfence.detect.claims import INSISTS, PERSISTS, Claims
from ringfence.detect.rules import DAY, Claimed

TERMS = Claimed(ban=(600.0, 1_800.0), per_minute=2)


def test_each_return_within_a_day_is_longer() -> None:
    """And the last length stays; after a day of quiet it begins anew."""
    claims = Claims(TERMS)
    assert [claims.length(b"a", now) for now in (0.0, 700.0, 3_000.0)] == [600.0, 1_800.0, 1_800.0]
    assert claims.length(b"a", 3_000.0 + DAY) == 600.0


def test_there_are_so_many_new_ones_a_minute() -> None:
    """What is too many is counted, and gets its turn when the minute is over."""
    claims = Claims(TERMS)
    assert [claims.length(key, 0.0) for key in (b"a", b"b")] == [600.0, 600.0]
    assert (claims.is_open(b"c", 0.0), claims.is_open(b"a", 0.0)) == (False, True)
    claims.pass_over(b"c", 0.0)
    assert (claims.refused, claims.is_open(b"c", 59.9), claims.is_open(b"c", 60.0)) == (1, False, True)


def test_who_goes_on_is_banned_beyond_them() -> None:
    """Seconds later, with many more attempts: else a forger could have a guesser passed over for ever."""
    claims = Claims(TERMS)
    for key in (b"a", b"b"):
        claims.length(key, 0.0)
    claims.pass_over(b"c", 1.0)
    assert not claims.is_open(b"c", 1.0 + PERSISTS - 0.1, INSISTS)
    assert not claims.is_open(b"c", 1.0 + PERSISTS, INSISTS - 0.1)
    assert not claims.is_open(b"d", 1.0 + PERSISTS, INSISTS)
    assert claims.is_open(b"c", 1.0 + PERSISTS, INSISTS)
    assert claims.length(b"c", 12.0) == 600.0
    claims.pass_over(b"d", 1.0)
    assert not claims.is_open(b"d", 59.0, INSISTS)
    assert claims.is_open(b"d", 60.0)


def test_who_comes_back_is_banned_whatever_the_minute_says() -> None:
    """He is not one of those whom somebody makes up as he goes."""
    claims = Claims(TERMS)
    for key in (b"a", b"b", b"c"):
        claims.length(key, 0.0 if key == b"a" else 100.0)
    assert (claims.is_open(b"d", 100.0), claims.is_open(b"a", 100.0)) == (False, True)
    assert claims.length(b"a", 100.0) == 1_800.0


def test_whom_there_is_no_room_for_begins_anew() -> None:
    """Who was banned longest ago is forgotten first."""
    claims = Claims(Claimed(ban=(1.0, 2.0), per_minute=10), most=2)
    for key in (b"a", b"b", b"c"):
        claims.length(key, 0.0)
    assert [claims.length(key, 1.0) for key in (b"c", b"a")] == [2.0, 1.0]
