"""The answers on the wire: each confirms one line of the log."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SENDER, event

from ringfence.detect.confirmation import LIFE, Answers
from ringfence.detect.sessions import Senders
from ringfence.values.event import EventKind, SecurityEvent, Service
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer

BY: Address = ip_address(SENDER)
ASKED = CopiedAnswer(BY, 5062, ip_address("198.18.0.1"), 5060, b"call-1", b"n", BY, service=Service.SIP)
REFUSED = evolve(ASKED, nonce=b"", status=403, digest=b"d")
NOT_FOUND = evolve(REFUSED, status=404)


def line(acl_name: str = "", service: Service = Service.SIP) -> SecurityEvent:
    """Return a line that names the sender."""
    kind = EventKind.FAILED_ACL if acl_name else EventKind.INVALID_PASSWORD
    return event(kind, service=service, source=NOTICES, session=b"", acl_name=acl_name)


def test_each_answer_confirms_one_line() -> None:
    """An answer confirms one line for as long as a line may be late."""
    answers = Answers(Senders())
    answers.record(ASKED, BY, 0.0)

    assert [answers.confirms(line(), 2.0) for _ in range(2)] == [True, False]
    answers.record(evolve(ASKED, nonce=b"o"), BY, 3.0)
    assert not answers.confirms(line(), 3.0 + LIFE)


def test_the_latest_answers_of_a_sender_are_kept() -> None:
    """Of many answers, the latest 64 confirm a line each, so that a flood takes little memory."""
    answers = Answers(Senders())
    for number in range(100):
        answers.record(evolve(ASKED, nonce=b"n%d" % number), BY, number / 100)

    confirmed = [answers.confirms(line(), 0.99 + LIFE - 0.645) for _ in range(70)]
    assert confirmed == [True] * 64 + [False] * 6


@pytest.mark.parametrize("service", [Service.SIP, Service.PJSIP])
def test_a_call_to_nowhere_is_confirmed_by_a_404_alone(service: Service) -> None:
    """A challenge confirms no such call, a 404 confirms no wrong password, and the service must match."""
    answers = Answers(Senders())
    other = Service.SIP if service is Service.PJSIP else Service.PJSIP
    answers.record(evolve(NOT_FOUND, service=service), BY, 0.0)
    answers.record(evolve(ASKED, service=other), BY, 0.0)

    assert not answers.confirms(line(service=service), 0.0)
    assert not answers.confirms(line("no_extension_match", other), 0.0)
    assert answers.confirms(line("no_extension_match", service), 0.0)
