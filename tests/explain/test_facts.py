"""The facts of an address: the fate of its packets, and its attempts."""

from ipaddress import ip_network
from typing import Any

import pytest
from attrs import evolve
from tests.explain.world import ban, friend, holder, known, proven, running, story
from tests.support.attempts import attempts

from ringfence.explain.facts import AddressVerdict, is_about, sources_of
from ringfence.store.bans import RecordedBan
from ringfence.values.attempt import Proof
from ringfence.values.entry import ListKind
from ringfence.values.event import EventKind

GATEWAY = {ip_network("192.0.2.1"): "the gateway"}
BAN = running(ban())


@pytest.mark.parametrize(
    ("verdict", "what"),
    [
        (AddressVerdict.STRANGER, {}),
        (AddressVerdict.FRIEND, {"friends": (friend(),)}),
        (
            AddressVerdict.DENIED,
            {"friends": (friend(),), "holders": (holder(ListKind.DENY, "192.0.2.0/24"),)},
        ),
        (
            AddressVerdict.FRIEND,
            {
                "friends": (friend(),),
                "passes": True,
                "holders": (holder(ListKind.DENY, "192.0.2.0/24", origin="feed list"),),
            },
        ),
        (
            AddressVerdict.DENIED,
            {"holders": (holder(ListKind.DENY, "192.0.2.0/24", origin="feed list"),)},
        ),
        (AddressVerdict.BANNED, {"running": (BAN,), "holders": (holder(ListKind.DENY, "192.0.2.0/24"),)}),
        (AddressVerdict.PROTECTED, {"running": (BAN,), "protected": GATEWAY}),
        (AddressVerdict.BANNED, {"running": (running(ban(forced=True)),), "protected": GATEWAY}),
        (AddressVerdict.STRANGER, {"protected": {ip_network("192.0.2.2"): "another"}}),
        (AddressVerdict.ALLOWED, {"running": (BAN,), "holders": (holder(ListKind.ALLOW, "192.0.2.0/24"),)}),
        (AddressVerdict.OFF, {"running": (BAN,), "enforcing": False}),
    ],
)
def test_the_verdict(verdict: AddressVerdict, what: dict[str, Any]) -> None:
    """As in the kernel: allowed before banned, banned before denied; a forced ban overrides protection."""
    assert known(**what).verdict is verdict


def test_an_attempt_is_listed_once() -> None:
    """A remembered attempt that led to a ban has the better proof, and the sources of both copies."""
    before, after = attempts(3), proven(5)
    told = known(running=(running(ban(made=before)),), story=story(made=after)).attempts()

    assert [one.attempt for one in told] == list(after)
    assert [one.attempt.sources for one in told] == [one.sources for one in after]
    assert [one.ban is not None for one in told] == [True] * 3 + [False] * 2


def test_an_attempt_whose_reason_came_after_the_ban_is_listed_once() -> None:
    """The wire reports a refusal before AMI names its reason; the listed copy has the reason."""
    [named] = attempts(1)
    by_wire = evolve(named, event=EventKind.REFUSED)
    told = known(running=(running(ban(made=(by_wire,))),), story=story(made=(named,))).attempts()

    assert [one.attempt.event for one in told] == [named.event]


def test_an_attempt_whose_account_came_after_the_ban_is_listed_once() -> None:
    """The copied packets show another account than the one that AMI names later; the listed copy has that."""
    named = evolve(attempts(1)[0], sources=("wire", "ami"))
    by_wire = evolve(named, account="alice%0A", event=EventKind.REFUSED, sources=("wire",))
    wide = ban("192.0.2.0/24", made=(named,))
    bans = running(ban(made=(by_wire,))), running(wide)
    told = known(running=bans, story=story(made=(named,))).attempts()

    assert [one.attempt for one in told] == [named]


def test_attempts_at_several_accounts_in_one_moment_stay_as_many() -> None:
    """A line of the log shows whole seconds: the attempt of a ban may be at another account."""
    [one] = attempts(1)
    other = evolve(one, account="other")
    told = known(running=(running(ban(made=(one,))),), story=story(made=(other,))).attempts()

    assert [each.attempt for each in told] == [one, other]


def test_attempts_that_look_the_same_stay_as_many() -> None:
    """Two equal attempts at one moment stay two, in a ban or in memory."""
    [one] = attempts(1)
    both = known(running=(running(ban(made=(one, one))),), story=story(made=(one, one, one)))

    assert len(both.attempts()) == 3


def test_attempts_of_two_bans_are_listed_once() -> None:
    """An attempt in the bans of an address and of its network is listed once."""
    mine = attempts(3)
    wide = ban("192.0.2.0/24", made=mine[:2])
    told = known(running=(running(ban(made=mine)), running(wide)), story=story(made=mine)).attempts()

    assert [one.attempt for one in told] == list(mine)


def test_attempts_are_in_order() -> None:
    """Attempts are listed oldest first, with or without a ban."""
    old, new = attempts(2), tuple(evolve(one, time=one.time + 50) for one in attempts(2))
    told = known(past=(RecordedBan(ban(made=new), None), RecordedBan(ban(made=old), None))).attempts()

    assert [one.attempt for one in told] == [*old, *new]


def test_the_wire_is_named_where_it_proved() -> None:
    """An attempt proven by a nonce names the wire, which alone knows the receiver of a nonce."""
    [one] = attempts(1)
    told = evolve(one, sources=("ami",))

    assert sources_of(told) == ("ami",)
    assert sources_of(evolve(told, proof=Proof.NONCE)) == ("ami", "wire")
    assert sources_of(evolve(told, proof=Proof.NONCE, sources=("wire",))) == ("wire",)


def test_an_alarm_is_about_its_subject() -> None:
    """A subject matches as the address or as an account at it, but not as a prefix of its text."""
    here = ip_network("192.0.2.1")
    assert is_about("192.0.2.1", here)
    assert is_about("204 at 192.0.2.1", here)
    assert not is_about("204 at 192.0.2.11", here)
    assert not is_about("204 of pbx", here)
