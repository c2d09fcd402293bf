"""Silence: sources that tell nothing, and logs that lack lines, are alarms."""

from ringfence.alarms import Alarms
from ringfence.silence import PATIENCE, Silence
from ringfence.sources.state import Condition, State

HEARD, LOST = Condition(State.LISTENING), Condition(State.LOST, "the connection was closed")


def names(alarms: Alarms) -> list[tuple[str, str]]:
    """Give what is up."""
    return [(alarm.name, alarm.subject) for alarm in alarms.up]


def test_a_source_that_is_gone_for_long_is_an_alarm_until_it_is_back() -> None:
    """A connection that is made anew within seconds is none."""
    alarms = Alarms(lambda: 0.0)
    silence = Silence(alarms)
    silence.look({"pbx/ami": HEARD}, 0.0)
    silence.look({"pbx/ami": LOST}, 1.0)
    silence.look({"pbx/ami": LOST}, 1.0 + PATIENCE - 0.1)
    assert names(alarms) == []
    silence.look({"pbx/ami": LOST}, 1.0 + PATIENCE)
    assert names(alarms) == [("source.silent", "pbx/ami")]
    assert "the connection was closed" in alarms.up[0].text
    silence.look({"pbx/ami": HEARD}, 60.0)
    assert names(alarms) == []


def test_a_source_that_is_configured_no_more_is_not_missed() -> None:
    """Its alarm goes with it."""
    alarms = Alarms(lambda: 0.0)
    silence = Silence(alarms)
    for now in (0.0, PATIENCE):
        silence.look({"pbx/ami": LOST}, now)
    silence.look({}, PATIENCE + 1)
    assert names(alarms) == []


def test_a_log_that_was_never_there_is_waited_for() -> None:
    """One that was there and is gone is missed."""
    alarms = Alarms(lambda: 0.0)
    silence = Silence(alarms)
    waiting = Condition(State.WAITING)
    for now in (0.0, PATIENCE):
        silence.look({"pbx/log": waiting}, now)
    assert names(alarms) == []
    silence.look({"pbx/log": HEARD}, 10.0)
    for now in (11.0, 11.0 + PATIENCE):
        silence.look({"pbx/log": waiting}, now)
    assert names(alarms) == [("source.silent", "pbx/log")]


def test_what_asterisk_says_of_its_log_is_an_alarm_each_time() -> None:
    """The same number again is nothing new."""
    alarms = Alarms(lambda: 0.0)
    silence = Silence(alarms)
    for count in (0, 1, 1, 3):
        silence.lost("pbx/log", [("lines were dropped", count)])
    assert [(alarm.name, alarm.subject, alarm.times) for alarm in alarms.up] == [
        ("log.lost", "pbx/log: lines were dropped", 2)
    ]
