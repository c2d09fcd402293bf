"""Transcripts: strangers whose calls Asterisk takes without a password."""

from attrs import evolve
from tests.detect.transcripts.reports import ATTACKER, PHONE, copied, friend, sent
from tests.support.transcript import Player, Step, at

from ringfence.values.event import Transport


def call(address: str, number: int, status: int, transport: Transport = Transport.UDP) -> Step:
    """Return the n-th call of an address, which Asterisk answers with 100 and a second status."""
    invite = copied(address, b"call-%d" % number, sequence=1, transport=transport)
    first, second = (
        sent(address, b"call-%d" % number, status=one, sequence=1, transport=transport)
        for one in (100, status)
    )
    return at(number, evolve(invite, method="INVITE", digest=b"%d" % number), first, second)


def test_a_stranger_whose_calls_are_taken_is_named() -> None:
    """A carrier that no ``identify`` matches makes no attempt, and is named with the number of its calls."""
    guard = Player()
    calls = [call(ATTACKER, number, 200, Transport.TCP if number else Transport.UDP) for number in range(3)]
    assert guard.play(*calls).attempts == []
    [guest] = guard.guests()
    assert (str(guest.address), guest.number) == (ATTACKER, 3)


def test_a_friend_is_no_guest() -> None:
    """A phone or trunk that becomes known is not named any more."""
    guard = Player()
    guard.play(call(PHONE, 0, 180))
    assert [str(guest.address) for guest in guard.guests()] == [PHONE]
    guard.play(at(1, friend(PHONE)))
    assert guard.guests() == []
