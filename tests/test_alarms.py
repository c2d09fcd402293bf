"""Alarms: logged once, counted, bounded, and cleared."""

from collections.abc import Iterator
from math import inf

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.support.clock import SetClock
from tests.support.facts import Facts

from ringfence.alarm_codes import Alarm, AlarmCode, AnyAlarmCode, Mark, every_code
from ringfence.alarms import (
    LASTS,
    MINUTE,
    MOST,
    MOST_LOGGED,
    RESTORED_FOR,
    SHOWN,
    AlarmEvent,
    AlarmRecord,
    Alarms,
)
from ringfence.features.notify.alarms import NotifyAlarmCode

RULES = AlarmCode.FIREWALL_DAMAGED, "rules"
FULL = AlarmCode.LIST_FULL, ""
NOT_EFFECTIVE = AlarmCode.BAN_NOT_EFFECTIVE


class Bench:
    """Alarms with a clock that the test sets."""

    def __init__(self, logged: list[EventDict]) -> None:
        self.now = 1_000.0
        self.ahead = 0.0
        """Seconds by which the wall clock has been set ahead."""
        self.changes = Facts[AlarmEvent]()
        self.alarms = Alarms(SetClock(lambda: self.now + self.ahead, lambda: self.now), (self.changes,))
        self.logged = logged

    def changed(self) -> list[tuple[AnyAlarmCode, str, str, str]]:
        """Return the changes since the last call."""
        found = [(one.code, one.subject, one.text, one.change) for one in self.changes]
        self.changes.clear()
        return found

    def names(self) -> list[str]:
        """Return the names of the logged events."""
        return [str(entry["event"]) for entry in self.logged]


@pytest.fixture(name="bench")
def _bench() -> Iterator[Bench]:
    """Return a bench without alarms."""
    with capture_logs() as logged:
        yield Bench(logged)


def test_an_alarm_is_logged_once_and_counted(bench: Bench) -> None:
    """A repeated alarm is one line of the log and one alarm with a count."""
    for _ in range(3):
        bench.alarms.activate(*RULES, "they are gone")
        bench.now += 1

    assert bench.alarms.active == [
        AlarmRecord(1, *RULES, "they are gone", 1_000.0, 1_002.0, 1_002.0 + LASTS, 3)
    ]
    assert bench.logged == [
        {
            "event": "alarm.firewall.damaged",
            "log_level": "error",
            "subject": "rules",
            "text": "they are gone",
        }
    ]


def test_a_new_text_is_logged(bench: Bench) -> None:
    """If the text of an alarm changes, it is logged again and stays the same alarm."""
    bench.alarms.activate(*RULES, "one")
    bench.alarms.activate(*RULES, "another")

    assert [entry["text"] for entry in bench.logged] == ["one", "another"]
    assert [(alarm.text, alarm.times) for alarm in bench.alarms.active] == [("another", 2)]


def test_subjects_and_codes_are_separate(bench: Bench) -> None:
    """Each pair of code and subject is its own alarm; the newest comes first."""
    for code, subject in ((NOT_EFFECTIVE, "x"), (NOT_EFFECTIVE, "y"), (AlarmCode.PHONE_BROKEN, "x")):
        bench.now += 1
        bench.alarms.activate(code, subject, "text")

    assert [(alarm.code, alarm.subject) for alarm in bench.alarms.active] == [
        ("phone.broken", "x"),
        ("ban.not_effective", "y"),
        ("ban.not_effective", "x"),
    ]


def test_an_alarm_is_cleared_by_its_origin(bench: Bench) -> None:
    """Clearing is logged once; clearing an alarm that is not active does nothing."""
    bench.alarms.activate(*RULES, "text")
    for _ in range(2):
        bench.alarms.clear(*RULES)
    bench.alarms.clear(*FULL)

    assert bench.alarms.active == []
    assert bench.names() == ["alarm.firewall.damaged", "alarm.firewall.damaged.cleared"]


def test_an_alarm_that_is_not_repeated_clears(bench: Bench) -> None:
    """An alarm clears after its time, counted from the latest repeat; then it is new and is logged again."""
    bench.alarms.activate(*FULL, "text")
    bench.now += LASTS - 1
    bench.alarms.activate(*FULL, "text")
    bench.now += LASTS - 1
    assert len(bench.alarms.active) == 1
    bench.now += 1
    assert bench.alarms.active == []
    bench.alarms.activate(*FULL, "text")

    assert bench.names() == ["alarm.list.full"] * 2
    assert [(alarm.since, alarm.times) for alarm in bench.alarms.active] == [(bench.now, 1)]


def test_a_thousand_subjects_are_bounded(bench: Bench) -> None:
    """Each code has a limit of kept, shown and logged alarms; other codes are not affected."""
    for number in range(2 * MOST):
        bench.now += 0.001
        bench.alarms.activate(NOT_EFFECTIVE, str(number), "text")
    bench.alarms.activate(*RULES, "text")

    kept = [alarm for alarm in bench.alarms.active if alarm.code is NOT_EFFECTIVE]
    assert [alarm.subject for alarm in kept] == [str(MOST - 1 - number) for number in range(SHOWN)]
    assert kept[0].times == MOST + 1
    assert len(bench.logged) == MOST_LOGGED + 1
    bench.now += MINUTE
    bench.alarms.activate(NOT_EFFECTIVE, "3", "another text")
    assert len(bench.logged) == MOST_LOGGED + 2
    bench.now += LASTS
    bench.alarms.activate(NOT_EFFECTIVE, "new", "text")
    assert [alarm.subject for alarm in bench.alarms.active] == ["new"]


def test_no_flood_of_forged_subjects_hides_one_that_insists(bench: Bench) -> None:
    """An alarm beyond the limit is kept and shown as soon as it was activated more often than another one."""
    for number in range(MOST):
        bench.alarms.activate(NOT_EFFECTIVE, f"forged {number}", "text")
    bench.now += 1
    bench.alarms.activate(NOT_EFFECTIVE, "real", "text")
    assert "real" not in {alarm.subject for alarm in bench.alarms.active}
    bench.alarms.activate(NOT_EFFECTIVE, "real", "text")
    for number in range(2 * MOST):
        bench.now += 0.001
        bench.alarms.activate(NOT_EFFECTIVE, f"forged later {number}", "text")

    (real,) = [alarm for alarm in bench.alarms.active if alarm.subject == "real"]
    assert real.times == 2 * MOST + 2  # it is the newest, and counts those without room
    assert len(bench.alarms.active) == SHOWN
    assert bench.alarms.count() == {NOT_EFFECTIVE: MOST}
    assert len([alarm for alarm in bench.alarms.take_changes() if alarm.cleared is not None]) == 1


def test_a_shown_alarm_is_one_of_the_most_frequent_or_of_the_latest(bench: Bench) -> None:
    """Later alarms push no alarm out of sight that was activated more often."""
    for subject in ["real", "real", *map(str, range(2 * SHOWN))]:
        bench.now += 1
        bench.alarms.activate(NOT_EFFECTIVE, subject, "text")

    shown = [alarm.subject for alarm in bench.alarms.active]
    assert shown == [*(str(2 * SHOWN - 1 - number) for number in range(SHOWN - 1)), "real"]


def test_no_held_alarm_gives_its_place_away(bench: Bench) -> None:
    """An alarm that a part reports stays, however often another one is activated."""
    bench.alarms.hold([Alarm(NOT_EFFECTIVE, str(number), "text") for number in range(MOST)])
    for _ in range(3):
        bench.alarms.activate(NOT_EFFECTIVE, "real", "text")

    assert bench.alarms.count() == {NOT_EFFECTIVE: MOST}
    assert "real" not in {alarm.subject for alarm in bench.alarms.records()}


def test_a_held_alarm_lasts_as_long_as_it_is_reported(bench: Bench) -> None:
    """A held alarm counts no repeats and never expires; only its begin and its end are logged."""
    for text in ("3 bans wait", "4 bans wait", "5 bans wait"):
        bench.alarms.hold([Alarm(AlarmCode.FIREWALL_REFUSED, "", text)])
        bench.now += 2 * LASTS
    refused = AlarmRecord(1, AlarmCode.FIREWALL_REFUSED, "", "5 bans wait", 1_000.0, 1_000.0, held=True)
    assert bench.alarms.active == [refused]
    bench.alarms.activate(*RULES, "text")
    for _ in range(2):
        bench.alarms.hold([])

    assert [alarm.code for alarm in bench.alarms.active] == ["firewall.damaged"]
    assert bench.names() == [
        "alarm.firewall.refused",
        "alarm.firewall.damaged",
        "alarm.firewall.refused.cleared",
    ]


def test_held_alarms_are_bounded(bench: Bench) -> None:
    """At most ``MOST`` held alarms of a code are kept; when they clear, others take their place."""
    many = [Alarm(AlarmCode.LIST_UNRESOLVED, str(number), "text") for number in range(MOST + 2)]
    for _ in range(2):
        bench.alarms.hold(many)
    assert {alarm.times for alarm in bench.alarms.active} == {1}
    bench.alarms.hold(many[MOST:])
    assert {alarm.subject for alarm in bench.alarms.active} == {str(MOST), str(MOST + 1)}


def test_alarms_are_counted_by_code(bench: Bench) -> None:
    """Each active alarm counts, also one that is not shown; an alarm that has ended does not."""
    for number in range(SHOWN + 2):
        bench.alarms.activate(NOT_EFFECTIVE, str(number), "its packets arrive")
    bench.alarms.activate(*RULES, "they are gone", lasts=1.0)
    bench.now += 1.0

    assert bench.alarms.count() == {NOT_EFFECTIVE: SHOWN + 2}
    bench.alarms.dismiss(1, "alice")
    assert bench.alarms.count() == {NOT_EFFECTIVE: SHOWN + 1}


# -- their life -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [86_400.0, -86_400.0])
def test_a_set_clock_changes_no_length(bench: Bench, step: float) -> None:
    """An alarm clears after its time, whatever the wall clock shows meanwhile."""
    bench.alarms.activate(*RULES, "they are gone")
    bench.ahead = step
    bench.now += LASTS - 1
    assert len(bench.alarms.active) == 1
    bench.now += 1
    assert bench.alarms.active == []


def test_a_dismissed_alarm_returns_when_it_happens_again(bench: Bench) -> None:
    """It is hidden, and stays in the records; the next activation shows and logs it again."""
    bench.alarms.activate(NOT_EFFECTIVE, "192.0.2.1", "its packets arrive")
    number = bench.alarms.active[0].number
    bench.alarms.dismiss(number, "alice")
    assert bench.alarms.active == []
    assert [one.dismissed_by for one in bench.alarms.records()] == ["alice"]

    bench.alarms.activate(NOT_EFFECTIVE, "192.0.2.1", "its packets arrive")
    assert [one.number for one in bench.alarms.active] == [number]


@pytest.mark.parametrize("code", [code for code in every_code() if Mark.STATE in code.marks])
def test_a_dismissed_state_that_is_reported_again_and_again_stays_hidden(
    bench: Bench, code: AnyAlarmCode
) -> None:
    """It is counted and lasts, and returns with a new text, or when it has ended and begins again."""
    bench.alarms.activate(code, "", "refused")
    bench.alarms.dismiss(1, "alice")
    bench.changes.clear()
    for _ in range(3):
        bench.now += LASTS - 1
        bench.alarms.activate(code, "", "refused")
    assert (bench.alarms.active, bench.changed()) == ([], [])
    assert [(one.times, one.dismissed_by) for one in bench.alarms.records()] == [(4, "alice")]

    bench.alarms.activate(code, "", "not found")
    assert [(one.number, one.text) for one in bench.alarms.active] == [(1, "not found")]
    assert bench.changed() == [(code, "", "not found", "began")]
    bench.alarms.dismiss(1, "alice")
    bench.alarms.clear(code, "")
    bench.alarms.activate(code, "", "not found")
    assert [one.number for one in bench.alarms.active] == [2]


def test_a_dismissed_state_returns_when_it_begins_again(bench: Bench) -> None:
    """A held alarm stays hidden as long as it lasts, and is new when it begins again."""
    held = [Alarm(AlarmCode.FIREWALL_OFF, "", "off")]
    bench.alarms.hold(held)
    bench.alarms.dismiss(bench.alarms.active[0].number, "alice")
    bench.alarms.hold(held)
    assert bench.alarms.active == []
    bench.alarms.hold([])
    bench.alarms.hold(held)
    assert len(bench.alarms.active) == 1


def test_a_dismissed_state_that_gets_worse_returns(bench: Bench) -> None:
    """Its part shows it again, once; this neither begins an alarm nor repeats one that is shown."""
    bench.alarms.show_again(AlarmCode.FIREWALL_OFF, "")
    bench.alarms.hold([Alarm(AlarmCode.FIREWALL_OFF, "", "off")])
    bench.alarms.show_again(AlarmCode.FIREWALL_OFF, "")
    assert [one.times for one in bench.alarms.active] == [1]
    bench.alarms.dismiss(bench.alarms.active[0].number, "alice")
    bench.alarms.show_again(AlarmCode.FIREWALL_OFF, "")
    assert [(one.times, one.held, one.dismissed_by) for one in bench.alarms.active] == [(2, True, "")]


def test_a_restart_keeps_alarms(bench: Bench) -> None:
    """Alarms with time left return silently, also dismissed and held ones; numbers continue."""
    bench.alarms.activate(*RULES, "they are gone", 1_000.0)
    bench.alarms.activate(AlarmCode.EVIDENCE_HIDDEN, "192.0.2.1", "hides", 10.0)
    bench.alarms.activate(AlarmCode.ATTACK_DISTRIBUTED, "204 of pbx", "many", inf)
    held = [Alarm(AlarmCode.FIREWALL_OFF, "", "off")]
    bench.alarms.hold(held)
    bench.alarms.dismiss(4, "alice")
    records = bench.alarms.take_changes()
    assert bench.alarms.take_changes() == []

    bench.now += 100.0
    changes = Facts[AlarmEvent]()
    again = Alarms(SetClock(lambda: bench.now, lambda: bench.now), (changes,))
    again.restore(records, 5)
    again.hold(held)

    assert {one.code for one in again.active} == {RULES[0], AlarmCode.ATTACK_DISTRIBUTED}
    assert [one.number for one in again.records()] == [1, 3, 4]
    assert [(one.code, one.change) for one in changes] == [(AlarmCode.EVIDENCE_HIDDEN, "cleared")]
    bench.now += RESTORED_FOR
    assert {one.code for one in again.active} == {RULES[0]}
    again.activate(AlarmCode.EVIDENCE_HIDDEN, "192.0.2.1", "hides")
    assert again.records()[-1].number == 5


def restored(bench: Bench, *records: AlarmRecord, following: int | None = 100) -> Alarms:
    """Return the alarms of the next run; its changes are in ``bench.changes``."""
    bench.changes.clear()
    alarms = Alarms(SetClock(lambda: bench.now, lambda: bench.now), (bench.changes,))
    alarms.restore(records, following)
    return alarms


def test_a_state_that_is_known_late_stays_after_a_restart(bench: Bench) -> None:
    """A restored alarm of a part that needs time stays, with its number and its mark, until it is reported.

    Other held alarms clear at once. An alarm that is never reported again clears after ``RESTORED_FOR``.
    """
    late = [Alarm(NotifyAlarmCode.NOTIFY_FAILING, "mail", "fails"), Alarm(AlarmCode.WIRE_BLIND, "", "blind")]
    bench.alarms.hold([*late, Alarm(AlarmCode.FIREWALL_OFF, "", "off")])
    bench.alarms.dismiss(1, "alice")

    again = restored(bench, *bench.alarms.take_changes())
    again.hold([])
    assert bench.changed() == [(AlarmCode.FIREWALL_OFF, "", "off", "cleared")]
    again.hold(late[:1])
    assert [(one.number, one.dismissed_by) for one in again.records()] == [(1, "alice"), (2, "")]
    again.hold([])
    assert [one.number for one in again.records()] == [2]
    bench.now += RESTORED_FOR
    again.hold([])
    assert again.records() == []


def test_a_restart_ends_outage_mode(bench: Bench) -> None:
    """The alarm that all phones fail is not restored, because a restart ends outage mode."""
    record = AlarmRecord(7, AlarmCode.PHONES_ALL_FAILING, "pbx", "5 phones fail", 900.0, 990.0)
    again = restored(bench, record)

    assert again.active == []
    assert [(one.number, one.cleared) for one in again.take_changes()] == [(7, bench.now)]


def test_an_alarm_of_a_clock_in_the_future_clears(bench: Bench) -> None:
    """An alarm that a wrong clock recorded keeps its length, counted from now."""
    again = restored(bench, AlarmRecord(7, *RULES, "they are gone", 9e9, 9e9, 9e9 + 60.0))
    bench.now += 59.0
    assert len(again.active) == 1
    bench.now += 1.0
    assert again.active == []


def test_a_record_that_a_later_one_replaced_ends(bench: Bench) -> None:
    """Of two records with one code and subject the later is restored, and the other ends silently."""
    first = AlarmRecord(7, *RULES, "they are gone", 900.0, 990.0, 1_590.0)
    again = restored(bench, first, evolve(first, number=8))

    assert [one.number for one in again.records()] == [8]
    assert [(one.number, one.cleared) for one in again.take_changes()] == [(7, bench.now)]
    assert bench.changes == []


def test_unknown_numbers_overwrite_nothing(bench: Bench) -> None:
    """If the next number cannot be read, new alarms have numbers that no earlier one has."""
    again = restored(bench, following=None)
    again.activate(*RULES, "they are gone")

    assert [one.number for one in again.records()] == [int(bench.now)]


def test_unwritten_changes_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing takes the changes, the oldest are dropped."""
    monkeypatch.setattr("ringfence.alarms.MOST_UNWRITTEN", 10)
    for number in range(30):
        bench.alarms.activate(AlarmCode.EVIDENCE_HIDDEN, str(number), "hides")

    assert [one.subject for one in bench.alarms.take_changes()] == [str(n) for n in range(20, 30)]


def test_the_begin_and_the_end_of_an_alarm_are_passed_on(bench: Bench) -> None:
    """Each once, however it ends: cleared, over its time, or no longer held. Repeats are not passed on."""
    for _ in range(3):
        bench.alarms.activate(*RULES, "they are gone")
        bench.alarms.hold([Alarm(*FULL, "no room")])
    assert bench.changed() == [(*RULES, "they are gone", "began"), (*FULL, "no room", "began")]

    bench.alarms.clear(*RULES)
    bench.alarms.clear(*RULES)
    bench.alarms.hold([])
    assert bench.changed() == [(*RULES, "they are gone", "cleared"), (*FULL, "no room", "cleared")]

    bench.alarms.activate(*RULES, "again")
    bench.alarms.activate(*RULES, "and again")
    bench.now += LASTS
    bench.alarms.expire()
    bench.alarms.expire()
    assert [change for *_, change in bench.changed()] == ["began", "updated", "cleared"]
