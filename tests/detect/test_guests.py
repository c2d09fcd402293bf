"""Guests: which answers to which requests are calls without a password, and what is remembered of them."""

from ipaddress import ip_address

import pytest
from attrs import evolve

from ringfence.detect.conversation import Asked
from ringfence.detect.guests import MOST, Guests
from ringfence.detect.judgement import Guest
from ringfence.detect.rules import DAY
from ringfence.values.packet import CopiedRequest

CARRIER = ip_address("192.0.2.7")
CALL = CopiedRequest(CARRIER, 5060, (), (b"one",), method="INVITE")


def recorded(guests: Guests, request: CopiedRequest, status: int = 100, now: float = 0.0) -> None:
    """Record an answer to a request, 1 000 s later by the wall clock."""
    guests.record(Asked(request, b"", now, proven=False), status, now, now + 1_000.0)


def test_each_call_counts_once() -> None:
    """The INVITEs of one call are one call, and the next call is another."""
    guests = Guests()
    for call_id, now in ((b"one", 0.0), (b"one", 5.0), (b"two", 9.0)):
        recorded(guests, evolve(CALL, call_ids=(call_id,)), now=now)
    [guest] = guests.within_a_day(10.0)
    assert guest == Guest(CARRIER, 2, 1_000.0, 1_009.0)
    assert guest.sentence.startswith(
        "calls without a password, and Asterisk takes its calls (2 since 1970-01-01T00:16:40Z)"
    )
    assert "ringfence allow add 192.0.2.7;" in guest.sentence


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (evolve(CALL, method="REGISTER"), 200),
        (evolve(CALL, method="OPTIONS"), 200),
        (evolve(CALL, credentials=True), 100),
        (CALL, 486),
        (CALL, 302),
    ],
)
def test_other_requests_and_answers_are_no_calls(request_: CopiedRequest, status: int) -> None:
    """Another method, credentials, or a call that Asterisk does not take make no guest."""
    guests = Guests()
    recorded(guests, request_, status)
    guests.record(None, status, 0.0, 0.0)
    assert guests.within_a_day(0.0) == []


def test_a_guest_is_forgotten_after_a_day() -> None:
    """A day after its last call a guest is named no more, and counts from one again."""
    guests = Guests()
    recorded(guests, CALL)
    assert len(guests.within_a_day(DAY - 1)) == 1
    assert guests.within_a_day(DAY) == []
    recorded(guests, evolve(CALL, call_ids=(b"two",)), now=DAY)
    assert [(one.number, one.began) for one in guests.within_a_day(DAY)] == [(1, DAY + 1_000.0)]


def test_the_guests_are_bounded() -> None:
    """Of more guests than fit, the one that called longest ago is forgotten."""
    guests = Guests()
    for number in range(MOST + 1):
        recorded(guests, evolve(CALL, address=ip_address(int(CARRIER) + number)))
    assert len(guests.within_a_day(0.0)) == MOST
    assert CARRIER not in [one.address for one in guests.within_a_day(0.0)]
