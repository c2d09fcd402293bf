"""Whoever only receives or relays is never blamed: a proxy that forwards answers, and is a friend."""

import pytest
from tests.e2e.test_framing import MANY_SENDERS, settle
from tests.support.blames import GUESSES, Scene, blamed, guesses_by_way_of
from tests.support.guarded import shared
from tests.support.lab import Lab
from tests.support.phones import phones_at

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
