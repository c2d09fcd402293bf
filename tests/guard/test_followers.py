"""The lines that commands follow."""

import asyncio
import json
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from attrs import evolve
from tests.detect.events import event
from tests.support.attempts import ATTEMPT, attempts, ban_of
from tests.support.clock import SetClock

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmEvent
from ringfence.ban_facts import Over, Placed
from ringfence.control import LINE_KINDS
from ringfence.control_server import PEER, Peer
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.errors import ControlError
from ringfence.guard import followers as module
from ringfence.guard.followers import Followers
from ringfence.values.ban import BanEnd, Scope
from ringfence.values.event import EventKind

HOSTILE = "2\x1b[2J\u202e04\n" + "x" * 65_536
NETWORK = ip_network("192.0.2.1")


def judged(account: str = "204", how: Disposition = Disposition.COUNTED) -> Judgement:
    """Return a judgement on an attempt."""
    return Judgement(evolve(ATTEMPT, account=account), NETWORK, how)


async def lines(stream: AsyncIterator[bytes], number: int) -> list[dict[str, Any]]:
    """Return the next lines of a stream."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while len(found) < number:
            found += [json.loads(line) for line in (await anext(stream)).split(b"\n") if line]
    return found


def test_every_kind_is_one_line() -> None:
    """An event, an attempt, a ban with its end, and an alarm arrive in their order, hostile text escaped."""

    async def run() -> list[dict[str, Any]]:
        followers = Followers(SetClock(lambda: 60.0))
        stream = followers.follow(LINE_KINDS)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lines(stream, 5))
            await asyncio.sleep(0)
            followers.on_events([event(EventKind.INVALID_PASSWORD, account=HOSTILE)])
            followers.on_judgement(judged(HOSTILE))
            followers.on_fact(
                Placed([ban_of("192.0.2.1", made=attempts(1, account=HOSTILE))], announced=True)
            )
            followers.on_fact(Over(NETWORK, Scope.FULL, BanEnd.EXPIRED))
            followers.on_fact(AlarmEvent(AlarmCode.PHONE_BROKEN, HOSTILE, HOSTILE, "began", 1.0))
        return waiting.result()

    found = asyncio.run(run())

    assert [row["what"] for row in found] == ["event", "attempt", "ban", "ban", "alarm"]
    assert found[1]["reason"] == "wrong password"
    assert [row.get("change") for row in found[2:]] == ["placed", "expired", "began"]
    assert [row.get("why_ended") for row in found[2:]] == [None, "its time was over", None]
    assert all(str(value).isprintable() for row in found for value in row.values())
    assert max(len(row["account"]) for row in found[:3]) < 1_000


def test_a_slow_reader_loses_lines_and_gets_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue is bounded, and its reader gets the number of the lines that did not fit."""
    monkeypatch.setattr(module, "MOST_WAITING", 10)

    async def run() -> list[dict[str, Any]]:
        followers = Followers(SetClock(lambda: 60.0))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lines(followers.follow(["attempt"]), 11))
            await asyncio.sleep(0)
            for _ in range(25):
                followers.on_judgement(judged())
        return waiting.result()

    found = asyncio.run(run())

    assert [row["what"] for row in found] == ["attempt"] * 10 + ["lost"]
    assert found[-1]["number"] == 15


def test_lost_lines_are_reported_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that never empties its queue also gets their number, before the first line that fits again."""
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(module, "PACE", 0.0)

    async def run() -> list[dict[str, Any]]:
        followers = Followers(SetClock(lambda: 60.0))
        stream = followers.follow(["attempt"])
        async with asyncio.TaskGroup() as group:
            first = group.create_task(lines(stream, 4))
            await asyncio.sleep(0)
            for _ in range(12):
                followers.on_judgement(judged())
        followers.on_judgement(judged())
        return first.result() + await lines(stream, 8)

    found = asyncio.run(run())

    assert [row["what"] for row in found] == ["attempt"] * 10 + ["lost", "attempt"]
    assert found[10]["number"] == 2


def test_a_line_is_encoded_once_for_all_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each follower gets it, and a second follower costs no second encoding."""
    encoded: list[Judgement] = []

    def counted(judgement: Judgement) -> dict[str, object]:
        encoded.append(judgement)
        return {"account": judgement.attempt.account}

    monkeypatch.setattr(module, "_attempt", counted)

    async def run() -> list[dict[str, Any]]:
        followers = Followers(SetClock(lambda: 60.0))
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(lines(followers.follow(["attempt"]), 1)) for _ in range(3)]
            await asyncio.sleep(0)
            followers.on_judgement(judged())
        return [row for task in waiting for row in task.result()]

    assert asyncio.run(run()) == [{"what": "attempt", "account": "204"}] * 3
    assert len(encoded) == 1


def test_nothing_is_missed_before_the_first_line() -> None:
    """Attempts between the request and the first line arrive, once."""

    async def run() -> list[dict[str, Any]]:
        followers = Followers(SetClock(lambda: 60.0))
        followers.on_judgement(judged("1"))
        stream = followers.follow(["attempt"])
        followers.on_judgement(judged("2"))
        return await lines(stream, 2)

    assert [row["account"] for row in asyncio.run(run())] == ["1", "2"]


def test_the_ends_of_many_bans_displace_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest of each kind are kept, and shown in the order in which they happened."""
    monkeypatch.setattr(module, "MOST_LATEST", 3)
    followers = Followers(SetClock(lambda: 60.0))
    followers.on_judgement(judged())
    for _ in range(9):
        followers.on_fact(Over(NETWORK, Scope.FULL, BanEnd.EXPIRED))
    followers.on_fact(AlarmEvent(AlarmCode.PHONE_BROKEN, "204", "wrong", "began", 1.0))

    found = [row["what"] for row in followers.latest(LINE_KINDS)]
    assert found == ["attempt", "ban", "ban", "ban", "alarm"]


def test_followers_are_limited_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many followers of one user are refused, not those of another; one that has gone makes room."""
    monkeypatch.setattr(module, "MOST_FOLLOWERS", 1)

    async def run() -> None:
        followers = Followers(SetClock(lambda: 60.0))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lines(followers.follow(LINE_KINDS), 99))
            await asyncio.sleep(0)
            with pytest.raises(ControlError):
                followers.follow(LINE_KINDS)
            token = PEER.set(Peer(5, 1))
            followers.follow(LINE_KINDS)
            PEER.reset(token)
            waiting.cancel()
        followers.follow(LINE_KINDS)

    asyncio.run(run())


def test_the_latest_are_kept_without_a_follower() -> None:
    """Attempts are kept, also under a forged address; a later proof is no attempt."""
    followers = Followers(SetClock(lambda: 60.0 * 100))
    for how in (Disposition.COUNTED, Disposition.COUNTED_BEFORE, Disposition.FORGED):
        followers.on_judgement(judged(how=how))
    followers.on_fact(AlarmEvent(AlarmCode.PHONE_BROKEN, "204", "wrong", "began", 1.0))
    followers.on_fact(Placed([ban_of("192.0.2.1")], announced=True))

    assert [row["what"] for row in followers.latest(["attempt", "ban"])] == ["attempt", "attempt", "ban"]
    assert [row["standing"] for row in followers.latest(["attempt"])] == ["counted", "forged"]
    assert followers.latest(["attempt"])[0]["address"] == str(ip_address("192.0.2.1"))
