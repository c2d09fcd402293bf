"""The features of the running daemon, and a defect in one of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.support.kept import PHONE, kept, settings

from ringfence import street
from ringfence.alarm_codes import AlarmCode
from ringfence.ban_facts import Placed
from ringfence.detect.judgement import Login
from ringfence.guard.feature import Feature, Features
from ringfence.guard.pipeline import EffectHandler


class Broken(Feature):
    """A feature with a defect: it raises an exception for each fact."""

    __module__ = "ringfence.features.broken.guard"

    def on_fact(self, fact: object) -> object:
        """Fail."""
        raise ZeroDivisionError(type(fact).__name__)

    def on_login(self, login: Login) -> object:
        """Fail."""
        raise ZeroDivisionError(type(login).__name__)


class Counting(Feature):
    """A feature that counts the bans that it gets."""

    def __init__(self) -> None:
        self.placed = 0
        self.logins: list[tuple[str, bool]] = []

    def on_fact(self, fact: object) -> object:
        """Count a ban."""
        self.placed += len(fact.bans) if isinstance(fact, Placed) else 0
        return None

    def on_login(self, login: Login) -> object:
        """Record the account of a login, and whether it makes a friend."""
        self.logins.append((login.friend.account, login.befriends))
        return None


def test_a_defect_of_one_keeps_no_ban_from_the_kernel(tmp_path: Path) -> None:
    """All bans of a batch are placed, the other features get them, and one alarm names the defect."""
    with kept(tmp_path, settings()) as made:
        features, counting = Features(made.alarms), Counting()
        features.all += [Broken(), counting]
        made.side.common.listeners.append(features)
        made.side.start()
        assert made.ban("203.0.113.1", "203.0.113.2", "203.0.113.3") == []

        assert len([*made.backend.list()]) == counting.placed == 3
        [alarm] = [one for one in made.alarms.active if one.code == AlarmCode.TASK_FAILED]
        assert alarm.subject == "feature broken"
        assert alarm.text == "a defect of broken: ZeroDivisionError: Placed"

        made.now += 86_400.0
        made.alarms.expire()
        assert alarm.number in {one.number for one in made.alarms.active}  # until the daemon's next start


def test_a_login_reaches_the_features_and_makes_a_friend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that makes no friend reaches them too. A defect of one feature is an alarm and nothing else."""
    counting = Counting()
    built = [SimpleNamespace(build=lambda _, one=one: one) for one in (Broken(), Feature(), counting)]
    with kept(tmp_path, settings()) as made:
        monkeypatch.setattr(street, "modules", lambda _: built)
        features, side = Features(made.alarms), made.side
        given: Any = SimpleNamespace(side=side)
        features.build(given)
        friends = side.exempt.friends
        effects = EffectHandler(side.kernel.enforcer, made.alarms, friends, (), (features,))
        effects.carry_out([Login(PHONE), Login(evolve(PHONE, account="bob"), befriends=False)])

        assert counting.logins == [("alice", True), ("bob", False)]
        assert {one.account for one in friends.friends.all()} == {"alice"}
        [alarm] = [one for one in made.alarms.active if one.code == AlarmCode.TASK_FAILED]
        assert alarm.text == "a defect of broken: ZeroDivisionError: Login"
