"""AMI comes and goes during an attack on a real Asterisk: each event counts once, from AMI or the log."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from attrs import define, field
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_USER
from tests.support.daemon import until
from tests.support.guarded import NO_WIRE, guarded
from tests.support.lab import Lab
from tests.support.relay import Relay

from ringfence.clock import Backoff
from ringfence.parse.log import LogReader
from ringfence.sources.ami import AmiSource, AmiTarget
from ringfence.sources.log_file import LogFileSource
from ringfence.sources.log_ingest import LogIngest
from ringfence.sources.standby import Standby, StandbyLog
from ringfence.sources.state import State
from ringfence.values.event import SecurityEvent, Service, SourceId
from ringfence.values.secret import Secret

pytestmark = pytest.mark.asterisk

NO_BANS = {
    "guess": {"attempts": 1_000},
    **{
        name: {"enabled": False}
        for name in ("enumeration", "probe", "manager", "slow", "prefix", "distributed", "flood")
    },
}
LIMIT_OFF = {"firewall": {"backend": "memory"}}
Course = Callable[[Relay], Awaitable[None]]


def identity(event: SecurityEvent) -> tuple[object, ...]:
    """Return the fields that are the same in AMI and in the log."""
    remote = event.remote
    return event.kind, event.service, remote.address, remote.port, event.time, event.session


def of_phones(events: Sequence[SecurityEvent]) -> Counter[tuple[object, ...]]:
    """Count the security events of SIP; those of the manager interface include the listener's own login."""
    return Counter(
        identity(one) for one in events if one.service is not Service.AMI and not one.source.notices
    )


@define
class Collected:
    """The security events that the sources of one Asterisk delivered."""

    events: list[SecurityEvent] = field(factory=list)

    def take(self, events: Sequence[SecurityEvent], _now: float) -> None:
        """Record events, as the sink of a source."""
        self.events += events


def written(log: Path, offset: int) -> list[SecurityEvent]:
    """Return the events of a log from ``offset`` on, read independently of the daemon."""
    reader = LogReader(SourceId("pbx", "log:truth"))
    data = log.read_bytes()[offset:]
    readings = [*reader.receive(data, time.time()), *reader.end(time.time())]
    return [reading.event for reading in readings if reading.event is not None]


async def collect(lab: Lab, course: Course, *attack: str) -> tuple[Collected, LogReader]:
    """Attack while AMI follows its course and a log is read; return the collected events."""
    log = lab.asterisk.logs / "ringfence"
    name = SourceId("pbx", f"log:{log}")
    collected, reader = Collected(), LogReader(name)
    standby = Standby(collected.take)
    with Relay(lab.network.pbx) as relay:
        target = AmiTarget("pbx", "127.0.0.1", relay.port, MANAGER_USER, Secret(SECRET))
        ami = AmiSource(target, standby.on_ami_events, Backoff(0.05, 0.2), coverage=standby.coverage)
        ingest = LogIngest(StandbyLog(standby, reader), collected.take)
        source = LogFileSource(name, log, ingest)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one.run()) for one in (ami, source)]
            while not (ami.condition.state is source.condition.state is State.LISTENING):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            before = len(collected.events)
            running = lab.start_attack(*attack)
            while len(collected.events) == before:  # noqa: ASYNC110 - the course begins with the first guess
                await asyncio.sleep(0.01)
            await course(relay)
            result = await asyncio.to_thread(running.result)
            assert result.answered > 0
            await asyncio.sleep(5.0)  # a stalled AMI is detected within 3 s
            for task in tasks:
                task.cancel()
    return collected, reader


async def steady(_relay: Relay) -> None:
    """AMI delivers all the time."""


async def cut_often(relay: Relay) -> None:
    """AMI is cut repeatedly, for a moment and for seconds."""
    for away in (0.05, 1.0, 2.5, 0.3):
        await asyncio.sleep(1.3)
        relay.cut()
        await asyncio.sleep(away)
        relay.join()


async def stalls(relay: Relay) -> None:
    """AMI stalls with an open connection: first it delivers everything later, then it never does."""
    await asyncio.sleep(1.5)
    relay.stall()
    await asyncio.sleep(4.5)
    relay.flow()
    await asyncio.sleep(1.5)
    relay.stall()
    await asyncio.sleep(1.0)
    relay.cut()


# On a busy machine an answer, and the whole attack, take longer.
STEADY = ("--pause", "0.02", "--silences", "9", "--timeout", "5", "--seconds", "120")
COURSES = {"steady": steady, "cut often": cut_often, "stalls": stalls}
ATTACKS = {
    # chan_sip answers 500 if all requests have the same Call-ID
    "16": ("--account", "nobody"),
    "22": ("--account", "alice", "--call-id", "one-for-all"),
}


@pytest.mark.parametrize(
    ("release", "course"),
    [
        ("16", "cut often"),
        ("22", "stalls"),
        pytest.param("16", "steady", marks=pytest.mark.long),
        pytest.param("16", "stalls", marks=pytest.mark.long),
        pytest.param("22", "steady", marks=pytest.mark.long),
        pytest.param("22", "cut often", marks=pytest.mark.long),
    ],
)
def test_each_event_is_delivered_once(request: pytest.FixtureRequest, release: str, course: str) -> None:
    """The delivered events are exactly those that Asterisk wrote, whatever happens to AMI."""
    lab: Lab = request.getfixturevalue(f"asterisk{release}")
    log = lab.asterisk.logs / "ringfence"
    offset = log.stat().st_size
    pace = ("--number", "400", "--sources", "198.19.66.1", *STEADY)
    collected, reader = asyncio.run(collect(lab, COURSES[course], "guess", *pace, *ATTACKS[release]))

    assert of_phones(collected.events) == of_phones(written(log, offset))
    assert reader.counts.standby > 30  # in "stalls", AMI works for three seconds only
    by_log = of_phones([one for one in collected.events if one.source.name.endswith("#security")])
    assert course == "steady" or by_log.total() > 50


@pytest.mark.parametrize(
    ("release", "course"),
    [
        ("22", "cut"),
        ("16", "log only"),
        ("22", "disabled"),
        pytest.param("16", "cut", marks=pytest.mark.long),
        pytest.param("22", "log only", marks=pytest.mark.long),
        pytest.param("16", "disabled", marks=pytest.mark.long),
    ],
)
def test_the_attempts_are_the_true_number(
    request: pytest.FixtureRequest, tmp_path: Path, release: str, course: str
) -> None:
    """The daemon counts each guess once if AMI is cut twice, cannot be reached, or is switched off."""
    lab: Lab = request.getfixturevalue(f"asterisk{release}")
    with Relay(lab.network.pbx, inside=True) as relay:
        ami: dict[str, object] = {"port": relay.port, "enabled": course != "disabled"}
        if course == "log only":
            relay.cut()
        settings = {"ami": ami, "wire": NO_WIRE, "rules": NO_BANS, **LIMIT_OFF}
        with guarded(lab, tmp_path, listening=course == "cut", **settings) as guard:
            log = f"pbx/log:{lab.asterisk.logs / 'ringfence'}"
            until(lambda: guard.states().get(log) == "listening", "the log")
            attack = ("--number", "250", "--sources", "198.19.66.2", *STEADY)
            running = lab.start_attack("guess", *attack)
            for _ in range(2 if course == "cut" else 0):
                time.sleep(1.5)
                relay.cut()
                time.sleep(0.7)
                relay.join()
            answered = running.result().answered
            until(lambda: guard.status()["attempts"] >= answered, "the attempts")
            time.sleep(4.0)
            attempts = guard.status()["attempts"]
            [source] = [one for one in guard.status()["sources"] if one["name"] == log]
    assert attempts == answered == 250
    assert (source["skipped"] > 0) is (course == "cut")
