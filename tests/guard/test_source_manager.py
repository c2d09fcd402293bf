"""The sources of all PBXs: what a reload replaces, their order, and what they cannot show."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.clock import SetClock

from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.config.converters import Name, UserName
from ringfence.config.schema import AmiSettings, AsteriskSettings, LogSettings
from ringfence.guard.source_manager import SourceManager, SourceWatchdog
from ringfence.host.listening import foreign_user
from ringfence.parse.line_result import LogAlarm
from ringfence.sources.log_ingest import AlarmCount
from ringfence.sources.roster import AmiListener
from ringfence.sources.state import Condition, State
from ringfence.values.event import Service
from ringfence.values.friend import Contact, Roster
from ringfence.values.secret import Secret

ONE = AsteriskSettings(
    name=Name("one"), ami=AmiSettings(enabled=False), logs=LogSettings(paths=(Path("/one"),))
)
TWO = evolve(ONE, name=Name("two"))


class Reader:
    """A log in place of a real one: it records when it is read, and for which PBX."""

    def __init__(self, order: list[str], plan: Any, sink: Callable[[Sequence[object], float], None]) -> None:  # noqa: ANN401
        self.id = plan.asterisk
        self.sources = ()
        self.sink = sink
        self._order = order

    async def run(self) -> None:
        """Run until cancelled, and end a moment later."""
        self._order.append(f"{self.id} begins")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            self._order.append(f"{self.id} has ended")


class Managed:
    """A manager with readers that record what happens, and a wire that does."""

    def __init__(self, patch: pytest.MonkeyPatch, *, wire: bool = False) -> None:
        self.order: list[str] = []
        self.readers: list[Reader] = []
        patch.setattr("ringfence.guard.source_manager.Logs", self._logs)
        self.pipeline = SimpleNamespace(
            on_events=lambda _events, _now: self.order.append("judged"),
            on_read=lambda read: self.order.append(f"read up to {read}"),
            on_reload=None,
            on_contact=lambda _contact, _now: self.order.append("judged"),
            on_silence=lambda: self.order.append("silence"),
            tick=lambda **_: None,
            chan_sip_tls={"two"},
        )
        pretended = SimpleNamespace(
            is_listening=True,
            set_asterisks=lambda _: None,
            hurry=None,
        )
        anything: Any = SimpleNamespace(
            read=dict,
            record=None,
            on_roster=lambda _: self.order.append("friends: on_roster"),
            on_contact=lambda _: self.order.append("friends: on_contact"),
        )
        watchdog = SourceWatchdog(Alarms(SetClock(lambda: 0.0)))
        given: Any = pretended if wire else None
        pipeline: Any = self.pipeline
        self.manager = SourceManager(pipeline, anything, anything, watchdog, given, Clock())

    async def until(self, line: str, times: int = 1) -> None:
        """Wait until ``order`` contains ``line`` this many times."""
        while self.order.count(line) < times:  # noqa: ASYNC110 - a list cannot be awaited
            await asyncio.sleep(0.005)

    def _logs(self, plan: Any, sink: Any, *_: object, **__: object) -> Reader:  # noqa: ANN401
        self.readers.append(Reader(self.order, plan, sink))
        return self.readers[-1]


@pytest.fixture(name="managed")
def _managed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Managed]:
    """Return a manager without sources and without the wire."""
    with capture_logs():
        yield Managed(monkeypatch)


def test_only_what_changed_is_replaced_and_after_it_has_ended(managed: Managed) -> None:
    """A reload ends the sources of changed and removed PBXs before it starts new ones; others go on."""

    async def session() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            managed.manager.configure([ONE, TWO])
            task = group.create_task(managed.manager.run())
            await managed.until("two begins")
            managed.manager.configure([ONE, evolve(TWO, logs=LogSettings(paths=(Path("/other"),)))])
            await managed.until("two begins", times=2)
            managed.order.append("removed")
            managed.manager.configure([ONE])
            await managed.until("two has ended", times=2)
            task.cancel()

    asyncio.run(session())
    assert managed.order == [
        "one begins",
        "two begins",
        "two has ended",
        "two begins",
        "removed",
        "two has ended",
        "one has ended",
    ]


def test_each_pbx_has_its_gaps(managed: Managed) -> None:
    """Traffic that no source of a PBX shows is named with the PBX, also a chan_sip that serves TLS."""
    managed.manager.configure([ONE, TWO])
    found = managed.manager.coverage_gaps()

    assert {gap.partition(":")[0] for gap in found} == {"one", "two"}
    assert [gap.partition(":")[0] for gap in found if "tlsenable" in gap] == ["two"]
    assert all(
        any(gap.startswith(f"{name}: without {part}") for gap in found)
        for name in ("one", "two")
        for part in ("AMI", "a log", "the wire")
    )


def test_each_silenced_event_is_passed_on(managed: Managed) -> None:
    """A log counts them, and other faults of a log are no silence."""
    managed.manager.configure([ONE])
    counts = {LogAlarm.SILENCED: AlarmCount(0, 0.0), LogAlarm.TAMPERED: AlarmCount(3, 1.0)}
    log: Any = SimpleNamespace(id="one/log", condition=Condition(State.LISTENING), alarms=counts)
    reader: Any = managed.readers[0]
    reader.sources = (log,)
    for count in (0, 1, 1, 2):
        counts[LogAlarm.SILENCED] = AlarmCount(count, float(count))
        managed.manager.check()
        managed.order.append(f"{count}")
    assert managed.order == ["0", "silence", "1", "1", "silence", "2"]


def test_listeners_hear_of_phones(managed: Managed) -> None:
    """Each listener gets the lists of phones and their changes, after the friends."""

    class Listener(AmiListener):
        def on_roster(self, roster: Roster) -> None:
            managed.order.append(f"list of {roster.asterisk}")

        def on_contact(self, contact: Contact) -> None:
            managed.order.append(f"change of {contact.account}")

    managed.manager.listeners.append(Listener())
    managed.manager.on_roster(Roster("one", (), ()))
    managed.manager.on_contact(Contact("one", Service.PJSIP, "alice", ip_address("192.0.2.1")))
    assert managed.order == [
        "friends: on_roster", "list of one", "judged", "friends: on_contact", "change of alice"
    ]  # fmt: skip
    assert managed.manager.listening == {}


def test_events_are_read_as_far_as_those_of_every_ami(managed: Managed) -> None:
    """The slowest AMI counts; an Asterisk without AMI has no events, so nothing is read."""
    with_ami = evolve(ONE, ami=AmiSettings(enabled=True, secret=Secret("s")))
    manager = managed.manager
    manager.configure([with_ami, evolve(with_ami, name=Name("two"))])
    first, second = (pbx.ami for pbx in manager._pbxs.values())
    assert first is not None
    assert second is not None
    first.reading.until, second.reading.until = 7.0, 5.0
    manager.on_read()
    manager.configure([with_ami, TWO])
    manager.on_read()
    assert managed.order == ["read up to 5.0", "read up to -inf"]


def test_a_reload_ends_the_pause_of_an_ami_source(managed: Managed) -> None:
    """Its login may have been corrected in Asterisk, so the configuration may be the same."""
    with_ami, manager = evolve(ONE, ami=AmiSettings(enabled=True, secret=Secret("s"))), managed.manager
    manager.configure([with_ami])
    source = manager._pbxs["one"].ami
    assert source is not None
    source._due.clear()
    manager.configure([with_ami])
    assert manager._pbxs["one"].ami is source
    assert source._due.is_set()


def test_the_user_of_a_program_at_amis_port_is_checked(managed: Managed) -> None:
    """While Asterisk is down, any user of this host may listen there."""
    ami = AmiSettings(secret=Secret("s"), server_users=(UserName("1000"),))
    managed.manager.configure([evolve(ONE, ami=ami)])
    source = managed.manager._pbxs["one"].ami
    assert source is not None
    check: Any = source._foreign_user
    assert (check.func, check.keywords) == (foreign_user, {"users": ("1000",)})
