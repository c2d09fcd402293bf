"""The recorder: what the counters gain is recorded once, whatever happens to the daemon and the clock."""

import asyncio
import contextlib
import json
import sqlite3
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.detect.events import event
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.kept import Kept
from tests.support.world import START

from ringfence.control_server import Encoded
from ringfence.features.history.guard import History
from ringfence.features.history.table import DAY, MINUTE, Slot, Timeline
from ringfence.values.attempt import AttemptKind
from ringfence.values.ban import Ban
from ringfence.values.event import EventKind

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()


class Recorded:
    """A recorder of parts that are started, at the begin of a minute."""

    def __init__(self, kept: Kept) -> None:
        kept.side.start()
        kept.now = START // 60 * 60
        self.kept = kept
        self.begin()

    def begin(self) -> None:
        """Create a new recorder, as a new daemon does."""
        kept = self.kept
        self.recorder = History(kept.side)

    def guess(self) -> None:
        """Make the detector judge an attempt with an unproven address."""
        self.kept.detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED), self.kept.clock.mono())

    def wait(self, seconds: float) -> None:
        """Wait, and record."""
        self.kept.now += seconds
        self.recorder.record()

    def minutes(self) -> dict[int, dict[str, int]]:
        """Return the counts of each recorded minute, by its distance from the begin in seconds."""
        slots = Timeline(self.kept.store.connection).read(MINUTE, 0, START * 2)
        return {slot.start - int(START // 60 * 60): dict(slot.counts) for slot in slots}

    def ask(self, **request: object) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Return the answer that a command would read."""
        return json.loads(b"".join(asyncio.run(self.recorder.answer(request)).parts))


@pytest.fixture(name="recorded")
def _recorded(kept: Kept) -> Recorded:
    return Recorded(kept)


def test_an_answer_at_the_turn_of_a_minute_counts_once(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts that are recorded while the database is read are not added to those of the database."""
    recorded.guess()
    encoded, once = recorded.recorder._encoded, iter([recorded.recorder.record])

    def meanwhile(seconds: float, newest: list[Slot]) -> Encoded:
        for record in once:
            record()
        return encoded(seconds, newest)

    monkeypatch.setattr(recorded.recorder, "_encoded", meanwhile)
    assert recorded.ask(seconds=600)["totals"]["attempts"] == {"guess": {"total": 1, "proven": 0}}


def test_each_minute_has_what_happened_in_it(recorded: Recorded) -> None:
    """Attempts, bans and unbans are in the minute in which they were counted, and only there."""
    recorded.guess()
    recorded.kept.ban("203.0.113.1")
    recorded.wait(60)
    recorded.guess()
    recorded.guess()
    enforcer = recorded.kept.enforcer
    enforcer.apply(enforcer.book.unban(enforcer.ledger.all_keys()))
    recorded.wait(60)
    recorded.wait(60)

    assert recorded.minutes() == {
        0: {"attempts.guess.total": 1, "bans.admin": 1},
        60: {"attempts.guess.total": 2, "unbans": 1},
        120: {},
    }


def test_a_rule_of_another_version_has_no_name_of_its_own(recorded: Recorded) -> None:
    """The number of names is bounded, whatever the database calls a rule."""
    now = recorded.kept.now
    recorded.kept.add(Ban(ip_network("203.0.113.8"), since=now, expires=now + 60, rule="unknown rule"))
    recorded.wait(60)

    assert recorded.minutes() == {0: {"bans.other": 1}}


def test_a_restart_counts_nothing_twice(recorded: Recorded) -> None:
    """A recorder begins with the present counters, and adds to the minute of the one before it."""
    recorded.guess()
    recorded.wait(20)
    recorded.begin()
    recorded.guess()
    recorded.wait(20)

    assert recorded.minutes() == {0: {"attempts.guess.total": 2}}
    [slot] = Timeline(recorded.kept.store.connection).read(MINUTE, 0, START * 2)
    assert slot.watched == 40


@pytest.mark.parametrize("step", [-3_600.0, 3_600.0, 400 * DAY])
def test_a_clock_that_is_set_loses_nothing(recorded: Recorded, step: float) -> None:
    """An attempt while the clock is set is recorded once, at the new time."""
    mono = recorded.kept.clock.mono
    recorded.guess()
    recorded.wait(60)
    object.__setattr__(recorded.kept.clock, "mono", lambda: mono() - step)
    recorded.kept.now += step
    recorded.guess()
    recorded.wait(60)

    assert recorded.minutes() == {
        0: {"attempts.guess.total": 1},
        60 + step: {"attempts.guess.total": 1},
    }


def test_the_answer_has_what_is_not_recorded(recorded: Recorded) -> None:
    """An attempt is in the answer at once, and is counted once when it is recorded."""
    recorded.guess()
    recorded.kept.now += 10
    assert recorded.ask(seconds=600)["totals"]["attempts"] == {"guess": {"total": 1, "proven": 0}}
    recorded.wait(50)
    assert recorded.ask(seconds=600)["totals"]["attempts"] == {"guess": {"total": 1, "proven": 0}}
    assert recorded.ask(seconds=600)["watched"] == 60


def test_it_records_at_the_end_of_each_minute_and_at_the_end(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder waits for the end of the minute, and records once more when it is cancelled."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        recorded.kept.now += seconds
        recorded.guess()
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr("ringfence.features.history.guard.asyncio.sleep", sleep)
    recorded.kept.now += 12.5
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(recorded.recorder.run())

    assert pauses == [47.5, 60, 60]
    assert sum(counts["attempts.guess.total"] for counts in recorded.minutes().values()) == 3


def test_a_daemon_that_stops_has_recorded_everything(tmp_path: Path) -> None:
    """The counts of the last seconds are in the database when the daemon has stopped."""
    with ami_server(Script(play=[GRANTED, GUESSES])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        assert guard.ask("history", seconds=600)["totals"]["attempts"]["guess"]["total"] == 3
    with contextlib.closing(sqlite3.connect(tmp_path / "ringfence.db")) as connection:
        rows = connection.execute(
            "SELECT length, name, sum(number) FROM timeline_counts GROUP BY length, name"
        ).fetchall()

    assert sorted(rows) == [(length, "attempts.guess.total", 3) for length in (60, 3_600, 86_400)]


def test_a_proof_counts_when_it_comes(recorded: Recorded) -> None:
    """An attempt that is proven later counts as proven then, and as one attempt."""
    recorded.guess()
    recorded.wait(60)
    recorded.kept.detector.counts.proven_later[AttemptKind.GUESS] += 1
    recorded.wait(60)

    assert recorded.minutes() == {0: {"attempts.guess.total": 1}, 60: {"attempts.guess.proven": 1}}
    assert recorded.ask(seconds=600)["totals"]["attempts"] == {"guess": {"total": 1, "proven": 1}}


def test_days_of_a_full_disk_queue_one_record_an_hour(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records of three days push no ban out of the queue, and no hour is missing, then and later."""
    writer, best_effort = recorded.kept.store.connection._writer, recorded.kept.store.best_effort
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    minutes = iter(range(3 * DAY // MINUTE))

    async def sleep(seconds: float) -> None:
        if next(minutes, None) is None:
            raise asyncio.CancelledError
        recorded.kept.now += seconds
        recorded.kept.detector.counts.proven_later[AttemptKind.GUESS] += 1

    with monkeypatch.context() as patch, contextlib.suppress(asyncio.CancelledError):
        patch.setattr("ringfence.features.history.guard.asyncio.sleep", sleep)
        asyncio.run(recorded.recorder.run())
    assert "full" in best_effort.error
    assert 60 < best_effort.waiting <= 3 * 24 + 2
    while_full = recorded.ask(seconds=3 * DAY)

    writer.execute("PRAGMA max_page_count = 100000")
    best_effort.retry()
    answer = recorded.ask(seconds=3 * DAY)
    assert answer == while_full
    assert (answer["watched"], best_effort.waiting) == (3 * DAY, 0)
    assert answer["totals"]["attempts"] == {"guess": {"total": 0, "proven": 3 * DAY // MINUTE}}
