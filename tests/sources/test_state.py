"""The words for how a source is: an interface that scripts compare."""

from ringfence.sources.state import Condition, State


def test_the_words_are_promised() -> None:
    """What `status --json` shows as a source's state is one of these."""
    assert [str(state) for state in State] == [
        "connecting",
        "listening",
        "deaf",
        "unreachable",
        "tls failed",
        "not ami",
        "login refused",
        "unresponsive",
        "lost",
        "absent",
        "denied",
        "waiting",
        "unreadable",
        "disk full",
        "defect",
    ]


def test_conditions_compare_by_what_they_say() -> None:
    """Two conditions are one when state and detail are: that is how a change is known."""
    assert Condition(State.LOST, "closed") == Condition(State.LOST, "closed")
    assert Condition(State.LOST, "closed") != Condition(State.LOST, "reset")
    assert Condition(State.CONNECTING).detail == ""
