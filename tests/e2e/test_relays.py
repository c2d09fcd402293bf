"""Vias below the topmost: they hide no sender, and addresses that only receive or relay are never blamed."""

import pytest
from tests.e2e.test_framing import MANY_SENDERS, settle
from tests.support.blames import GUESSES, Scene, blamed, guesses_by_way_of
from tests.support.daemon import until
from tests.support.guarded import shared
from tests.support.lab import Lab
from tests.support.phones import phones_at
from tests.support.sip_raw import Raw, rotation

pytestmark = pytest.mark.asterisk


def test_a_friend_that_receives_challenges_is_not_blamed(open22: Lab) -> None:
    """Two Vias, the upper with the friend's ``maddr``: guesses with its nonces do not touch it."""
    with shared(open22, **MANY_SENDERS) as guard:
        scene = Scene(open22, guard, "22", "198.19.91")
        friend, attacker = scene.at(3), scene.at(4)
        with phones_at(open22, friend, ["phone3"]) as [phone]:
            scene.befriend(phone, friend)
        assert guesses_by_way_of(scene, friend, attacker) >= GUESSES - 4
        settle(guard)

        assert blamed(guard, [friend]) == []
        assert guard.attempts_of(friend) == []


_SECOND = b"SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKbelow"
_VIAS = {
    "a line": Raw(vias=b"Via: " + _SECOND + b"\r\n"),
    "a short line": Raw(vias=b"v: " + _SECOND + b"\r\n"),
    "after a comma": Raw(via=b";rport," + _SECOND),
    "of the topmost host": Raw(vias=b"Via: SIP/2.0/UDP 198.18.0.1:5060\r\n" * 3),
}
ROTATION = 80
"""Far fewer answers than the 160 guesses; ``tests/bench`` measures the figure."""


@pytest.mark.parametrize(("number", "vias"), [*enumerate(_VIAS)], ids=list(_VIAS))
def test_a_second_via_hides_no_rotation(open22: Lab, number: int, vias: str) -> None:
    """Four guesses from each of forty addresses: their nonces prove them, and the network is banned."""
    with shared(open22) as guard:
        network, request = f"198.19.{93 + number}.", _VIAS[vias]
        answered = rotation(open22, network, request, between=guard.take_turn, over=guard.bans)
        assert answered <= ROTATION
        until(lambda: f"{network}0/24" in guard.banned(), "the ban")


def test_a_second_via_hides_no_rotation_at_chan_sip(open16: Lab) -> None:
    """chan_sip's own events name the topmost Via too."""
    request = Raw(from_user=b"bob", vias=_VIAS["a line"].vias)
    with shared(open16) as guard:
        answered = rotation(open16, "198.19.93.", request, between=guard.take_turn, over=guard.bans)
        assert answered <= ROTATION
        until(lambda: "198.19.93.0/24" in guard.banned(), "the ban")
