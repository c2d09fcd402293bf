"""The notifier: from the daemon's parts to one message for each channel, with a sender of the test."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.features.notify.samples import WALL, alarm, ban
from tests.support.clock import SetClock
from tests.support.tables import with_tables

from ringfence.ban_facts import Placed
from ringfence.config.converters import Duration, Name, Text
from ringfence.errors import ControlError
from ringfence.features.notify import guard as module
from ringfence.features.notify import notifications
from ringfence.features.notify.alarms import NotifyAlarmCode
from ringfence.features.notify.delivery import Delivery
from ringfence.features.notify.guard import MAX_NAMED, Notifier
from ringfence.features.notify.outbox import TRIES
from ringfence.features.notify.settings import (
    ChannelSettings,
    HookSettings,
    MailAddress,
    MailSettings,
    NotifySettings,
    ReportName,
)

OK = Delivery(ok=True, text="ok")
REFUSED = Delivery(ok=False, text="refused")
NOON = 12 * 60


def hook(name: str, digest: float = 0.01) -> HookSettings:
    """Return a channel."""
    return HookSettings(name=Name(name), command=(Text("/x"),), digest=Duration(digest))


class Desk:
    """A notifier with channels, and what they were asked to send."""

    def __init__(self, *names: str, digest: float = 0.01) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Delivery] = {}
        self.hanging: set[str] = set()
        self.slow = 0.0
        self.settings = NotifySettings(hook=tuple(hook(name, digest) for name in names))
        self.notifier = Notifier(
            with_tables(notify=self.settings),
            SetClock(wall=lambda: WALL, mono=time.monotonic),
            sender=self._send,
        )

    async def _send(
        self,
        channel: ChannelSettings,
        content: Mapping[str, object],
        host: str,
        databases: tuple[Path, ...],
    ) -> Delivery:
        self.sent.append((channel.name, dict(content)))
        if channel.name in self.hanging:
            await asyncio.sleep(3_600)
        await asyncio.sleep(self.slow)
        return self.answers.get(channel.name, OK)

    def run(self, act: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run the notifier while ``act`` runs."""

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.notifier.run())
                await act()
                task.cancel()

        asyncio.run(both())

    async def until(self, number: int) -> None:
        """Wait for a number of messages."""
        async with asyncio.timeout(60):
            while len(self.sent) < number:  # noqa: ASYNC110 - the sender has no event
                await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and wait briefly at the stop."""
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "STOP_PATIENCE", 0.3)
    monkeypatch.setattr(module, "LAST_PATIENCE", 0.2)


def test_each_event_reaches_each_channel() -> None:
    """Bans, unbans, alarms and the start are one message by each channel."""
    desk = Desk("one", "two")

    async def act() -> None:
        desk.notifier.on_start("nftables")
        desk.notifier.on_fact(Placed([ban(1), ban(2)], announced=True))
        desk.notifier.on_unban(["198.18.0.1"], "")
        desk.notifier.on_fact(alarm())
        await desk.until(2)

    with capture_logs() as logged:
        desk.run(act)

    assert sorted(name for name, _ in desk.sent) == ["one", "two"]
    counts = {"ban": {"guess": 2}, "unban": {"": 1}, "alarm": {"phone.broken": 1}, "start": {"": 1}}
    assert [content["counts"] for _, content in desk.sent] == [counts] * 2
    assert [entry["event"] for entry in logged] == ["notify.sent"] * 2


def test_a_channel_that_hangs_delays_no_other() -> None:
    """Each channel has a task of its own."""
    desk = Desk("slow", "fast")
    desk.hanging = {"slow"}

    async def act() -> None:
        for at in range(3):
            desk.notifier.on_fact(Placed([ban(at)], announced=True))
            await desk.until(2 + at)

    desk.run(act)

    assert [name for name, _ in desk.sent].count("slow") == 1
    assert [name for name, _ in desk.sent].count("fast") == 3


def test_a_failure_is_logged_and_becomes_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is tried again; the alarm clears when it arrives."""
    monkeypatch.setattr("ringfence.features.notify.outbox.FIRST_PAUSE", 0.01)
    desk = Desk("one")
    desk.answers["one"] = REFUSED

    async def act() -> None:
        desk.notifier.on_fact(Placed([ban()], announced=True))
        await desk.until(2)
        await asyncio.sleep(0)
        assert [one.code for one in desk.notifier.alarms()] == [NotifyAlarmCode.NOTIFY_FAILING]
        [state] = desk.notifier.section().more["notify"]
        assert (state["channel"], state["failed"], state["waiting"]) == ("one", 2, 1)
        desk.answers.clear()
        await desk.until(3)
        await asyncio.sleep(0.01)
        assert desk.notifier.alarms() == []

    with capture_logs() as logged:
        desk.run(act)
    assert [entry["event"] for entry in logged] == ["notify.failed"] * 2 + ["notify.sent"]


def test_the_stop_sends_what_waits() -> None:
    """The last message has the stop, and does not wait for the digest."""
    desk = Desk("one", digest=3_600.0)
    desk.notifier.on_fact(Placed([ban()], announced=True))

    asyncio.run(desk.notifier.stop())

    [(_, content)] = desk.sent
    assert content["counts"] == {"ban": {"guess": 1}, "stop": {"": 1}}


def test_the_stop_waits_for_no_channel_that_hangs() -> None:
    """Messages that could not be sent are logged."""
    desk = Desk("hangs", "refuses")
    desk.hanging, desk.answers = {"hangs"}, {"refuses": REFUSED}
    began = time.monotonic()

    with capture_logs() as logged:
        asyncio.run(desk.notifier.stop())

    assert time.monotonic() - began < 20
    dropped = {entry["channel"] for entry in logged if entry["event"] == "notify.dropped"}
    assert dropped == {"hangs", "refuses"}


def test_a_late_event_at_the_stop_is_logged() -> None:
    """A ban while another channel hangs is too late for a channel that has sent its last message."""
    desk = Desk("hangs", "sends")
    desk.hanging = {"hangs"}

    async def stop() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(desk.notifier.stop())
            await asyncio.sleep(0.05)
            desk.notifier.on_fact(Placed([ban()], announced=True))

    with capture_logs() as logged:
        asyncio.run(stop())

    dropped = {entry["channel"]: entry["events"] for entry in logged if entry["event"] == "notify.dropped"}
    assert dropped == {"hangs": 2, "sends": 1}


def test_the_stop_does_not_interrupt_a_message() -> None:
    """A message that is being sent is not sent twice."""
    desk = Desk("one")
    desk.slow = 0.1

    async def act() -> None:
        desk.notifier.on_fact(Placed([ban()], announced=True))
        await desk.until(1)

    desk.run(act)
    asyncio.run(desk.notifier.stop())

    assert [content["counts"] for _, content in desk.sent] == [{"ban": {"guess": 1}}, {"stop": {"": 1}}]


def test_an_interrupted_message_is_sent_again_at_the_stop() -> None:
    """The attempt that the stop cancels is repeated once."""
    desk = Desk("one")
    desk.hanging = {"one"}

    async def act() -> None:
        desk.notifier.on_fact(Placed([ban()], announced=True))
        await desk.until(1)

    desk.run(act)
    desk.hanging = set()
    asyncio.run(desk.notifier.stop())

    assert [content["counts"] for _, content in desk.sent] == [
        {"ban": {"guess": 1}},
        {"ban": {"guess": 1}},
        {"stop": {"": 1}},
    ]


def test_a_reload_keeps_what_a_channel_has_collected() -> None:
    """A channel with the same settings goes on; a new one begins, and a removed one ends."""
    desk = Desk("one", "two", digest=3_600.0)
    desk.notifier.on_fact(Placed([ban()], announced=True))
    kept = desk.settings.hook[0]
    desk.notifier.on_fact(with_tables(notify=NotifySettings(hook=(kept, hook("three")))))

    assert [(state["channel"], state["waiting"]) for state in desk.notifier.section().more["notify"]] == [
        ("one", 1),
        ("three", 0),
    ]


def test_a_changed_channel_keeps_what_waits() -> None:
    """New settings of a channel apply to its events and to its message that failed, at once."""
    desk = Desk("one", digest=3_600.0)
    desk.answers["one"] = REFUSED

    async def act() -> None:
        desk.notifier.on_fact(Placed([ban()], announced=True))
        desk.notifier.on_fact(Placed([ban()], announced=True))
        desk.notifier.on_fact(with_tables(notify=NotifySettings(hook=(hook("one"),))))
        await desk.until(1)
        await asyncio.sleep(0.05)  # the failure is recorded
        desk.answers.clear()
        desk.notifier.on_fact(with_tables(notify=NotifySettings(hook=(hook("one", 0.02),))))
        await desk.until(2)

    desk.run(act)
    assert [content["total"] for _, content in desk.sent] == [2, 2]


def test_a_removed_channel_reports_what_it_drops() -> None:
    """The log has the number of events that were not sent."""
    desk = Desk("one", "two", digest=3_600.0)
    desk.notifier.on_fact(Placed([ban()], announced=True))
    with capture_logs() as logged:
        desk.notifier.on_fact(with_tables(notify=NotifySettings()))

    assert [(entry["event"], entry["channel"], entry["events"]) for entry in logged] == [
        ("notify.dropped", "one", 1),
        ("notify.dropped", "two", 1),
    ]


def test_a_test_message_reports_each_channel() -> None:
    """One channel or all; a name that does not exist is an error with the names."""
    desk = Desk("one", "two")
    desk.answers["two"] = REFUSED

    assert asyncio.run(desk.notifier.test(None)) == [
        {"channel": "one", "ok": True, "text": "ok"},
        {"channel": "two", "ok": False, "text": "refused"},
    ]
    assert asyncio.run(desk.notifier.test("one")) == [{"channel": "one", "ok": True, "text": "ok"}]
    with pytest.raises(ControlError, match=r"^there is no channel x; the channels are: one, two$"):
        asyncio.run(desk.notifier.test("x"))
    with pytest.raises(ControlError, match=r"^the configuration has none in \[notify\]; fix: add a channel"):
        asyncio.run(Desk().notifier.test(None))


def test_a_test_message_that_arrives_shows_that_the_channel_works() -> None:
    """After a message was dropped, no failure counts any more; one that waits is tried again at once."""
    desk = Desk("one")
    [box] = desk.notifier._outboxes
    now = 0.0
    for number in range(TRIES + 2):
        box.add(notifications.of_alarm(alarm()), now)
        now += 600.0
        assert box.take(now, NOON) is not None
        box.failed_with("refused", now)
        assert (NotifyAlarmCode.NOTIFY_FAILING in _codes(desk)) is (number not in {0, TRIES})
        if number == TRIES - 1:
            asyncio.run(desk.notifier.test("one"))
            assert _codes(desk) == [NotifyAlarmCode.NOTIFY_DROPPED]

    assert box.take(now, NOON) is None
    asyncio.run(desk.notifier.test("one"))
    assert NotifyAlarmCode.NOTIFY_FAILING in _codes(desk)  # until the message that waits arrives
    assert box.take(now, NOON) is not None
    box.succeeded()
    assert _codes(desk) == []


def _codes(desk: Desk) -> list[str]:
    return [str(one.code) for one in desk.notifier.alarms()]


def test_an_unban_of_many_names_the_first() -> None:
    """A command may name thousands of addresses."""
    desk = Desk("one", digest=3_600.0)
    desk.notifier.on_unban([f"198.18.0.{at}" for at in range(MAX_NAMED + 5)], "")
    asyncio.run(desk.notifier.stop())

    [event] = [event for event in desk.sent[0][1]["events"] if event["event"] == "unban"]
    assert event["subject"].endswith("198.18.0.9, and 5 more")


def test_taking_an_event_costs_little() -> None:
    """Ten thousand bans for three channels cost much less than their bans: under 30 µs each."""
    desk = Desk("one", "two", "three", digest=3_600.0)
    bans = [ban(at) for at in range(10_000)]

    def taken() -> float:
        began = time.thread_time()
        for one in bans:
            desk.notifier.on_fact(Placed([one], announced=True))
        return time.thread_time() - began

    assert any(taken() < 0.3 for _ in range(5))


# -- reports


def weekly(*names: str) -> NotifySettings:
    """Return a configuration with a weekly report, mail channels and a hook."""
    mails = tuple(MailSettings(name=Name(name), to=(MailAddress("root"),)) for name in names)
    return NotifySettings(report=ReportName("weekly"), mail=mails, hook=(hook("hook"),))


def test_reports_go_by_mail_only() -> None:
    """Each mail channel sends a report, and no other channel; without the key no channel does."""
    desk = Desk()
    assert desk.notifier.report_channels() == []
    desk.notifier.on_fact(with_tables(notify=evolve(weekly("one", "two"), report=None)))
    assert desk.notifier.report_channels() == []
    desk.notifier.on_fact(with_tables(notify=weekly("one", "two")))
    assert desk.notifier.report_channels() == ["one", "two"]
    ended: list[str] = []

    async def act() -> None:
        for name in desk.notifier.report_channels():
            desk.notifier.on_report(name, {"since": "x"}, partial(ended.append, name))
            assert desk.notifier.has_report(name)
        await desk.until(2)

    desk.run(act)
    assert [name for name, content in desk.sent if content["report"] == {"since": "x"}] == ["one", "two"]
    assert ended == ["one", "two"]


def test_a_report_that_hangs_delays_no_other_channel() -> None:
    """Each channel has a task of its own, and the report of one is sent once."""
    desk = Desk()
    desk.notifier.on_fact(with_tables(notify=weekly("slow", "fast")))
    desk.hanging = {"slow"}

    async def act() -> None:
        for name in desk.notifier.report_channels():
            desk.notifier.on_report(name, {}, lambda: None)
        desk.notifier.on_fact(Placed([ban()], announced=True))
        await desk.until(3)

    desk.run(act)
    assert sorted(name for name, _ in desk.sent) == ["fast", "hook", "slow"]


def test_a_report_is_cancelled_with_its_key() -> None:
    """A reload without the key, and one that makes the channel a hook, removes a report that waits."""
    desk = Desk()
    without = evolve(weekly("one"), report=None)
    other = NotifySettings(report=ReportName("weekly"), hook=(hook("one"),))
    for settings in (without, other):
        desk.notifier.on_fact(with_tables(notify=weekly("one")))
        desk.notifier.on_report("one", {}, lambda: None)
        desk.notifier.on_fact(with_tables(notify=settings))
        assert not desk.notifier.has_report("one")
        desk.notifier.on_report("one", {}, lambda: None)  # it was made meanwhile
        assert not desk.notifier.has_report("one")


def test_a_report_that_the_stop_could_not_send_is_not_dropped() -> None:
    """The next start makes it again, so the log does not count it."""
    desk = Desk()
    desk.notifier.on_fact(with_tables(notify=weekly("one")))
    desk.answers = {"one": REFUSED}
    desk.notifier.on_report("one", {}, lambda: None)
    with capture_logs() as logged:
        asyncio.run(desk.notifier.stop())

    dropped = {entry["channel"]: entry["events"] for entry in logged if entry["event"] == "notify.dropped"}
    assert dropped == {"one": 1}  # the event of the stop
