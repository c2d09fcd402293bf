"""The pipeline of evidence: decisions are carried out at once, and suspicious evidence raises an alarm."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.detect.events import NOTICES, SENDER, Connected, event

from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.daemon.pipeline import Pipeline
from ringfence.detect.detector import Detector
from ringfence.detect.rules import RULES
from ringfence.detect.unconfirmed_reports import PATIENCE
from ringfence.model import (
    Address,
    Attempt,
    Challenge,
    EventKind,
    Friend,
    FriendReason,
    ObservedRequest,
    Proof,
    Scope,
    Service,
    Transport,
)
from ringfence.networks import NetworkSet

if TYPE_CHECKING:
    from ringfence.detect.judge import Decision

STRANGER = "203.0.113.9"
BY_NAME = {rule.name: rule for rule in RULES}
RULE = evolve(BY_NAME["guess"], attempts=2)


class Bench:
    """A pipeline with all its parts; ``banned`` holds its decisions."""

    def __init__(self, logged: list[EventDict]) -> None:
        self.banned: list[Decision] = []
        self.now = 1_000.0
        self.late: list[Attempt] = []
        self.exempted: list[Attempt] = []
        self.observed: list[Address] = []
        self.detector = Detector(
            (RULE, BY_NAME["flood"]), several=frozenset({"pbx"}), connections=Connected()
        )
        told = self.late.append, self.exempted.append, self.observed.extend
        self.sounding = Alarms(lambda: self.now)
        self.evidence = Pipeline(self.detector, self.banned.append, self._clock(), self.sounding, *told)
        self.evidence.wire_asterisk = "pbx"
        self.logged = logged

    def _clock(self) -> Clock:
        return Clock(wall=lambda: self.now, mono=lambda: self.now)

    def tend(self, *, wire: bool = False) -> None:
        """Advance the clock past the wait for confirmation, and run a tick."""
        self.now += PATIENCE
        self.evidence.tick(wire=wire, listening=lambda _: None)

    def alarms(self) -> list[str]:
        """Return the codes of the alarms that were logged."""
        return [entry["event"].removeprefix("alarm.") for entry in self.logged]


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a pipeline that has received no event yet."""
    with capture_logs() as logged:
        yield Bench(logged)


def challenge(call_id: bytes = b"call-1", *, evasive: bool = False) -> Challenge:
    """Return a challenge that PJSIP sent to SENDER."""
    by = ip_address(SENDER)
    return Challenge(by, 5062, ip_address("198.18.0.1"), 5060, call_id, b"n", by, evasive)


def test_a_decision_is_carried_out_at_once(bench: Bench) -> None:
    """The event that completes a rule bans at once, from whichever source it is."""
    bench.evidence.on_events([event(EventKind.CHALLENGE_RESPONSE_FAILED)], 0.0)
    assert bench.banned == []
    bench.evidence.on_challenges([challenge(b"\xff", evasive=True)], 0.0)
    assert [decision.subject for decision in bench.banned] == [ip_network(SENDER)]
    assert bench.alarms() == ["evidence.hidden"]


def test_what_the_wire_saw_is_judged_in_its_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wire's packets are judged in order: nonce, then request, then the answer to the request."""
    given: list[list[object]] = []

    def take(seen: Sequence[object], *_: object) -> list[object]:
        given.append(list(seen))
        return []

    monkeypatch.setattr(bench.detector, "observe_challenges", take)
    monkeypatch.setattr(bench.detector, "observe_requests", take)
    first, last = challenge(), evolve(challenge(), status=403)
    request = ObservedRequest(ip_address(SENDER), 5062, (b"n",), (b"call-1",))

    bench.evidence.on_challenges([first, request, request, last], 0.0)
    bench.evidence.on_challenges([], 0.0)
    assert given == [[first], [request, request], [last], []]


def test_an_unproven_attempt_that_the_wire_alone_saw_makes_a_suspect(bench: Bench) -> None:
    """Only the wire's unproven attempts make a suspect; AMI's attempts and banned addresses do not."""
    bench.evidence.on_events([event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"told")], 0.0)
    assert bench.observed == []
    for number in range(4):
        bench.evidence.on_challenges([evolve(challenge(b"%d\xff" % number), evasive=True)], 0.0)
        bench.detector.record_ban(ip_network(SENDER), 100.0) if number == 1 else None
    assert bench.observed == [ip_address(SENDER)] * 2


def test_a_tampered_event_is_an_alarm(bench: Bench) -> None:
    """A tampered event raises an alarm, even if it reports no attempt."""
    bench.evidence.on_events([event(EventKind.CHALLENGE_SENT, tampered=True)], 0.0)
    [alarm] = bench.sounding.active
    assert (alarm.code, alarm.subject) == ("evidence.tampered", "pbx/ami")


def test_asterisks_whose_chan_sip_serves_tls_are_known(bench: Bench) -> None:
    """An event of chan_sip by TLS marks its Asterisk; events of PJSIP or by UDP do not."""
    one = event(EventKind.CHALLENGE_SENT, transport=Transport.TLS)
    bench.evidence.on_events([one, event(EventKind.CHALLENGE_SENT, service=Service.SIP)], 0.0)
    assert bench.evidence.chan_sip_tls == set()
    bench.evidence.on_events([evolve(one, service=Service.SIP)], 0.0)
    assert bench.evidence.chan_sip_tls == {"pbx"}


def test_the_same_alarm_is_logged_once(bench: Bench) -> None:
    """A repeated alarm is logged once, and its repetitions are counted."""
    for now in (0.0, 1.0, 59.0):
        bench.evidence.on_events([event(EventKind.CHALLENGE_SENT, tampered=True)], now)
    assert bench.alarms() == ["evidence.tampered"]
    assert [alarm.times for alarm in bench.sounding.active] == [3]


def test_a_forged_line_is_an_alarm_and_no_ban(bench: Bench) -> None:
    """While the wire sees everything, a forged line raises an alarm and bans no address."""
    bench.evidence.on_challenges([challenge(b"another")], 0.0)
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, address=STRANGER)
    bench.evidence.on_events([evolve(line, forgeable=True)] * 2, bench.now)
    bench.tend(wire=True)

    assert (bench.banned, bench.alarms()) == ([], ["evidence.forged"])
    assert [alarm.subject for alarm in bench.sounding.active] == [STRANGER]


def test_an_aimed_event_is_an_alarm(bench: Bench) -> None:
    """The alarm about a forged event names the forger and the address that the event names."""
    aimed = event(EventKind.INVALID_PASSWORD, service=Service.SIP, address=STRANGER)
    true = event(EventKind.INVALID_PASSWORD, service=Service.SIP, source=NOTICES, session=b"")
    bench.evidence.on_events([aimed, true], bench.now)
    bench.tend()

    [alarm] = [alarm for alarm in bench.sounding.active if alarm.code == "evidence.forged_by"]
    assert (alarm.subject, STRANGER in alarm.text) == (SENDER, True)


@pytest.mark.parametrize("service", [Service.SIP, Service.PJSIP])
def test_what_is_unconfirmed_says_why(bench: Bench, service: Service) -> None:
    """The alarm states that only the log names the address, and which sources could confirm it."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, service=service, source=NOTICES)
    bench.evidence.on_events([evolve(told, forgeable=True)], bench.now)
    bench.tend()

    assert bench.alarms() == ["evidence.unconfirmed"]
    assert bench.sounding.active[0].text == (
        "only the log names this address, and a sender can have Asterisk write such a line: neither AMI nor "
        "the wire nor a TCP connection confirms it, so it is listed and not banned"
    )


def test_hearsay_of_ami_raises_the_alarm_with_its_fix(bench: Bench) -> None:
    """Only AMI events that an HTTP client can forge raise the alarm, and they ban no address."""
    told = event(EventKind.INVALID_PASSWORD, service=Service.AMI, session=b"0x1")
    bench.evidence.on_events([told, evolve(told, source=NOTICES, forgeable=True)], 0.0)
    assert "evidence.forgeable" not in bench.alarms()
    bench.banned.clear()
    bench.evidence.on_events([evolve(told, forgeable=True)] * 3, 0.0)

    [alarm] = [alarm for alarm in bench.sounding.active if alarm.code == "evidence.forgeable"]
    assert alarm.subject == "pbx/ami"
    assert "fix: webenabled = no" in alarm.text
    assert bench.banned == []


def test_a_flood_of_ten_seconds_is_a_ban_of_the_sip_ports(bench: Bench) -> None:
    """Each second over the kernel's limit is an attempt with a claimed address, and ten of them ban."""
    flooder, other = ip_network("192.0.2.7"), ip_network("2001:db8:7::/64")
    for second in range(9):
        bench.evidence.on_udp_floods([flooder, other], bench.now + second)
    assert bench.banned == []
    bench.evidence.on_udp_floods([flooder], bench.now + 9)

    [decision] = bench.banned
    assert (decision.subject, decision.rule.name, decision.scope) == (flooder, "flood", Scope.SIP_UDP)
    assert len(decision.attempts) == 10
    assert {(attempt.proof, attempt.event, attempt.service) for attempt in decision.attempts} == {
        (Proof.CLAIMED, EventKind.LIMITED, Service.KERNEL)
    }
    bench.evidence.on_udp_floods([other], bench.now + 9)
    assert [found.subject for found in bench.banned] == [flooder, other]


def test_a_flood_by_tcp_is_ten_seconds_of_a_sender_with_a_connection(bench: Bench) -> None:
    """A TCP flood bans from the SIP ports by TCP; forgeable seconds by UDP do not count for it."""
    sender, address = ip_network("192.0.2.7"), ip_address("192.0.2.7")
    connected: dict[Address, bool | None] = {}
    bench.evidence._had_connection = connected.get
    for known in (None, False):
        connected[address] = known
        for second in range(20):
            bench.evidence.on_tcp_floods([sender], bench.now + second)
    connected[address] = True
    for second in range(9):
        bench.evidence.on_tcp_floods([sender, sender], bench.now + 20 + second)
        bench.evidence.on_udp_floods([sender], bench.now + 20 + second)
    assert bench.banned == []
    bench.evidence.on_tcp_floods([sender], bench.now + 29)

    [decision] = bench.banned
    assert (decision.subject, decision.rule.name, decision.scope) == (sender, "flood", Scope.SIP_TCP)
    assert (decision.seconds, len(decision.attempts)) == (600.0, 10)
    assert {attempt.transport for attempt in decision.attempts} == {Transport.TCP}


@pytest.mark.parametrize("why", ["never", "banned", "rule"])
def test_a_flood_by_tcp_that_bans_nobody(bench: Bench, why: str) -> None:
    """A TCP flood bans no address that is exempt or already banned, and none if the rule is off."""
    bench.evidence._had_connection = lambda _: True
    if why == "never":
        bench.detector.exempt = NetworkSet([ip_network("192.0.2.0/24")])
    elif why == "banned":
        bench.detector.banned = lambda _, scope: scope is Scope.SIP_TCP
    else:
        bench.detector.configure((RULE,))
    for second in range(20):
        bench.evidence.on_tcp_floods([ip_network("192.0.2.7")], bench.now + second)

    assert bench.banned == []


def test_a_burst_now_and_then_is_no_flood(bench: Bench) -> None:
    """Single seconds over the limit, spread over an hour, are a busy trunk and ban no address."""
    for minute in range(60):
        bench.evidence.on_udp_floods([ip_network("192.0.2.7")], bench.now + 60.0 * minute)

    assert bench.banned == []


def test_who_is_exempt_may_flood(bench: Bench) -> None:
    """The limiter drops packets of an exempt address, but no ban follows."""
    bench.detector.exempt = NetworkSet([ip_network("192.0.2.0/24")])
    for second in range(20):
        bench.evidence.on_udp_floods([ip_network("192.0.2.7")], bench.now + second)

    assert bench.banned == []


def test_who_is_banned_and_floods_shows_nothing(bench: Bench) -> None:
    """A flood from a banned address is not late: the limiter can see packets that a later rule rejects."""
    bench.detector.banned = lambda _, __: True
    for second in range(20):
        bench.evidence.on_udp_floods([ip_network("192.0.2.7")], bench.now + second)

    assert bench.late == []


def test_what_comes_from_who_is_banned_is_told(bench: Bench) -> None:
    """Attempts of banned and of exempt addresses reach their observers; other attempts do not."""
    guess = event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"a")
    bench.evidence.on_events([guess], 0.0)
    assert bench.late == []
    bench.detector.banned = lambda network, _: network == ip_network(SENDER)
    bench.evidence.on_events([evolve(guess, session=b"b")], 1.0)
    bench.detector.banned = lambda _, __: False
    bench.detector.exempt = NetworkSet([ip_network(SENDER)])
    bench.evidence.on_events([evolve(guess, session=b"c")], 2.0)

    assert [str(attempt.address) for attempt in bench.late] == [SENDER]
    assert [str(attempt.address) for attempt in bench.exempted] == [SENDER]


def test_decisions_wait_for_the_friends_and_are_one_for_each_subject(bench: Bench) -> None:
    """Decisions wait until the friends are known; then each subject is banned once, and no friend."""
    bench.evidence.pause()
    for number in range(20):
        told = evolve(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"%d" % number), forgeable=False)
        bench.evidence.on_events(
            [told, evolve(told, remote=evolve(told.remote, address=ip_address(STRANGER)))], 0.0
        )
    assert bench.banned == []
    bench.detector.friends.add(
        Friend("pbx", ip_address(STRANGER), "204", FriendReason.REGISTERED, 0.0, 0.0, 1e9)
    )
    bench.evidence.resume()
    assert [(decision.subject, decision.scope) for decision in bench.banned] == [
        (ip_network(SENDER), Scope.SIP_UDP)
    ]
