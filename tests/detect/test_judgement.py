"""The detector's results: judgements with their decisions, and the watched subjects."""

from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.detect.events import attempt

from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Decision, Disposition, Judgement, friend_banned
from ringfence.detect.rules import RULES
from ringfence.values.attempt import Proof
from ringfence.values.ban import Scope
from ringfence.values.friend import Friend, FriendReason

GUESS = RULES[0]


def test_a_decision_carries_its_subject_rule_and_attempts() -> None:
    """A decision carries its subject, its rule and the attempts as evidence, oldest first."""
    detector = Detector((evolve(GUESS, attempts=2),))
    first, second = (attempt(time=time, proof=Proof.NONCE) for time in (1.0, 2.0))
    subject = ip_network("192.0.2.7/32")
    assert detector.judge(first, 1.0) == (Judgement(first, subject, Disposition.COUNTED),)
    decision = Decision(subject, detector.rules[0], (first, second), 2.0, Scope.SIP, accounts=1)
    assert detector.judge(second, 2.0) == (Judgement(second, subject, Disposition.COUNTED, decision),)


@pytest.mark.parametrize(
    ("accounts", "named"), [(("300", "", "301"), "300, 301"), (("",), "unknown accounts")]
)
def test_the_alarm_of_a_banned_friend_names_the_accounts(accounts: tuple[str, ...], named: str) -> None:
    """The administrator sees at which accounts the guesses were, if Asterisk's events show any."""
    tried = tuple(attempt(account=account) for account in accounts)
    decision = Decision(ip_network("192.0.2.1/32"), GUESS, tried, 2.0, Scope.SIP_UDP, 60.0)
    assert f"other accounts ({named})" in friend_banned(ip_address("192.0.2.1"), decision).text


def test_a_friend_is_watched_by_its_own_numbers() -> None:
    """A failing friend is watched by its own numbers, whatever strangers in its network do."""
    friends = Friends()
    friends.add(Friend("pbx", ip_address("192.0.2.1"), "204", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e9))
    detector = Detector(RULES, friends=friends)
    for number in range(30):
        detector.judge(attempt("192.0.2.1", account="x", proof=Proof.NONCE), 4.0 * number)
    for number in range(3):
        detector.judge(attempt("192.0.2.2", account="x", proof=Proof.NONCE), 120.0 + number)
    found = {str(one.subject): (one.rule, one.have, one.of) for one in detector.watched(123.0)}
    assert found == {"192.0.2.1/32": ("guess", 6, 22), "192.0.2.2/32": ("guess", 3, 5)}


def test_a_stranger_is_watched_by_rules_that_count_it_alone() -> None:
    """The attempts of its network, and those at the same account, bring no address nearer to a ban."""
    detector = Detector(RULES)
    for number in range(15):
        detector.judge(attempt(f"192.0.2.{number}", proof=Proof.NONCE), float(number))
    assert {(one.rule, one.have) for one in detector.watched(15.0)} == {("guess", 1)}
