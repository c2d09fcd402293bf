"""The weekly report: when it is made, of what, and by which channels it is sent."""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.features.notify.samples import HOSTILE
from tests.guard.test_requests import Office as Requests
from tests.support.amiserver import Script
from tests.support.attempts import ATTEMPT
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.kept import Kept
from tests.support.peers import Mailbox, mail_server
from tests.support.tables import with_tables
from tests.support.world import START

from ringfence.alarm_codes import AlarmCode
from ringfence.bans.unban import unban
from ringfence.config.converters import Duration, Name
from ringfence.config.schema import Settings
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.errors import StoreError
from ringfence.features.history.guard import History
from ringfence.features.limiter.guard import Limiter
from ringfence.features.notify.delivery import Delivery
from ringfence.features.notify.guard import Notifier
from ringfence.features.notify.mail import compose_report, page_of
from ringfence.features.notify.outbox import TRIES
from ringfence.features.notify.settings import (
    ChannelSettings,
    MailAddress,
    MailSettings,
    NotifySettings,
    ReportName,
)
from ringfence.features.report.guard import (
    RETRY_AFTER,
    WEEK,
    ReportCollector,
    SavedReports,
    WeeklyReports,
    next_report,
)
from ringfence.features.tops.guard import Tops
from ringfence.store.database import Store

GUESSER = "198.18.1.101"
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
MONDAY = next_report(START)
DAY = 86_400.0


def weekly(*names: str) -> NotifySettings:
    """Return a configuration with a weekly report and these mail channels."""
    mails = (MailSettings(name=Name(name), to=(MailAddress("root"),), digest=Duration(1.0)) for name in names)
    return NotifySettings(report=ReportName("weekly"), mail=tuple(mails))


class Office:
    """The reports of a daemon that a test starts again, with a clock and a sender of the test."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.ok = True
        self.error: Exception | None = None
        self.sent: list[tuple[str, float]] = []
        self.settings = weekly("mail")
        self.start()

    def start(self) -> None:
        """Create the notifier and the reports, as a start of the daemon does."""
        self.notifier = Notifier(with_tables(notify=self.settings), self.kept.clock, sender=self._send)
        collector: Any = SimpleNamespace(collect=self._collect)
        self.reports = WeeklyReports(self.notifier, self.kept.store, collector, self.kept.clock)

    async def _collect(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"made": self.kept.now}

    async def _send(self, channel: ChannelSettings, content: Mapping[str, object], *_: object) -> Delivery:
        report = content["report"]
        assert isinstance(report, dict)
        self.sent.append((channel.name, report["made"]))
        return Delivery(ok=self.ok, text="")

    def look(self, now: float) -> None:
        """Look for reports at a time, and send what is due."""
        self.kept.now = now
        asyncio.run(self._look())

    async def _look(self) -> None:
        await self.reports.check()
        for outbox, content in self.notifier._due():
            await self.notifier._deliver(outbox, content)


@pytest.fixture(name="office")
def _office(kept: Kept) -> Office:
    """Return reports that were never sent."""
    return Office(kept)


def test_the_first_report_comes_on_the_first_monday(office: Office) -> None:
    """The first one comes on the first Monday after the key was set, and then one each week."""
    for now in (START, MONDAY - 1, MONDAY, MONDAY + 5, MONDAY + DAY, MONDAY + WEEK + 7_200):
        office.look(now)

    assert office.sent == [("mail", MONDAY), ("mail", MONDAY + WEEK + 7_200)]


def test_a_restart_neither_repeats_nor_loses_a_report(office: Office) -> None:
    """The time of the last report is in the database, and that of the first start."""
    office.look(START)
    office.start()
    office.look(MONDAY + 60)
    office.start()
    office.look(MONDAY + 120)
    assert office.sent == [("mail", MONDAY + 60)]

    office.start()  # the daemon did not run for three weeks
    office.look(MONDAY + 3 * WEEK + 2 * DAY)
    office.look(MONDAY + 3 * WEEK + 3 * DAY)
    assert office.sent[1:] == [("mail", MONDAY + 3 * WEEK + 2 * DAY)]


def test_a_report_that_was_not_delivered_is_made_again_after_a_restart(office: Office) -> None:
    """A report that still waits at the stop is not lost."""
    office.look(START)
    office.ok = False
    office.look(MONDAY)
    office.ok = True
    office.start()
    office.look(MONDAY + 60)
    office.start()
    office.look(MONDAY + 120)

    assert office.sent == [("mail", MONDAY), ("mail", MONDAY + 60)]


def test_a_report_that_is_dropped_is_not_made_again(office: Office) -> None:
    """After the last try the next report is that of the next Monday, and an alarm counts the drop."""
    office.look(START)
    office.ok = False
    with capture_logs():
        for number in range(TRIES + 5):
            office.look(MONDAY + number * 700)

    assert office.sent == [("mail", MONDAY)] * TRIES
    assert "notify.dropped" in {str(alarm.code) for alarm in office.notifier.alarms()}


def test_each_channel_has_its_own_time(office: Office) -> None:
    """A channel that is added gets its first report on its first Monday; one that is removed is forgotten."""
    office.look(START)
    office.look(MONDAY)
    office.notifier.configure(with_tables(notify=weekly("mail", "oncall")))
    office.look(MONDAY + 60)
    office.look(MONDAY + WEEK)
    assert office.sent[1:] == [("mail", MONDAY + WEEK), ("oncall", MONDAY + WEEK)]
    office.notifier.configure(with_tables(notify=NotifySettings()))
    office.look(MONDAY + WEEK + 60)

    assert saved(office.kept.store).load() == {}


@pytest.mark.parametrize("error", [StoreError("disk I/O error"), ZeroDivisionError()])
def test_a_report_that_cannot_be_made_is_tried_again(office: Office, error: Exception) -> None:
    """The error is logged, does not end the daemon, and the report is made an hour later."""
    office.look(START)
    office.error = error
    with capture_logs() as logged:
        office.look(MONDAY)
        office.look(MONDAY + 60)
    office.error = None
    office.look(MONDAY + 120)
    assert office.sent == []
    office.look(MONDAY + RETRY_AFTER)

    assert office.sent == [("mail", MONDAY + RETRY_AFTER)]
    events = [entry["event"] for entry in logged if entry["event"].startswith("report.")]
    assert events == ["report.failed" if isinstance(error, StoreError) else "report.defect"]
    assert ("disk" in office.kept.store.best_effort.error) is isinstance(error, StoreError)


def test_without_a_writable_database_there_is_no_report(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report whose time cannot be recorded would be sent again after each restart."""
    office.look(START)

    def full(*_: object) -> None:
        raise StoreError("database or disk is full")

    with monkeypatch.context() as broken, capture_logs() as logged:
        broken.setattr(office.kept.store.state, "set_fact", full)
        for second in range(20):
            office.start()
            office.look(MONDAY + 10.0 * second)
    assert office.sent == []
    assert "report.failed" in {entry["event"] for entry in logged}
    office.start()
    office.look(MONDAY + 600.0)
    assert office.sent == [("mail", MONDAY + 600.0)]


def saved(store: Store) -> SavedReports:
    """Return when each channel sent its last report."""
    return SavedReports(store.state, store.best_effort)


def collected(kept: Kept, names: Sequence[str]) -> dict[str, Any]:
    """Return the report of guesses at these accounts, of which each has a phone that needs a person."""
    side = kept.side
    features = (History(side), Tops(side))
    judge: Any = None
    asked = Requests(kept, Limiter(side, judge)).handlers
    handlers = {**asked, **features[0].handlers(), **features[1].handlers()}
    for name in names:
        attempt = evolve(ATTEMPT, account=name)
        for feature in features:
            feature.on_judgement(Judgement(attempt, ip_network(GUESSER), Disposition.COUNTED))
        kept.alarms.activate(AlarmCode.PHONE_BROKEN, name, f"{name} fails")
    kept.ban(GUESSER)
    kept.now += 60.0
    asyncio.run(unban(kept.enforcer, [ip_network(GUESSER)]))
    reloader: Any = SimpleNamespace(settings=Settings())
    return asyncio.run(ReportCollector(side, handlers, reloader).collect())


def test_the_report_is_made_of_the_answers(kept: Kept) -> None:
    """It has the attempts, the bans that ended, the phones and the dropped packets, and can be sent."""
    found = collected(kept, ["alice", "alice", "bob"])

    assert json.loads(json.dumps(found)) == found
    assert [(row["name"], row["attempts"]) for row in found["accounts"]] == [("alice", 2), ("bob", 1)]
    assert [(row["name"], row["attempts"]) for row in found["addresses"]] == [(GUESSER, 3)]
    assert [row["subject"] for row in found["phones"]] == ["alice", "bob"]
    assert (found["held"]["bans"], found["held"]["ends"]) == (1, {"removed": 1})
    assert found["dropped"]["limiter"] == 0
    assert found["history"]["totals"]["bans"] == {"admin": 1}


def tags(page: str) -> set[str]:
    """Return the names of the elements of a page."""
    return set(re.findall(r"<(\w+)", page))


def test_hostile_names_are_escaped_in_the_answers(kept: Kept) -> None:
    """No account name adds a line, a control character or an element to the text and to the page."""
    found = {"report": collected(kept, HOSTILE)}
    text, page = compose_report(found, "pbx1").body, page_of(found)

    assert page is not None
    for part in (text, page):
        assert all(line.isprintable() for line in part.split("\n"))
        assert "\\x1b[2J" in part
    assert max(map(len, text.split("\n"))) <= 80
    assert len(text) < 10_000
    assert tags(page) == tags(page_of({"report": collected(kept, ["alice"])}))


def test_a_mail_of_a_running_daemon(tmp_path: Path) -> None:
    """A daemon that did not run on Monday sends the report of the last seven days soon after its start."""
    with (
        mail_server(Mailbox()) as box,
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
    ):
        mail = {"to": ["root"], "port": box.port, "events": ["unban"], "timeout": "60s"}
        guard = Guard(
            tmp_path,
            ami={"port": pbx.port},
            rules={"guess": {"attempts": 3}},
            notify={"report": "weekly", "mail": [mail]},
        )
        with guard:
            until(lambda: guard.banned() == {GUESSER}, "the ban")
        began = time.time()
        with Store.open(tmp_path / "ringfence.db", owner=True) as store:
            saved(store).save({"mail": began - WEEK - DAY})
        with guard:
            until(lambda: box.mails, "the report", seconds=60)
            until(lambda: guard.status()["notify"][0]["sent"] == 1, "the answer")
        [found] = box.mails
        text, page = (part.get_content() for part in found.iter_parts())

    assert found["Subject"].endswith("] report of 7 days")
    for part in (text, page):
        assert GUESSER in part
        assert "alice" in part
    assert "limiter dropped 0 packets" in text
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        assert saved(store).load()["mail"] >= began
