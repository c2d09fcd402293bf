"""What is known of an address: what becomes of its packets, and which attempts there were."""

from ipaddress import ip_network
from typing import Any

import pytest
from attrs import evolve
from tests.support.attempts import attempts
from tests.why.world import ban, friend, holder, known, proven, running, story

from ringfence.model import Proof, Side
from ringfence.store_past import Past
from ringfence.why.known import Verdict, covers, is_about, sources_of

GATEWAY = {ip_network("192.0.2.1"): "the gateway"}
BAN = running(ban())


@pytest.mark.parametrize(
    ("verdict", "what"),
    [
        (Verdict.STRANGER, {}),
        (Verdict.FRIEND, {"friends": (friend(),)}),
        (Verdict.DENIED, {"friends": (friend(),), "holders": (holder(Side.DENY, "192.0.2.0/24"),)}),
        (Verdict.BANNED, {"running": (BAN,), "holders": (holder(Side.DENY, "192.0.2.0/24"),)}),
        (Verdict.PROTECTED, {"running": (BAN,), "protected": GATEWAY}),
        (Verdict.BANNED, {"running": (running(ban(forced=True)),), "protected": GATEWAY}),
        (Verdict.STRANGER, {"protected": {ip_network("192.0.2.2"): "another"}}),
        (Verdict.ALLOWED, {"running": (BAN,), "holders": (holder(Side.ALLOW, "192.0.2.0/24"),)}),
        (Verdict.OFF, {"running": (BAN,), "enforcing": False}),
    ],
)
def test_what_becomes_of_its_packets(verdict: Verdict, what: dict[str, Any]) -> None:
    """As the kernel asks: the allowed go before bans, bans before the denied; force bans the protected."""
    assert known(**what).verdict is verdict


def test_an_attempt_is_told_once() -> None:
    """What led to a ban and is remembered too has the better proof, and the witnesses of both."""
    before, after = attempts(3), proven(5)
    told = known(running=(running(ban(made=before)),), story=story(made=after)).attempts()

    assert [one.attempt for one in told] == list(after)
    assert [one.attempt.sources for one in told] == [one.sources for one in after]
    assert [one.ban is not None for one in told] == [True] * 3 + [False] * 2


def test_attempts_that_look_the_same_stay_as_many() -> None:
    """Two of the same moment are two, whether a ban or the memory has them."""
    [one] = attempts(1)
    both = known(running=(running(ban(made=(one, one))),), story=story(made=(one, one, one)))

    assert len(both.attempts()) == 3


def test_attempts_of_two_bans_are_told_once() -> None:
    """What led to a ban of the address, and of its network too, is one attempt."""
    mine = attempts(3)
    wide = ban("192.0.2.0/24", made=mine[:2])
    told = known(running=(running(ban(made=mine)), running(wide)), story=story(made=mine)).attempts()

    assert [one.attempt for one in told] == list(mine)


def test_attempts_of_bans_that_are_over_are_told_in_order() -> None:
    """The oldest first, whatever they led to."""
    old, new = attempts(2), tuple(evolve(one, time=one.time + 50) for one in attempts(2))
    told = known(past=(Past(ban(made=new), None), Past(ban(made=old), None))).attempts()

    assert [one.attempt for one in told] == [*old, *new]


def test_the_wire_is_named_where_it_proved() -> None:
    """Nobody else knows to whom a nonce was sent."""
    [one] = attempts(1)
    told = evolve(one, sources=("ami",))

    assert sources_of(told) == ("ami",)
    assert sources_of(evolve(told, proof=Proof.NONCE)) == ("ami", "wire")
    assert sources_of(evolve(told, proof=Proof.NONCE, sources=("wire",))) == ("wire",)


def test_an_alarm_is_about_whom_it_names() -> None:
    """By the address alone, or as the account at it; not where it only begins like it."""
    here = ip_network("192.0.2.1")
    assert is_about("192.0.2.1", here)
    assert is_about("204 at 192.0.2.1", here)
    assert not is_about("204 at 192.0.2.11", here)
    assert not is_about("204 of pbx", here)


def test_one_network_covers_another() -> None:
    """Whole, and of the same IP version."""
    wide = ip_network("192.0.2.0/24")
    assert covers(wide, ip_network("192.0.2.7"))
    assert covers(wide, wide)
    assert not covers(wide, ip_network("192.0.0.0/16"))
    assert not covers(wide, ip_network("::/0"))
