"""Reasons of refused attempts, in plain words."""

import pytest
from attrs import evolve
from tests.support.attempts import ATTEMPT

from ringfence.explain.account import reason_of
from ringfence.values.attempt import AttemptKind
from ringfence.values.event import EventKind, Service


@pytest.mark.parametrize(
    ("event", "kind", "service", "reason"),
    [
        (EventKind.CHALLENGE_RESPONSE_FAILED, AttemptKind.GUESS, Service.PJSIP, "wrong password"),
        (EventKind.INVALID_PASSWORD, AttemptKind.GUESS, Service.SIP, "wrong password"),
        (EventKind.INVALID_ACCOUNT_ID, AttemptKind.GUESS, Service.PJSIP, "no such account"),
        (EventKind.FAILED_ACL, AttemptKind.GUESS, Service.PJSIP, "ACL"),
        (EventKind.FAILED_ACL, AttemptKind.PROBE, Service.PJSIP, "unknown extension"),
        (EventKind.FAILED_ACL, AttemptKind.PROBE, Service.DIALPLAN, "unknown caller"),
        (EventKind.REQUEST_BAD_FORMAT, AttemptKind.GUESS, Service.PJSIP, "RequestBadFormat"),
    ],
)
def test_reasons_are_plain_words(event: EventKind, kind: AttemptKind, service: Service, reason: str) -> None:
    """Each event has a reason in an administrator's words; others keep Asterisk's name."""
    assert reason_of(evolve(ATTEMPT, event=event, kind=kind, service=service)) == reason
