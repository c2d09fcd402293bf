"""Alarms: said once, counted, bounded, and over in the end."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from ringfence.alarms import LASTS, MINUTE, MOST, MOST_LOGGED, SHOWN, Alarm, Alarms


class Bench:
    """Alarms and the time."""

    def __init__(self, logged: list[EventDict]) -> None:
        self.now = 1_000.0
        self.alarms = Alarms(lambda: self.now)
        self.logged = logged

    def names(self) -> list[str]:
        """Give the names of what was logged."""
        return [str(entry["event"]) for entry in self.logged]


@pytest.fixture(name="bench")
def _bench() -> Iterator[Bench]:
    """Nothing has been raised."""
    with capture_logs() as logged:
        yield Bench(logged)


def test_an_alarm_is_said_once_and_counted(bench: Bench) -> None:
    """However often it is raised it is one line of the log, and one alarm with its times."""
    for _ in range(3):
        bench.alarms.sound("firewall", "rules", "they are gone")
        bench.now += 1

    assert bench.alarms.up == [Alarm("firewall", "rules", "they are gone", 1_000.0, 1_002.0, 3)]
    assert bench.logged == [
        {
            "event": "alarm.firewall",
            "log_level": "error",
            "subject": "rules",
            "text": "they are gone",
        }
    ]


def test_a_new_text_is_said(bench: Bench) -> None:
    """What is to be done has changed: the log says so, and the alarm is the same one."""
    bench.alarms.sound("firewall", "rules", "one")
    bench.alarms.sound("firewall", "rules", "another")

    assert [entry["text"] for entry in bench.logged] == ["one", "another"]
    assert [(alarm.text, alarm.times) for alarm in bench.alarms.up] == [("another", 2)]


def test_subjects_and_names_are_apart(bench: Bench) -> None:
    """Each is an alarm of its own; the latest stands first."""
    for name, subject in (("a", "x"), ("a", "y"), ("b", "x")):
        bench.now += 1
        bench.alarms.sound(name, subject, "text")

    assert [(alarm.name, alarm.subject) for alarm in bench.alarms.up] == [("b", "x"), ("a", "y"), ("a", "x")]


def test_an_alarm_is_over_when_it_is_taken_back(bench: Bench) -> None:
    """That is said once; to take back what is not up is nothing."""
    bench.alarms.sound("firewall", "rules", "text")
    for _ in range(2):
        bench.alarms.over("firewall", "rules")
    bench.alarms.over("never", "raised")

    assert bench.alarms.up == []
    assert bench.names() == ["alarm.firewall", "alarm.firewall.over"]


def test_an_alarm_that_nobody_raises_again_is_over(bench: Bench) -> None:
    """After its time, counted from the last; then it is a new one, and said again."""
    bench.alarms.sound("limiter", "full", "text")
    bench.now += LASTS - 1
    bench.alarms.sound("limiter", "full", "text")
    bench.now += LASTS - 1
    assert len(bench.alarms.up) == 1
    bench.now += 1
    assert bench.alarms.up == []
    bench.alarms.sound("limiter", "full", "text")

    assert bench.names() == ["alarm.limiter", "alarm.limiter"]
    assert [(alarm.since, alarm.times) for alarm in bench.alarms.up] == [(bench.now, 1)]


def test_a_thousand_subjects_are_bounded(bench: Bench) -> None:
    """So many of a name are kept, the latest shown, some said; other names have room."""
    for number in range(2 * MOST):
        bench.now += 0.001
        bench.alarms.sound("ban.not_effective", str(number), "text")
    bench.alarms.sound("firewall", "rules", "text")

    kept = [alarm for alarm in bench.alarms.up if alarm.name == "ban.not_effective"]
    assert [alarm.subject for alarm in kept] == [str(MOST - 1 - number) for number in range(SHOWN)]
    assert kept[0].times == MOST + 1
    assert len(bench.logged) == MOST_LOGGED + 1
    bench.now += MINUTE
    bench.alarms.sound("ban.not_effective", "3", "another text")
    assert len(bench.logged) == MOST_LOGGED + 2
    bench.now += LASTS
    bench.alarms.sound("ban.not_effective", "new", "text")
    assert [alarm.subject for alarm in bench.alarms.up] == ["new"]
