"""GroupCounts: which subjects took part in something together, within a window."""

from hypothesis import given
from hypothesis import strategies as st

from ringfence.detect.group_counts import MOST_SUBJECTS, GroupCounts

STEPS = st.lists(st.tuples(st.floats(0.0, 30.0), st.sampled_from([b"a", b"b", b"c"])), max_size=60)


@given(steps=STEPS)
def test_a_count_equals_a_list(steps: list[tuple[float, bytes]]) -> None:
    """A count has the attempts within the window, at most the deciding number, and their subjects."""
    counts, said, now = GroupCounts[str](5, 60.0), list[tuple[float, bytes]](), 0.0
    for pause, subject in steps:
        now += pause
        said.append((now, subject))
        count = counts.add("x", subject, now)
        inside = [(at, who) for at, who in said if now - at < 60.0]
        assert len(count.times) == min(5, len(inside))
        assert set(count.subjects) == {who for _, who in inside}


def test_what_is_silent_goes() -> None:
    """``get`` returns nothing from before the window, and ``expire`` discards it."""
    counts = GroupCounts[str](5, 60.0)
    counts.add("x", b"a", 0.0)
    counts.add("y", b"a", 30.0)
    count = counts.get("x", 60.0)
    assert count is not None
    assert (len(count.times), len(count.subjects)) == (0, 0)
    counts.expire(60.0)
    assert counts.get("x", 60.0) is None
    assert len(counts) == 1


def test_a_count_can_be_forgotten() -> None:
    """A forgotten count begins again."""
    counts = GroupCounts[str](5, 60.0)
    counts.add("x", b"a", 0.0)
    counts.forget("x")
    assert len(counts.add("x", b"a", 1.0).times) == 1


def test_there_is_room_for_so_many() -> None:
    """The count that was silent longest is discarded, and in a count the subject that was silent longest."""
    counts = GroupCounts[str](5, 60.0, most=2)
    for what in ("x", "y", "x", "z"):
        counts.add(what, b"a", 0.0)
    assert (counts.get("y", 0.0), len(counts)) == (None, 2)
    count = counts.add("x", b"a", 0.0)
    for number in range(MOST_SUBJECTS + 5):
        counts.add("x", b"%d" % number, 0.0)
    assert len(count.subjects) == MOST_SUBJECTS
    assert b"0" not in count.subjects
