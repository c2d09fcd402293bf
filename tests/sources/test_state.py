"""The words for the state of a source: an interface that scripts compare."""

from ringfence.sources.state import Condition, State


def test_the_states_are_an_interface() -> None:
    """A source's state in `status --json` is one of these."""
    assert [str(state) for state in State] == [
        "connecting",
        "listening",
        "no events",
        "unreachable",
        "tls failed",
        "not ami",
        "no md5 challenge",
        "foreign user",
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


def test_conditions_compare_by_their_values() -> None:
    """Two conditions are equal if state and detail are: that is how a change is noticed."""
    assert Condition(State.LOST, "closed") == Condition(State.LOST, "closed")
    assert Condition(State.LOST, "closed") != Condition(State.LOST, "reset")
    assert Condition(State.CONNECTING).detail == ""
