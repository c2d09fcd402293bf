"""The wire in a running daemon: when it sees everything, and which containers count."""

import asyncio
import threading
import time
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.support.kept import Kept, settings

from ringfence.clock import Clock
from ringfence.config.schema import AsteriskSettings
from ringfence.errors import HostError
from ringfence.firewall.contract import Opened
from ringfence.guard import firewall_manager, source_manager
from ringfence.guard.firewall_manager import find_answer_users
from ringfence.guard.source_manager import HURRY_FOR, SocketUsers, WireReader
from ringfence.host import listening
from ringfence.host.listening import NamedUsers
from ringfence.sources.state import WITHOUT_WIRE, Condition, State
from ringfence.sources.wire import WireSink


class Judge(WireSink):
    """A pipeline that judges nothing. ``gaps`` are the times of losses."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    def on_gap(self, now: float) -> None:
        """Record a loss."""
        self.gaps.append(now)


@pytest.fixture(autouse=True)
def _users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find no user of Asterisk's sockets."""
    monkeypatch.setattr(source_manager, "find_answer_users", lambda *_: frozenset())


@pytest.fixture(name="judge")
def _judge() -> Judge:
    """Return what gets the packets of the wire."""
    return Judge()


def reader(pipeline: Any, kept: Kept) -> WireReader:  # noqa: ANN401 - a pipeline, or what stands for one
    """Return the wire of a guard."""
    kernel = kept.side.kernel
    return WireReader(pipeline, kept.detector, kept.enforcer, kept.clock, kernel.wanted_rules, kernel.haste)


@pytest.fixture(name="wire")
def _wire(kept: Kept, judge: Judge) -> WireReader:
    """Return the wire of a guard that is in place, listening."""
    kept.side.start()
    wire = reader(judge, kept)
    wire.source.condition = Condition(State.LISTENING)
    return wire


def test_the_wire_sees_all_if_it_listens_and_every_rule_is_in_place(kept: Kept, wire: WireReader) -> None:
    """Without a binding, a rule, a guarded IP version or the list of containers, something is not seen."""
    assert wire.sees_all
    whole = kept.enforcer.opened
    assert whole is not None
    for lacking in (evolve(whole, wire="no NFLOG"), evolve(whole, families={4: None, 6: "off"}), None):
        kept.enforcer.opened = lacking
        assert not wire.sees_all
    kept.enforcer.opened = whole
    wire.source.condition = Condition(State.CONNECTING)
    assert not wire.sees_all


def test_the_wire_sees_nothing_while_enforcement_is_off(kept: Kept, wire: WireReader) -> None:
    """`off` removes the rules that copy packets."""
    kept.enforcer.switch_off()
    assert not wire.sees_all
    kept.enforcer.switch_on()
    assert wire.sees_all


def test_rules_that_were_missing_are_a_loss(kept: Kept, wire: WireReader, judge: Judge) -> None:
    """When the rules are in place again, after `off` or after damage, earlier packets were not copied."""
    wire.check()
    kept.now += 5
    kept.enforcer.reopen(damaged=True)
    wire.check()
    kept.now += 5
    kept.enforcer.switch_off()
    wire.check()
    kept.now += 5
    kept.enforcer.switch_on()
    kept.now += 5
    wire.check()
    wire.check()
    assert judge.gaps == [5.0, 20.0]


def test_a_log_hurries_if_the_wire_cannot_read_everything(kept: Kept, wire: WireReader) -> None:
    """At first, if the wire does not see all, and for a minute after a stranger's exchange by TLS."""
    assert wire.hurry.is_set()
    wire.check()
    assert not wire.hurry.is_set()
    wire.on_exchange()
    wire.check()
    assert wire.hurry.is_set()
    kept.now += HURRY_FOR
    wire.check()
    assert not wire.hurry.is_set()
    wire.source.condition = Condition(State.CONNECTING)
    wire.check()
    assert wire.hurry.is_set()


def test_containers_that_cannot_be_found_are_an_alarm_until_they_are(wire: WireReader) -> None:
    """An error of the look for containers is an alarm, until the next look succeeds."""
    wire.set_containers(HostError("no rtnetlink"))
    [alarm] = wire.alarms
    assert (alarm.code, alarm.subject, alarm.text) == ("host.unreadable", "containers", "no rtnetlink")
    assert not wire.sees_all
    wire.set_containers(frozenset({ip_network("172.17.0.0/16")}))

    assert (wire.alarms, wire.sees_all) == ([], True)
    assert wire.source.containers == (ip_network("172.17.0.0/16"),)


def test_a_wire_that_is_not_seen_is_an_alarm(kept: Kept, wire: WireReader) -> None:
    """A wire that shows nothing is an alarm with its consequence; a wire that still connects is not."""
    for state, codes in ((State.CONNECTING, []), (State.ABSENT, ["wire.blind"])):
        wire.source.condition = Condition(state, "this kernel has no packet log")
        assert [alarm.code for alarm in wire.alarms] == codes
    assert wire.alarms[0].text == f"the wire is not seen: this kernel has no packet log; {WITHOUT_WIRE}"
    kept.enforcer.opened = Opened({4: None}, wire="no NFLOG")
    assert [alarm.text for alarm in wire.alarms] == [f"the wire sees nothing: no NFLOG; {WITHOUT_WIRE}"]


class Time(Clock):
    """A clock that the test sets."""

    now = 0.0

    def mono(self) -> float:
        """Return the time."""
        return self.now


def test_the_users_of_asterisk_are_looked_up_again_for_a_foreign_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asterisk may start again under another user; a relay causes a look-up every two seconds at most."""
    clock, found, looked, changes = Time(), {5}, list[float](), list[float]()
    rules: Any = SimpleNamespace(settings="settings", named=NamedUsers())

    def find(settings: object, named: NamedUsers) -> frozenset[int]:
        assert (settings, named) == ("settings", rules.named)
        looked.append(clock.now)
        return frozenset(found)

    monkeypatch.setattr(source_manager, "find_answer_users", find)
    detector: Any = SimpleNamespace(observe_loss=changes.append)
    users = SocketUsers(rules, clock, detector)
    assert users.has(5)
    found = {6}
    for now, user, counts in (
        (1.0, 6, False),
        (1.5, 5, True),
        (2.5, 6, True),
        (3.0, 5, False),
        (59.0, 6, True),
    ):
        clock.now = now
        assert users.has(user) is counts
    found = {7}
    clock.now = 62.6
    assert users.has(6) is False
    assert (looked, changes) == ([0.0, 2.5, 62.6], [2.5, 62.6])
    found, rules.named = {7, 8}, NamedUsers(proxies=frozenset({8}))
    assert (users.has(8), users.has(9)) == (True, False)
    assert looked[3:] == [62.6]
    found = set()
    clock.now = 130.0
    assert users.has(7) is None


def test_names_that_are_slow_to_look_up_stop_no_packet(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory server may take a minute for a name. Meanwhile the event loop goes on without it."""
    looking, answered = threading.Event(), threading.Event()

    def slow(_name: str) -> int:
        looking.set()
        answered.wait(60.0)
        return 8

    monkeypatch.setattr(listening, "user_number", slow)
    monkeypatch.setattr(source_manager, "find_answer_users", find_answer_users)
    monkeypatch.setattr(firewall_manager, "find_users", lambda *_: frozenset({7}))
    monkeypatch.setattr(firewall_manager, "find_ports", lambda *_, **__: None)
    pbx = evolve(AsteriskSettings(), proxies=(ip_network("127.0.0.1"),))
    kept.side.start()
    kept.side.configure(evolve(settings(), asterisk=(pbx,)))
    made, rules = reader(Judge(), kept), kept.side.kernel.rules

    async def play() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(rules.run())
            await asyncio.to_thread(looking.wait)
            assert (made.users.has(7), made.users.has(8)) == (True, False)
            assert not answered.is_set()
            answered.set()
            while not made.users.has(8):  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.01)
            task.cancel()

    began = time.monotonic()
    asyncio.run(play())
    assert time.monotonic() - began < 50.0


def test_an_unknown_user_of_asterisk_is_an_alarm(kept: Kept) -> None:
    """While it is unknown whose an answer is, no answer of this host counts, and an alarm reports it."""
    made = reader(Judge(), kept)
    kept.side.start()
    made.source.condition = Condition(State.LISTENING)
    assert made.alarms == []
    assert made.users.has(0) is None
    made.source.counts.unowned += 1
    assert [str(alarm.code) for alarm in made.alarms] == ["wire.user"]


def test_every_ami_is_asked_how_far_its_events_have_been_read(kept: Kept) -> None:
    """The pipeline causes it; an Asterisk without AMI is left out."""
    pipeline: Any = Judge()
    made = reader(pipeline, kept)
    asked: list[int] = []
    amis: Any = [SimpleNamespace(reading=SimpleNamespace(ask=lambda: asked.append(1))), None]
    made.set_asterisks(amis)
    assert pipeline.wire is made
    made.ask_amis()
    assert asked == [1]
