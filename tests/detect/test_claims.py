"""Claims: bans on a mere claim are short, and so many new ones a minute."""

from ringfence.detect.claims import Claims
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
    assert [claims.length(key, 0.0) for key in (b"a", b"b", b"c")] == [600.0, 600.0, None]
    assert (claims.refused, claims.is_open(b"c", 0.0), claims.is_open(b"a", 0.0)) == (1, False, True)
    assert claims.length(b"c", 59.9) is None
    assert claims.length(b"c", 60.0) == 600.0


def test_who_comes_back_is_banned_whatever_the_minute_says() -> None:
    """He is not one of those whom somebody makes up as he goes."""
    claims = Claims(TERMS)
    claims.length(b"a", 0.0)
    assert [claims.length(key, 100.0) for key in (b"b", b"c", b"d", b"a")] == [600.0, 600.0, None, 1_800.0]


def test_whom_there_is_no_room_for_begins_anew() -> None:
    """Who was banned longest ago is forgotten first."""
    claims = Claims(Claimed(ban=(1.0, 2.0), per_minute=10), most=2)
    for key in (b"a", b"b", b"c"):
        claims.length(key, 0.0)
    assert [claims.length(key, 1.0) for key in (b"c", b"a")] == [2.0, 1.0]
