"""The outbox of a channel: its filter, its digest, its pauses, and what it drops."""

from typing import Any

import pytest
from tests.features.notify.samples import WALL, alarm, ban

from ringfence.alarm_codes import AlarmCode
from ringfence.config.converters import Name, Text
from ringfence.features.notify import notifications
from ringfence.features.notify.alarms import NotifyAlarmCode
from ringfence.features.notify.outbox import KEPT, PROMPT, TRIES, Outbox
from ringfence.features.notify.settings import HookSettings, MailAddress, MailSettings, RuleName
from ringfence.features.notify.topics import QuietHours, Severity, Topic

NOON = 12 * 60
NIGHT = 3 * 60


def outbox(**changes: Any) -> Outbox:  # noqa: ANN401 - any key
    """Return the outbox of a hook."""
    return Outbox(HookSettings(command=(Text("/bin/true"),), **changes))


def add_bans(box: Outbox, number: int, now: float, rule: str = "guess") -> None:
    """Add bans."""
    for at in range(number):
        box.add(notifications.of_ban(ban(at, rule=rule), WALL), now)


def test_a_thousand_bans_in_a_minute_are_one_message() -> None:
    """All are counted, the first ones are kept, and the message waits for the time of the digest."""
    box = outbox()
    for second in range(50):
        add_bans(box, 20, float(second))

    assert box.take(59.0, NOON) is None
    found = box.take(60.0, NOON)
    assert found is not None
    assert (found["total"], found["counts"]) == (1_000, {"ban": {"guess": 1_000}})
    assert isinstance(found["events"], list)
    assert len(found["events"]) == KEPT
    box.succeeded()
    assert (box.take(1e6, NOON), box.sent, box.waiting) == (None, 1, 0)


def test_an_alarm_does_not_wait_for_the_digest() -> None:
    """It takes what waits with it, and the next message has the digest's distance."""
    box = outbox()
    add_bans(box, 2, 0.0)
    box.add(notifications.of_alarm(alarm()), 10.0)

    assert box.take(10.0 + PROMPT - 1, NOON) is None
    found = box.take(10.0 + PROMPT, NOON)
    assert found is not None
    assert found["counts"] == {"ban": {"guess": 2}, "alarm": {"phone.broken": 1}}
    box.succeeded()
    box.add(notifications.of_alarm(alarm()), 20.0)
    assert box.take(74.0, NOON) is None
    assert box.take(75.0, NOON) is not None


def test_the_filter_of_a_channel() -> None:
    """Events, rules and severity are conditions; rules concern bans only."""
    topics = outbox(events=(Topic.ALARM,))
    rules = outbox(rules=(RuleName("decoy"),))
    severe = outbox(severity=Severity.CRITICAL)
    for box in (topics, rules, severe):
        add_bans(box, 1, 0.0)
        add_bans(box, 1, 0.0, "decoy")
        box.add(notifications.of_alarm(alarm()), 0.0)
        box.add(notifications.of_alarm(alarm(AlarmCode.SOURCE_SILENT)), 0.0)

    assert [box.waiting for box in (topics, rules, severe)] == [2, 3, 1]


def test_a_channel_does_not_report_its_own_failure() -> None:
    """Its alarm goes to the other channels."""
    mine, other = outbox(), outbox(name=Name("other"))
    for box in (mine, other):
        box.add(notifications.of_alarm(alarm(NotifyAlarmCode.NOTIFY_FAILING, "hook")), 0.0)

    assert (mine.waiting, other.waiting) == (0, 1)


def test_quiet_hours_keep_all_but_critical_events() -> None:
    """The events of a night are one message in the morning, except for critical ones."""
    box = outbox(quiet=QuietHours(22 * 60, 7 * 60))
    add_bans(box, 3, 0.0)
    box.add(notifications.of_alarm(alarm()), 0.0)
    assert box.take(10_000.0, NIGHT) is None
    assert box.waiting == 4

    box.add(notifications.of_alarm(alarm(AlarmCode.SOURCE_SILENT)), 10_000.0)
    found = box.take(10_005.0, NIGHT)
    assert found is not None
    assert found["total"] == 5
    box.succeeded()
    add_bans(box, 1, 20_000.0)
    assert box.take(30_000.0, NIGHT) is None
    assert box.take(30_001.0, NOON) is not None


def test_quiet_hours_keep_a_message_that_failed() -> None:
    """It is tried again when they are over, with a critical event, or at the stop of the daemon."""
    box = outbox(quiet=QuietHours(22 * 60, 7 * 60))
    add_bans(box, 1, 0.0)
    first = box.take(60.0, 22 * 60 - 1)
    assert first is not None
    box.failed_with("refused", 60.0)
    add_bans(box, 1, 70.0)

    assert box.take(120.0, 22 * 60) is None
    for minute, last in ((7 * 60, False), (NIGHT, True)):
        assert box.take(120.0, minute, last=last) is first
        box.interrupted()
    box.add(notifications.of_alarm(alarm(AlarmCode.SOURCE_SILENT)), 120.0)
    assert box.take(120.0, NIGHT) is first
    box.succeeded()
    found = box.take(125.0, NIGHT)
    assert found is not None
    assert found["total"] == 2


def test_a_failed_message_is_tried_again_with_growing_pauses() -> None:
    """The message stays the same, and events that come meanwhile wait for the next one."""
    box = outbox()
    add_bans(box, 1, 0.0)
    first = box.take(60.0, NOON)
    assert box.take(61.0, NOON) is None  # it is being sent
    box.failed_with("refused", 61.0)
    add_bans(box, 5, 62.0)

    assert box.take(70.0, NOON) is None
    assert box.take(71.0, NOON) is first
    box.failed_with("refused", 71.0)
    assert box.take(90.0, NOON) is None
    assert box.take(91.0, NOON) is first
    box.succeeded()
    found = box.take(140.0, NOON)
    assert found is not None
    assert found["total"] == 5


def test_a_message_that_fails_for_long_is_dropped_and_counted() -> None:
    """After the last attempt the events are dropped; two alarms last until a message is delivered."""
    box, now = outbox(), 60.0
    add_bans(box, 3, 0.0)
    dropped = []
    for _ in range(TRIES):
        assert box.take(now, NOON) is not None
        dropped.append(box.failed_with("refused\x1b[2J", now))
        now += 600.0

    assert dropped == [0] * (TRIES - 1) + [3]
    assert [str(one.code) for one in box.alarms] == ["notify.failing", "notify.dropped"]
    assert box.alarms[0].text == "hook does not deliver messages: refused\\x1b[2J"
    assert box.alarms[1].text == "1 message with 3 events was dropped"
    assert box.take(now, NOON) is None
    add_bans(box, 1, now)
    found = box.take(now + 60, NOON)
    assert found is not None
    assert found["dropped"] == {"messages": 1, "events": 3}
    box.succeeded()
    assert (box.alarms, box.as_json()["error"]) == ([], "")


def test_a_report_that_arrives_shows_that_the_channel_works() -> None:
    """After a message was dropped, a delivered report ends both alarms."""
    box, now = mailbox(), 60.0
    add_bans(box, 3, 0.0)
    for _ in range(TRIES):
        assert box.take(now, NOON) is not None
        box.failed_with("refused", now)
        now += 600.0
    box.add_report(REPORT, lambda: None)
    assert box.take(now, NOON) is not None
    box.succeeded()

    assert (box.alarms, box.as_json()["error"]) == ([], "")


def test_a_single_failure_is_no_alarm() -> None:
    """A server that restarts is not worth an alarm."""
    box = outbox()
    add_bans(box, 1, 0.0)
    box.take(60.0, NOON)
    box.failed_with("refused", 60.0)
    assert box.alarms == []
    box.take(70.0, NOON)
    box.failed_with("refused", 70.0)
    assert [one.subject for one in box.alarms] == ["hook"]


def test_what_waits_is_bounded() -> None:
    """A million events take no more room than those that are kept."""
    box = outbox()
    notification = notifications.of_ban(ban(), WALL)
    for _ in range(100_000):
        box.add(notification, 0.0)

    assert box.waiting == 100_000
    assert sum(map(len, box._digest._kept.values())) == KEPT


def test_the_last_look_takes_everything() -> None:
    """At the daemon's stop neither the digest nor a pause nor quiet hours delay a message."""
    box = outbox(quiet=QuietHours(22 * 60, 7 * 60))
    add_bans(box, 1, 0.0)
    first = box.take(1.0, NIGHT, last=True)
    assert first is not None
    box.interrupted()
    assert box.take(1.0, NIGHT, last=True) is first
    box.failed_with("refused", 1.0)
    assert box.take(1.0, NIGHT, last=True) is first


@pytest.mark.parametrize("total", [0, 1])
def test_an_empty_outbox_has_no_message(total: int) -> None:
    """Only an event makes a message."""
    box = outbox()
    add_bans(box, total, 0.0)
    assert (box.take(1e9, NOON, last=True) is None) is (total == 0)


# -- reports

REPORT = {"total": 1, "report": {}}


def mailbox(**changes: Any) -> Outbox:  # noqa: ANN401 - any key
    """Return the outbox of a mail channel."""
    return Outbox(MailSettings(to=(MailAddress("root"),), **changes))


def test_a_report_passes_every_filter() -> None:
    """It is a message of its own, at once, in quiet hours too, whatever events the channel wants."""
    box, ended = mailbox(events=(), severity=Severity.CRITICAL, quiet=QuietHours(0, 360)), []
    box.add_report(REPORT, lambda: ended.append(1))

    assert box.waiting == 1
    assert box.take(0.0, NIGHT) == {**REPORT, "dropped": {"messages": 0, "events": 0}}
    assert box.has_report
    assert ended == []
    box.succeeded()
    assert (ended, box.has_report, box.waiting, box.take(1e6, NOON)) == ([1], False, 0, None)


def test_one_message_is_sent_at_a_time() -> None:
    """Events wait while a report is sent, and a report waits while events are sent."""
    box = mailbox()
    add_bans(box, 1, 0.0)
    assert box.take(60.0, NOON) is not None
    box.add_report(REPORT, lambda: None)
    assert box.take(61.0, NOON) is None
    box.succeeded()
    add_bans(box, 1, 61.0)
    found = box.take(62.0, NOON)  # the next digest is not due yet
    assert found is not None
    assert "report" in found
    assert box.take(500.0, NOON) is None
    box.succeeded()
    found = box.take(500.0, NOON)
    assert found is not None
    assert found["counts"] == {"ban": {"guess": 1}}


def test_a_report_that_fails_delays_no_other_message() -> None:
    """A report may be refused because of its size. It is tried again, while other messages are delivered."""
    box, ended, now = mailbox(), [], 0.0
    box.add_report(REPORT, lambda: ended.append(1))
    for tried in range(TRIES):
        assert ended == []
        found = box.take(now, NOON)
        assert found is not None
        assert "report" in found
        assert box.failed_with("552 too large", now) == (1 if tried == TRIES - 1 else 0)
        assert box.take(now + 1, NOON) is None
        box.add(notifications.of_alarm(alarm(AlarmCode.SOURCE_SILENT)), now)
        found = box.take(now + 60.0, NOON)
        assert found is not None
        assert "report" not in found
        if tried == 1:
            assert [one.text for one in box.alarms] == ["mail does not deliver messages: 552 too large"]
        if tried < TRIES - 1:
            box.succeeded()
        now += 700.0

    assert ended == [1]
    assert "notify.dropped" in [str(one.code) for one in box.alarms]
    assert now < 2 * 3_600


def test_a_report_does_not_delay_the_stop() -> None:
    """At the stop the events are sent before a report that waits."""
    box = mailbox()
    box.add_report(REPORT, lambda: None)
    add_bans(box, 1, 0.0)
    found = box.take(0.0, NOON, last=True)
    assert found is not None
    assert "report" not in found
    box.succeeded()
    found = box.take(0.0, NOON, last=True)
    assert found is not None
    assert "report" in found


def test_a_report_that_is_cancelled_is_not_tried_again() -> None:
    """It does not wait any more."""
    box, ended = mailbox(), []
    for sending in (False, True):
        box.add_report(REPORT, lambda: ended.append(1))
        if sending:
            assert box.take(0.0, NOON) is not None
        box.cancel_report()
        assert box.has_report is sending
        if sending:
            assert box.failed_with("refused", 0.0) == 0
    assert box.take(1e6, NOON) is None
    assert (ended, box.has_report, box.waiting) == ([], False, 0)


def test_a_report_that_is_cancelled_while_it_is_sent_may_arrive() -> None:
    """Its delivery is recorded, so that no second one is sent if reports are switched on again."""
    box, ended = mailbox(), []
    box.add_report(REPORT, lambda: ended.append(1))
    assert box.take(0.0, NOON) is not None
    box.cancel_report()
    box.succeeded()
    assert (ended, box.has_report) == ([1], False)
