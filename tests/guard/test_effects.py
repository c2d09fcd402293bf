"""The effects of evidence: suspicious evidence raises an alarm, and decisions wait for the friends."""

from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SENDER, event
from tests.detect.transcripts.reports import sent
from tests.support.evidence import STRANGER, Bench, challenge

from ringfence.bans.exempt import Exempt
from ringfence.detect.judgement import Disposition
from ringfence.values.ban import Scope
from ringfence.values.event import EventKind, Service
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import NetworkSet


def test_a_tampered_event_is_an_alarm(bench: Bench) -> None:
    """A tampered event raises an alarm, even if it reports no attempt."""
    bench.pipeline.on_events([event(EventKind.CHALLENGE_SENT, tampered=True)], 0.0)
    [alarm] = bench.alarms.active
    assert (alarm.code, alarm.subject) == ("evidence.tampered", "pbx/ami")


def test_the_same_alarm_is_logged_once(bench: Bench) -> None:
    """A repeated alarm is logged once, and its repetitions are counted."""
    for now in (0.0, 1.0, 59.0):
        bench.pipeline.on_events([event(EventKind.CHALLENGE_SENT, tampered=True)], now)
    assert bench.alarm_codes() == ["evidence.tampered"]
    assert [alarm.times for alarm in bench.alarms.active] == [3]


def test_a_forged_line_is_an_alarm_and_no_ban(bench: Bench) -> None:
    """While the wire sees everything, a forged line raises an alarm and bans no address."""
    bench.pipeline.on_packets([challenge(b"another")], 0.0)
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, address=STRANGER)
    bench.pipeline.on_events([evolve(line, forgeable=True, time=bench.now)] * 2, bench.now)
    bench.tend(wire=True)

    assert (bench.banned, bench.alarm_codes()) == ([], ["evidence.forged"])
    assert [alarm.subject for alarm in bench.alarms.active] == [STRANGER]


def test_an_aimed_event_is_an_alarm(bench: Bench) -> None:
    """The alarm about a forged event names the forger and the address that the event names."""
    bench.pipeline.on_packets([sent(SENDER, nonce=b"n", service=Service.SIP)], bench.now)
    aimed = event(EventKind.INVALID_PASSWORD, service=Service.SIP, address=STRANGER)
    bench.pipeline.on_events([evolve(aimed, challenge=b"n", response=b"r")], bench.now)

    [alarm] = [alarm for alarm in bench.alarms.active if alarm.code == "evidence.forged_by"]
    assert (alarm.subject, STRANGER in alarm.text) == (SENDER, True)


@pytest.mark.parametrize("service", [Service.SIP, Service.PJSIP])
def test_an_unconfirmed_attempt_has_its_reason(bench: Bench, service: Service) -> None:
    """The alarm states that only the log names the address, and which sources could confirm it."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, service=service, source=NOTICES)
    bench.pipeline.on_events([evolve(told, forgeable=True)], bench.now)
    bench.tend()

    assert bench.alarm_codes() == ["evidence.unconfirmed"]
    assert bench.alarms.active[0].text == (
        "only the log names this address, and a sender can have Asterisk write such a line: neither AMI nor "
        "the wire nor a TCP connection confirms it, so it is listed and not banned"
    )


def test_hearsay_of_ami_raises_the_alarm_with_its_fix(bench: Bench) -> None:
    """Only AMI events that an HTTP client can forge raise the alarm, and they ban no address."""
    told = event(EventKind.INVALID_PASSWORD, service=Service.AMI, session=b"0x1")
    bench.pipeline.on_events([told, evolve(told, source=NOTICES, forgeable=True)], 0.0)
    assert "evidence.forgeable" not in bench.alarm_codes()
    bench.banned.clear()
    bench.pipeline.on_events([evolve(told, forgeable=True)] * 3, 0.0)

    [alarm] = [alarm for alarm in bench.alarms.active if alarm.code == "evidence.forgeable"]
    assert alarm.subject == "pbx/ami"
    assert "fix: webenabled = no" in alarm.text
    assert bench.banned == []


def test_attempts_of_banned_addresses_are_reported(bench: Bench) -> None:
    """Attempts of banned and of exempt addresses reach the observers as such."""
    guess = event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"a")
    bench.pipeline.on_events([guess], 0.0)
    bench.detector.bans.assume(ip_network(SENDER), Scope.FULL, 100.0)
    bench.pipeline.on_events([evolve(guess, session=b"b")], 1.0)
    bench.detector.bans.discard_assumed(ip_network(SENDER))
    bench.detector.exempt = NetworkSet([ip_network(SENDER)])
    bench.pipeline.on_events([evolve(guess, session=b"c")], 2.0)

    assert [(str(one.attempt.address), one.disposition) for one in bench.judged] == [
        (SENDER, Disposition.COUNTED),
        (SENDER, Disposition.LATE),
        (SENDER, Disposition.EXEMPT),
    ]


@pytest.mark.parametrize(
    "exempt",
    [Exempt(NetworkSet([ip_network(STRANGER)])), Exempt(protected={ip_network(STRANGER): "a login"})],
)
def test_a_decision_that_waits_bans_no_exempt_network(bench: Bench, exempt: Exempt) -> None:
    """If an address is allowed, or a login comes from it, before the friends are known, no ban follows."""
    bench.effects.hold()
    for number in range(20):
        told = evolve(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"%d" % number), forgeable=False)
        bench.pipeline.on_events(
            [told, evolve(told, remote=evolve(told.remote, address=ip_address(STRANGER)))], 0.0
        )
    bench.book.exempt = exempt
    bench.effects.release()

    assert [decision.subject for decision in bench.banned] == [ip_network(SENDER)]


def test_decisions_wait_for_the_friends_and_are_one_for_each_subject(bench: Bench) -> None:
    """Decisions wait until the friends are known; then each subject is banned once, and no friend."""
    bench.effects.hold()
    for number in range(20):
        told = evolve(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"%d" % number), forgeable=False)
        bench.pipeline.on_events(
            [told, evolve(told, remote=evolve(told.remote, address=ip_address(STRANGER)))], 0.0
        )
    assert bench.banned == []
    bench.detector.friends.add(
        Friend("pbx", ip_address(STRANGER), "204", FriendReason.REGISTERED, 0.0, 0.0, 1e9)
    )
    bench.effects.release()
    assert [(decision.subject, decision.scope) for decision in bench.banned] == [
        (ip_network(SENDER), Scope.SIP_UDP)
    ]
