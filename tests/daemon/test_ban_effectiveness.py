"""The alarm for bans that have no effect."""

import asyncio
from ipaddress import ip_network

import pytest
from attrs import evolve
from tests.support.attempts import attempts
from tests.support.kept import OTHER, Kept

from ringfence.alarm_codes import AlarmCode
from ringfence.daemon.ban_effectiveness import ENOUGH, GRACE, MOST_WAITING
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.host.diagnosis import Observations
from ringfence.model import Address, Attempt


async def diagnosed(made: Kept) -> None:
    """Let the diagnosis of what was recorded end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(made.side.effectiveness.run())
        await asyncio.sleep(0.05)
        task.cancel()


def late(attempt: Attempt) -> Judgement:
    """Return the judgement on an attempt of a banned address."""
    return Judgement(attempt, ip_network(attempt.address), Disposition.LATE)


@pytest.fixture(autouse=True)
def _causes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a cause instead of one of this host."""

    async def likely_causes(_: object, address: Address, seen: Observations) -> list[str]:
        return [f"{seen.attempts} attempts of {address}"]

    monkeypatch.setattr("ringfence.host.diagnosis.Diagnosis.likely_causes", likely_causes)


def test_attempts_well_after_a_ban_are_an_alarm(kept: Kept) -> None:
    """Several attempts of a banned address, well after its ban, are an alarm with the likely cause."""
    kept.side.start()
    kept.ban(OTHER)
    for number, attempt in enumerate(attempts(ENOUGH, OTHER)):
        kept.side.effectiveness.on_judgement(late(evolve(attempt, time=kept.now + GRACE + 1.0 + number)))
    for attempt in attempts(ENOUGH, "192.0.2.2"):  # not banned
        kept.side.effectiveness.on_judgement(late(evolve(attempt, time=kept.now + 60.0)))
    asyncio.run(diagnosed(kept))

    [alarm] = kept.alarms.active
    assert (alarm.code, alarm.subject) == ("ban.not_effective", OTHER)
    assert alarm.text.endswith(f"banned: {ENOUGH} attempts of {OTHER}")


def test_an_address_that_finds_the_queue_full_is_reported_later(kept: Kept) -> None:
    """While too many addresses wait for their diagnosis, attempts of others are not counted yet."""
    kept.side.start()
    many = [f"203.0.113.{number}" for number in range(MOST_WAITING)]

    def attack(address: str) -> None:
        for attempt in attempts(ENOUGH, address):
            kept.side.effectiveness.on_judgement(late(evolve(attempt, time=kept.now + 60.0)))

    async def found() -> tuple[int, int]:
        for address in (*many, OTHER):
            kept.ban(address)
            attack(address)
        await diagnosed(kept)
        before = kept.alarms.count()[AlarmCode.BAN_NOT_EFFECTIVE]
        attack(OTHER)
        await diagnosed(kept)
        return before, kept.alarms.count()[AlarmCode.BAN_NOT_EFFECTIVE]

    assert asyncio.run(found()) == (MOST_WAITING, MOST_WAITING + 1)


def test_of_exempt_addresses_only_this_hosts_own_are_an_alarm(kept: Kept) -> None:
    """Attempts of this host's own address are an alarm; those of another exempt address are not."""
    kept.side.start()
    for address in ("198.51.100.7", "198.18.0.1"):
        for attempt in attempts(ENOUGH, address):
            kept.side.effectiveness.on_judgement(evolve(late(attempt), disposition=Disposition.EXEMPT))
    asyncio.run(diagnosed(kept))

    assert [alarm.subject for alarm in kept.alarms.active] == ["198.18.0.1"]
