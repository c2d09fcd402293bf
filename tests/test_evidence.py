"""Evidence: what is judged is carried out at once, and what is strange about it is an alarm."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.detect.events import NOTICES, SENDER, event

from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.doubts import PATIENCE
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import RULES
from ringfence.evidence import Evidence
from ringfence.model import Attempt, Challenge, EventKind, Friend, Proof, Scope, Service, Tie

if TYPE_CHECKING:
    from ringfence.detect.judge import Decision

STRANGER = "203.0.113.9"
BY_NAME = {rule.name: rule for rule in RULES}
RULE = evolve(BY_NAME["guess"], attempts=2)


class Bench:
    """Evidence with all that it needs; ``banned`` is what it decided."""

    def __init__(self, logged: list[EventDict]) -> None:
        self.banned: list[Decision] = []
        self.now = 1_000.0
        self.late: list[Attempt] = []
        self.exempted: list[Attempt] = []
        self.detector = Detector((RULE, BY_NAME["flood"]), several=frozenset({"pbx"}))
        told = self.late.append, self.exempted.append
        self.sounding = Alarms(lambda: self.now)
        self.evidence = Evidence(self.detector, self.banned.append, self._clock(), self.sounding, *told)
        self.evidence.whose = "pbx"
        self.logged = logged

    def _clock(self) -> Clock:
        return Clock(wall=lambda: self.now, mono=lambda: self.now)

    def tend(self, *, wire: bool = False) -> None:
        """Let the time of doubts pass."""
        self.now += PATIENCE
        self.evidence.tend(wire=wire, listening=lambda _: None)

    def alarms(self) -> list[str]:
        """Give the names of the alarms that were logged."""
        return [entry["event"].removeprefix("alarm.") for entry in self.logged]


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Nothing was heard yet."""
    with capture_logs() as logged:
        yield Bench(logged)


def challenge(call_id: bytes = b"call-1", *, veiled: bool = False) -> Challenge:
    """Give a challenge that SENDER asked PJSIP for."""
    by = ip_address(SENDER)
    return Challenge(by, 5062, ip_address("198.18.0.1"), 5060, call_id, b"n", by, veiled)


def test_a_decision_is_carried_out_at_once(bench: Bench) -> None:
    """With the event that makes the rule full, whoever told of it."""
    bench.evidence.hear([event(EventKind.CHALLENGE_RESPONSE_FAILED)], 0.0)
    assert bench.banned == []
    bench.evidence.see([challenge(b"\xff", veiled=True)], 0.0)
    assert [decision.subject for decision in bench.banned] == [ip_network(SENDER)]
    assert bench.alarms() == ["evidence.hidden"]


def test_a_tampered_event_is_an_alarm(bench: Bench) -> None:
    """Whether or not it tells of an attempt."""
    bench.evidence.hear([event(EventKind.CHALLENGE_SENT, tampered=True)], 0.0)
    [alarm] = bench.sounding.up
    assert (alarm.name, alarm.subject) == ("evidence.tampered", "pbx/ami")


def test_the_same_alarm_is_logged_once(bench: Bench) -> None:
    """And counts how often it was raised."""
    for now in (0.0, 1.0, 59.0):
        bench.evidence.hear([event(EventKind.CHALLENGE_SENT, tampered=True)], now)
    assert bench.alarms() == ["evidence.tampered"]
    assert [alarm.times for alarm in bench.sounding.up] == [3]


def test_a_forged_line_is_an_alarm_and_no_ban(bench: Bench) -> None:
    """Where the wire sees all, the one it names is said and nothing follows for him."""
    bench.evidence.see([challenge(b"another")], 0.0)
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, address=STRANGER)
    bench.evidence.hear([evolve(line, hearsay=True)] * 2, bench.now)
    bench.tend(wire=True)

    assert (bench.banned, bench.alarms()) == ([], ["evidence.forged"])
    assert [alarm.subject for alarm in bench.sounding.up] == [STRANGER]


def test_an_aimed_event_is_an_alarm(bench: Bench) -> None:
    """It says who aimed, and at whom."""
    aimed = event(EventKind.INVALID_PASSWORD, service=Service.SIP, address=STRANGER)
    true = event(EventKind.INVALID_PASSWORD, service=Service.SIP, source=NOTICES, session=b"")
    bench.evidence.hear([aimed, true], bench.now)
    bench.tend()

    [alarm] = bench.sounding.up
    assert (alarm.name, alarm.subject, STRANGER in alarm.text) == ("evidence.aimed", SENDER, True)


@pytest.mark.parametrize(("service", "word"), [(Service.SIP, "chan_sip"), (Service.PJSIP, "notice")])
def test_what_is_withheld_says_why(bench: Bench, service: Service, word: str) -> None:
    """In words that fit the service."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, service=service, source=NOTICES)
    bench.evidence.hear([evolve(told, hearsay=True)], bench.now)
    bench.tend()

    assert bench.alarms() == ["evidence.withheld"]
    assert word in bench.sounding.up[0].text


def test_failed_manager_logins_are_a_problem_where_ami_tells_them(bench: Bench) -> None:
    """AMI over HTTP forges whole events then; a line of the log shows no such thing."""
    told = event(EventKind.INVALID_PASSWORD, service=Service.AMI, session=b"")
    bench.evidence.hear([evolve(told, source=NOTICES)], 0.0)
    assert bench.evidence.problems == []
    bench.evidence.hear([told, told], 0.0)
    assert [problem.partition(":")[0] for problem in bench.evidence.problems] == ["pbx"]
    assert bench.alarms() == ["evidence.forgeable"]


def test_a_flood_of_ten_seconds_is_a_ban_of_the_sip_ports(bench: Bench) -> None:
    """Each second over the kernel's limit is an attempt whose address may be forged; ten of them decide."""
    flooder, other = ip_network("192.0.2.7"), ip_network("2001:db8:7::/64")
    for second in range(9):
        bench.evidence.limited([flooder, other], bench.now + second)
    assert bench.banned == []
    bench.evidence.limited([flooder], bench.now + 9)

    [decision] = bench.banned
    assert (decision.subject, decision.rule.name, decision.scope) == (flooder, "flood", Scope.SIP_UDP)
    assert len(decision.attempts) == 10
    assert {(attempt.proof, attempt.event, attempt.service) for attempt in decision.attempts} == {
        (Proof.CLAIMED, EventKind.LIMITED, Service.KERNEL)
    }
    bench.evidence.limited([other], bench.now + 9)
    assert [found.subject for found in bench.banned] == [flooder, other]


def test_a_burst_now_and_then_is_no_flood(bench: Bench) -> None:
    """Ten seconds over the limit within an hour, say, are a busy trunk and ban nobody."""
    for minute in range(60):
        bench.evidence.limited([ip_network("192.0.2.7")], bench.now + 60.0 * minute)

    assert bench.banned == []


def test_who_is_exempt_may_flood(bench: Bench) -> None:
    """What the limiter drops of him it drops, and no ban follows."""
    bench.detector.never = NetworkSet([ip_network("192.0.2.0/24")])
    for second in range(20):
        bench.evidence.limited([ip_network("192.0.2.7")], bench.now + second)

    assert bench.banned == []


def test_who_is_banned_and_floods_shows_nothing(bench: Bench) -> None:
    """The limiter meets him where his packets are rejected further in: it is no sign that his ban fails."""
    bench.detector.banned = lambda _, __: True
    for second in range(20):
        bench.evidence.limited([ip_network("192.0.2.7")], bench.now + second)

    assert bench.late == []


def test_what_comes_from_who_is_banned_is_told(bench: Bench) -> None:
    """Whoever looks whether bans work hears of it, and of who never is; of an attempt that counts nothing."""
    guess = event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"a")
    bench.evidence.hear([guess], 0.0)
    assert bench.late == []
    bench.detector.banned = lambda network, _: network == ip_network(SENDER)
    bench.evidence.hear([evolve(guess, session=b"b")], 1.0)
    bench.detector.banned = lambda _, __: False
    bench.detector.never = NetworkSet([ip_network(SENDER)])
    bench.evidence.hear([evolve(guess, session=b"c")], 2.0)

    assert [str(attempt.address) for attempt in bench.late] == [SENDER]
    assert [str(attempt.address) for attempt in bench.exempted] == [SENDER]


def test_decisions_wait_for_the_friends_and_are_one_for_each_subject(bench: Bench) -> None:
    """Who turns out to be one is not banned, and nobody twice."""
    bench.evidence.wait()
    for number in range(20):
        told = evolve(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"%d" % number), hearsay=False)
        bench.evidence.hear(
            [told, evolve(told, remote=evolve(told.remote, address=ip_address(STRANGER)))], 0.0
        )
    assert bench.banned == []
    bench.detector.friends.meet(Friend("pbx", ip_address(STRANGER), "204", Tie.REGISTERED, 0.0, 0.0, 1e9))
    bench.evidence.go_on()
    assert [(decision.subject, decision.scope) for decision in bench.banned] == [
        (ip_network(SENDER), Scope.SIP_UDP)
    ]
