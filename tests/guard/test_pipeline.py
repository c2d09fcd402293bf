"""The pipeline of evidence: decisions are carried out at once, in the order of the reports."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SENDER, event
from tests.support.evidence import Bench, challenge

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import MOST
from ringfence.config.converters import Name
from ringfence.config.schema import AsteriskSettings, Settings
from ringfence.detect.confirmation import GUESS, PATIENCE
from ringfence.detect.rules import RULES
from ringfence.detect.unexplained import BUSY, FEW
from ringfence.guard.pipeline import known_sources
from ringfence.values.attempt import Proof
from ringfence.values.event import Endpoint, EventKind, Service, Transport
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.packet import CopiedRequest, Exchange


def test_a_decision_is_carried_out_at_once(bench: Bench) -> None:
    """The event that completes a rule bans at once, from whichever source it is."""
    bench.pipeline.on_events([event(EventKind.CHALLENGE_RESPONSE_FAILED)], 0.0)
    assert bench.banned == []
    bench.pipeline.on_packets([challenge(b"\xff", evasive=True)], 0.0)
    assert [decision.subject for decision in bench.banned] == [ip_network(SENDER)]
    assert bench.alarm_codes() == ["evidence.hidden"]


def test_forged_senders_leave_room_for_a_real_one_that_hides(bench: Bench) -> None:
    """Senders that are not proven share one alarm; one that is, and a friend, have their own."""
    hidden = challenge(b"\xff", evasive=True)
    for number in range(2 * MOST):
        forged = ip_address("198.19.0.0") + number
        bench.pipeline.on_packets([evolve(hidden, address=forged, sender=forged)] * 3, bench.now)
    real, phone = ip_address("203.0.113.1"), ip_address("203.0.113.2")
    bench.detector.friends.add(Friend("pbx", phone, "alice", FriendReason.REGISTERED, 0.0, 0.0, inf))
    by_tcp = evolve(hidden, transport=Transport.TCP, address=real, sender=real)
    bench.pipeline.on_packets([by_tcp, evolve(hidden, address=phone, sender=phone)], bench.now)

    found = {one.subject: one.times for one in bench.alarms.active if one.code is AlarmCode.EVIDENCE_HIDDEN}
    assert found.keys() == {"", str(real), str(phone)}
    assert found[""] >= 2 * MOST


def test_what_the_wire_saw_is_judged_in_its_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wire's packets are judged in order: nonce, then request, then the answer to the request."""
    given: list[list[object]] = []

    def take(seen: Sequence[object], *_: object) -> list[object]:
        given.append(list(seen))
        return []

    monkeypatch.setattr(bench.detector, "observe_answers", take)
    monkeypatch.setattr(bench.detector, "observe_requests", take)
    first, last = challenge(), evolve(challenge(), status=403)
    request = CopiedRequest(ip_address(SENDER), 5062, (b"n",), (b"call-1",))

    bench.pipeline.on_packets([first, request, request, last], 0.0)
    bench.pipeline.on_packets([], 0.0)
    assert given == [[first], [request, request], [last], []]


def test_an_event_by_tls_marks_chan_sip_of_its_asterisk(bench: Bench) -> None:
    """An event of chan_sip by TLS marks its Asterisk; events of PJSIP or by UDP do not."""
    one = event(EventKind.CHALLENGE_SENT, transport=Transport.TLS)
    bench.pipeline.on_events([one, event(EventKind.CHALLENGE_SENT, service=Service.SIP)], 0.0)
    assert bench.pipeline.chan_sip_tls == set()
    bench.pipeline.on_events([evolve(one, service=Service.SIP)], 0.0)
    assert bench.pipeline.chan_sip_tls == {"pbx"}


def test_an_event_by_secure_websocket_marks_chan_sip_too(bench: Bench) -> None:
    """An event of chan_sip by secure WebSocket marks its Asterisk; one by plain WebSocket does not."""
    for transport, marked in ((Transport.WS, set[str]()), (Transport.WSS, {"pbx"})):
        one = event(EventKind.CHALLENGE_SENT, transport=transport, service=Service.SIP)
        bench.pipeline.on_events([one], 0.0)
        assert bench.pipeline.chan_sip_tls == marked


def test_connections_are_refreshed_before_they_are_looked_up(bench: Bench) -> None:
    """A report that needs a connection refreshes it, and each tick refreshes what it looks up."""
    reported = event(EventKind.CHALLENGE_RESPONSE_FAILED)
    bench.pipeline.on_events([reported], bench.now)
    bench.pipeline.on_packets([challenge()], bench.now)
    assert bench.refreshed == []

    remote = evolve(reported.remote, transport=Transport.TCP)
    bench.pipeline.on_events([evolve(reported, remote=remote, session=b"tcp")], bench.now)
    by_phone = evolve(challenge(b"phone"), transport=Transport.TCP)
    bench.pipeline.on_packets([by_phone], bench.now)
    assert bench.refreshed == [(remote, GUESS)]
    bench.pipeline.on_packets([evolve(by_phone, evasive=True)], bench.now)
    assert bench.refreshed == [(remote, GUESS)] * 2
    bench.tend()
    assert bench.refreshed[2:] == [(None, 0)]


def test_events_are_counted_by_source_and_kind(bench: Bench) -> None:
    """Each event of a source counts under its kind, whether or not it is an attempt."""
    one = event(EventKind.CHALLENGE_SENT)
    bench.pipeline.on_events([one, one, event(EventKind.CHALLENGE_RESPONSE_FAILED)], 0.0)

    numbers = {kind: number for kind, number in bench.pipeline.events[one.source].items() if number}
    assert numbers == {EventKind.CHALLENGE_SENT: 2, EventKind.CHALLENGE_RESPONSE_FAILED: 1}


def test_reports_that_wait_are_counted(bench: Bench) -> None:
    """An event of chan_sip waits for a confirmation of its address."""
    bench.pipeline.on_events([event(EventKind.CHALLENGE_RESPONSE_FAILED, service=Service.SIP)], bench.now)
    assert bench.detector.waiting == 1

    bench.tend()
    assert bench.detector.waiting == 0


def test_the_connection_of_a_sender_that_reads_nothing_is_refreshed(bench: Bench) -> None:
    """Its guess counts without an answer if the kernel knows its connection; UDP has no connection."""
    remote = Endpoint(ip_address(SENDER), 5062, Transport.TCP)
    request = CopiedRequest(remote.address, remote.port, (b"n",), (b"call-1",), transport=Transport.TCP)
    closed = evolve(request, diverted=True)
    bench.pipeline.on_packets([request, closed, evolve(closed, transport=Transport.UDP)], bench.now)
    assert bench.refreshed == [(remote, GUESS)]


def test_the_wire_is_read_before_an_event_is_judged(bench: Bench) -> None:
    """The wire is read before an event, because the event's nonce may have other receivers."""
    order: list[str] = []

    def drain() -> bool:
        order.append("drained")
        return True

    wire: Any = SimpleNamespace(drain=drain)
    listener: Any = SimpleNamespace(on_events=lambda _: order.append("passed on"))
    bench.pipeline.wire = wire
    bench.pipeline.listeners.append(listener)
    bench.pipeline.on_events([], bench.now)
    assert order == ["drained", "passed on"]


@pytest.mark.parametrize(("whole", "proof"), [(True, Proof.NONCE), (False, Proof.CLAIMED)])
def test_a_nonce_proves_nothing_while_the_wire_is_not_read_to_its_end(
    bench: Bench, *, whole: bool, proof: Proof
) -> None:
    """What waits may show that the nonce went to another address too: the one that forged the guess."""
    wire: Any = SimpleNamespace(drain=lambda: whole)
    bench.pipeline.wire = wire
    bench.pipeline.on_packets([challenge()], bench.now)
    bench.pipeline.on_events([event(EventKind.CHALLENGE_RESPONSE_FAILED, challenge=b"n")], bench.now)
    assert [judgement.attempt.proof for judgement in bench.judged] == [proof]


def test_answers_by_tls_count_as_soon_as_ami_is_read(bench: Bench) -> None:
    """Many that wait make the pipeline ask; they count when every AMI has been read beyond them."""
    bench.detector.configure(RULES)
    bench.pipeline.tick(wire=True, listening={"pbx": 0.0})
    sender = ip_address(SENDER)
    asked: list[float] = []
    wire: Any = SimpleNamespace(ask_amis=lambda: asked.append(bench.now))
    bench.pipeline.wire = wire
    for port in range(FEW + 1):
        assert asked == []
        bench.pipeline.on_packets([Exchange(sender, port, 1, 5061)], bench.now)
    bench.now += 2 * BUSY
    for read in (-inf, bench.now):
        assert asked.pop()
        bench.pipeline.on_read(read)
    assert asked == []
    assert len(bench.detector.summary_of(sender, bench.now).attempts) == FEW + 1


@pytest.mark.parametrize("lost", [False, True])
def test_a_line_raises_no_alarm_while_ami_may_still_repeat_it(bench: Bench, *, lost: bool) -> None:
    """Every AMI is asked how far it has been read; the alarm follows then, or when an AMI is lost."""
    asked: list[float] = []
    wire: Any = SimpleNamespace(ask_amis=lambda: asked.append(bench.now), drain=lambda: True)
    bench.pipeline.wire = wire
    bench.pipeline.tick(wire=False, listening={"pbx": 0.0})
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, bench.now, source=NOTICES)
    bench.pipeline.on_events([evolve(line, forgeable=True)], bench.now)
    bench.now += PATIENCE
    bench.pipeline.tick(wire=False, listening={"pbx": 0.0})
    assert (bench.alarm_codes(), asked) == ([], [bench.now])

    bench.now += 0.5
    if not lost:
        bench.pipeline.on_read(bench.now)
    bench.pipeline.tick(wire=False, listening={} if lost else {"pbx": 0.0})
    assert (bench.alarm_codes(), len(asked)) == (["evidence.unconfirmed"], 1)


def test_the_detector_knows_whether_strangers_may_call() -> None:
    """It does if one PBX takes calls from strangers."""
    pbxs = AsteriskSettings(Name("a")), AsteriskSettings(Name("b"), guests=True)
    assert (known_sources(Settings(pbxs)).guests, known_sources(Settings()).guests) == (True, False)
