"""The watchdog of sources: silent sources, and logs with lost lines, raise alarms."""

from tests.support.clock import SetClock

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.guard.source_manager import PATIENCE, SourceWatchdog
from ringfence.parse.line_result import LogAlarm
from ringfence.sources.log_ingest import AlarmCount
from ringfence.sources.state import Condition, State

HEARD, LOST = Condition(State.LISTENING), Condition(State.LOST, "the connection was closed")


def names(alarms: Alarms) -> list[tuple[str, str]]:
    """Return the codes and subjects of active alarms."""
    return [(alarm.code, alarm.subject) for alarm in alarms.active]


def test_a_source_that_is_gone_for_long_is_an_alarm_until_it_is_back() -> None:
    """A source that is gone for long raises an alarm; a reconnection within seconds does not."""
    alarms = Alarms(SetClock(lambda: 0.0))
    silence = SourceWatchdog(alarms)
    silence.check({"pbx/ami": HEARD}, 0.0)
    silence.check({"pbx/ami": LOST}, 1.0)
    silence.check({"pbx/ami": LOST}, 1.0 + PATIENCE - 0.1)
    assert names(alarms) == []
    silence.check({"pbx/ami": LOST}, 1.0 + PATIENCE)
    assert names(alarms) == [("source.silent", "pbx/ami")]
    assert "the connection was closed" in alarms.active[0].text
    silence.check({"pbx/ami": HEARD}, 60.0)
    assert names(alarms) == []


def test_a_dismissed_source_stays_dismissed_until_it_stops_again() -> None:
    """The source is checked twice a second; only when it was back, its next stop is a new alarm."""
    alarms = Alarms(SetClock(lambda: 0.0))
    silence = SourceWatchdog(alarms)
    for now in (0.0, PATIENCE):
        silence.check({"pbx/ami": LOST}, now)
    alarms.dismiss(alarms.active[0].number, "alice")
    silence.check({"pbx/ami": LOST}, PATIENCE + 0.5)
    assert names(alarms) == []
    silence.check({"pbx/ami": HEARD}, 10.0)
    for now in (11.0, 11.0 + PATIENCE):
        silence.check({"pbx/ami": LOST}, now)
    assert names(alarms) == [("source.silent", "pbx/ami")]


def test_a_restored_alarm_clears_when_its_source_listens() -> None:
    """The alarm of an earlier run clears, although this run did not raise it."""
    alarms = Alarms(SetClock(lambda: 0.0))
    alarms.activate(AlarmCode.SOURCE_SILENT, "pbx/ami", "silent")
    SourceWatchdog(alarms).check({"pbx/ami": HEARD}, 0.0)
    assert names(alarms) == []


def test_a_source_that_is_configured_no_more_is_not_missed() -> None:
    """When a source is removed from the configuration, its alarm clears."""
    alarms = Alarms(SetClock(lambda: 0.0))
    silence = SourceWatchdog(alarms)
    for now in (0.0, PATIENCE):
        silence.check({"pbx/ami": LOST}, now)
    silence.check({}, PATIENCE + 1)
    assert names(alarms) == []


def test_a_log_that_was_never_there_is_waited_for() -> None:
    """A log that never existed raises no alarm; a log that existed and is gone raises one."""
    alarms = Alarms(SetClock(lambda: 0.0))
    silence = SourceWatchdog(alarms)
    waiting = Condition(State.WAITING)
    for now in (0.0, PATIENCE):
        silence.check({"pbx/log": waiting}, now)
    assert names(alarms) == []
    silence.check({"pbx/log": HEARD}, 10.0)
    for now in (11.0, 11.0 + PATIENCE):
        silence.check({"pbx/log": waiting}, now)
    assert names(alarms) == [("source.silent", "pbx/log")]


def test_each_increase_of_a_log_fault_is_an_alarm() -> None:
    """Each increase of a count raises the alarm again; the same number does not. Each fault has its code."""
    alarms = Alarms(SetClock(lambda: 0.0))
    silence = SourceWatchdog(alarms)
    for count in (0, 1, 1, 3):
        silence.on_log_alarms("pbx/log", [(LogAlarm.QUEUE_FULL, AlarmCount(count, float(count)))])
    # A reload made a new source, which counts from zero.
    silence.on_log_alarms("pbx/log", [(LogAlarm.QUEUE_FULL, AlarmCount(1, 9.0))])
    assert [(alarm.code, alarm.subject, alarm.times) for alarm in alarms.active] == [
        ("log.lost", "pbx/log", 3)
    ]
    silence.on_log_alarms("pbx/log", [(fault, AlarmCount(9, 10.0)) for fault in LogAlarm])
    assert {alarm.code for alarm in alarms.active} == {
        "log.lost",
        "log.silenced",
        "log.tampered",
        "log.clock",
        "log.journal_drops",
        "log.journal_user",
    }
