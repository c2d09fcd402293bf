"""ClaimedLimit: bans on a mere claim are short, and only so many new ones begin each minute."""

from ringfence.detect.judge import ClaimedLimit
from ringfence.detect.rules import DAY, Claimed

TERMS = Claimed(ban=(600.0, 1_800.0), per_minute=2)


def test_each_return_within_a_day_is_longer() -> None:
    """Each ban within a day is longer, the last length stays, and after a quiet day the first one returns."""
    claims = ClaimedLimit(TERMS)
    assert [claims.begin_ban(b"a", now) for now in (0.0, 700.0, 3_000.0)] == [600.0, 1_800.0, 1_800.0]
    assert claims.begin_ban(b"a", 3_000.0 + DAY) == 600.0


def test_there_are_so_many_new_ones_a_minute() -> None:
    """A ban beyond the limit is refused and counted, and is allowed when the minute is over."""
    claims = ClaimedLimit(TERMS)
    assert [claims.begin_ban(key, 0.0) for key in (b"a", b"b")] == [600.0, 600.0]
    assert (claims.allows(b"c", 0.0), claims.allows(b"a", 0.0)) == (False, True)
    claims.refused = True
    assert (claims.allows(b"c", 59.9), claims.allows(b"c", 60.0)) == (False, True)


def test_a_refusal_raises_an_alarm_every_five_seconds() -> None:
    """The alarm follows a refusal, and no other one within five seconds."""
    claims = ClaimedLimit(TERMS)
    assert claims.alarms(0.0) == ()
    for now, alarms in ((0.0, 1), (4.9, 0), (5.0, 1)):
        claims.refused = True
        assert len(claims.alarms(now)) == alarms
        assert claims.alarms(now) == ()


def test_a_returning_address_is_banned_beyond_the_limit() -> None:
    """An address that was banned before needs no room in the minute: a forger did not just invent it."""
    claims = ClaimedLimit(TERMS)
    for key in (b"a", b"b", b"c"):
        claims.begin_ban(key, 0.0 if key == b"a" else 100.0)
    assert (claims.allows(b"d", 100.0), claims.allows(b"a", 100.0)) == (False, True)
    assert claims.begin_ban(b"a", 100.0) == 1_800.0


def test_so_many_addresses_return_in_a_minute() -> None:
    """A forger cannot renew all its earlier bans at once: as many return in a minute as are new in one."""
    claims = ClaimedLimit(TERMS)
    for number, key in enumerate((b"a", b"b", b"c", b"d")):
        claims.begin_ban(key, 100.0 * number)
    for key in (b"x", b"y", b"a", b"b"):
        assert claims.allows(key, 1_000.0)
        claims.begin_ban(key, 1_000.0)
    assert (claims.allows(b"c", 1_000.0), claims.allows(b"c", 1_060.0)) == (False, True)


def test_without_room_the_oldest_address_is_forgotten() -> None:
    """When there is no room, the address with the oldest ban is forgotten and begins again."""
    claims = ClaimedLimit(Claimed(ban=(1.0, 2.0), per_minute=10), most=2)
    for key in (b"a", b"b", b"c"):
        claims.begin_ban(key, 0.0)
    assert [claims.begin_ban(key, 1.0) for key in (b"c", b"a")] == [2.0, 1.0]


def test_proven_subjects_have_a_limit_of_their_own() -> None:
    """Forged addresses cannot use up the room of a real one, and it is bounded too."""
    claims = ClaimedLimit(TERMS)
    for key in (b"a", b"b"):
        claims.begin_ban(key, 0.0)
    assert (claims.allows(b"c", 0.0), claims.allows(b"c", 0.0, proven=True)) == (False, True)
    assert [claims.begin_ban(key, 0.0, proven=True) for key in (b"c", b"d")] == [600.0, 600.0]
    assert (claims.allows(b"c", 59.9, proven=True), claims.allows(b"c", 60.0, proven=True)) == (False, True)


def test_subjects_that_returned_a_nonce_have_a_limit_of_their_own() -> None:
    """Within a day after they did. They use it only if the common one has no room."""
    claims = ClaimedLimit(TERMS)
    for key in (b"c", b"d", b"e"):
        claims.record_nonce(key, 0.0)
    for key in (b"a", b"b", b"c", b"d"):
        assert claims.allows(key, 1.0)
        claims.begin_ban(key, 1.0)
    assert (claims.allows(b"e", 1.0), claims.allows(b"f", 1.0)) == (False, False)
    claims.begin_ban(b"a", DAY)
    claims.begin_ban(b"b", DAY)
    assert [claims.allows(key, DAY) for key in (b"e", b"f")] == [True, True]


def test_a_nonce_of_yesterday_needs_the_common_room() -> None:
    """The subject competes with new ones again."""
    claims = ClaimedLimit(TERMS)
    claims.record_nonce(b"c", 0.0)
    for key in (b"a", b"b"):
        claims.begin_ban(key, DAY - 1.0)
    assert (claims.allows(b"c", DAY - 1.0), claims.allows(b"c", DAY)) == (True, False)
