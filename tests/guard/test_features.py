"""The features of the running daemon, and a defect in one of them."""

from pathlib import Path

from tests.support.kept import kept, settings

from ringfence.alarm_codes import AlarmCode
from ringfence.ban_facts import Placed
from ringfence.guard.feature import Feature, Features


class Broken(Feature):
    """A feature with a defect: it raises an exception for each fact."""

    __module__ = "ringfence.features.broken.guard"

    def on_fact(self, fact: object) -> object:
        """Fail."""
        raise ZeroDivisionError(type(fact).__name__)


class Counting(Feature):
    """A feature that counts the bans that it gets."""

    def __init__(self) -> None:
        self.placed = 0

    def on_fact(self, fact: object) -> object:
        """Count a ban."""
        self.placed += len(fact.bans) if isinstance(fact, Placed) else 0
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
        assert (alarm.subject, alarm.text) == ("broken", "a defect of broken: ZeroDivisionError: Placed")
