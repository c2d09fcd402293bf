"""Tallies: which subjects took part in something together, within a window."""

from hypothesis import given
from hypothesis import strategies as st

from ringfence.detect.tallies import MOST_SUBJECTS, Tallies

STEPS = st.lists(st.tuples(st.floats(0.0, 30.0), st.sampled_from([b"a", b"b", b"c"])), max_size=60)


@given(steps=STEPS)
def test_a_tally_equals_a_list(steps: list[tuple[float, bytes]]) -> None:
    """A tally has the attempts within the window, at most the deciding number, and their subjects."""
    tallies, said, now = Tallies[str](5, 60.0), list[tuple[float, bytes]](), 0.0
    for pause, subject in steps:
        now += pause
        said.append((now, subject))
        tally = tallies.add("x", subject, now)
        inside = [(at, who) for at, who in said if now - at < 60.0]
        assert len(tally.times) == min(5, len(inside))
        assert set(tally.subjects) == {who for _, who in inside}


def test_what_is_silent_goes() -> None:
    """``get`` returns nothing from before the window, and ``expire`` returns which tallies it dropped."""
    tallies = Tallies[str](5, 60.0)
    tallies.add("x", b"a", 0.0)
    tallies.add("y", b"a", 30.0)
    tally = tallies.get("x", 60.0)
    assert tally is not None
    assert (len(tally.times), len(tally.subjects)) == (0, 0)
    assert tallies.expire(60.0) == ["x"]
    assert tallies.get("x", 60.0) is None
    assert len(tallies) == 1


def test_a_tally_can_be_forgotten() -> None:
    """A forgotten tally begins again."""
    tallies = Tallies[str](5, 60.0)
    tallies.add("x", b"a", 0.0)
    tallies.forget("x")
    assert len(tallies.add("x", b"a", 1.0).times) == 1


def test_there_is_room_for_so_many() -> None:
    """The tally that was silent longest is discarded, and in a tally the subject that was silent longest."""
    tallies = Tallies[str](5, 60.0, most=2)
    for what in ("x", "y", "x", "z"):
        tallies.add(what, b"a", 0.0)
    assert (tallies.get("y", 0.0), len(tallies), tallies.evicted) == (None, 2, 1)
    tally = tallies.add("x", b"a", 0.0)
    for number in range(MOST_SUBJECTS + 5):
        tallies.add("x", b"%d" % number, 0.0)
    assert len(tally.subjects) == MOST_SUBJECTS
    assert b"0" not in tally.subjects
