"""All orders of the reports of small worlds: no invariant fails, and a guard that is wrong is found."""

import pytest
from tests.judge import interleavings
from tests.judge.asterisk import Act
from tests.judge.interleavings import ALMOST, MENU, World, follow, worlds
from tests.judge.worlds import ATTACKERS, PHONES, VICTIM

from ringfence.detect.judgement import Disposition

GUESS = Act("guesses", ATTACKERS[0])


@pytest.mark.parametrize(
    "world",
    [
        World((GUESS,), ALMOST),
        World((Act("hides", ATTACKERS[0], transport="TCP"),), ALMOST, 2),
        World((Act("logs in", PHONES[0]),), 0, 3),
    ],
    ids=["the guess that bans", "a hidden guess by TCP of which a challenge is lost", "a login"],
)
def test_no_order_of_the_reports_breaks_an_invariant(world: World) -> None:
    """Each order in which the reports of all sources can arrive is followed, with a second anywhere."""
    outcome = follow(world)

    assert (outcome.violations, outcome.order) == ((), ())
    assert outcome.states > 10


def test_a_guard_that_counts_forgeries_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that counts unconfirmed and forged reports breaks C, and the order is shown."""
    monkeypatch.setattr(interleavings, "_NOT_COUNTED", (Disposition.COUNTED_BEFORE,))

    outcome = follow(World((Act("hides and blames", ATTACKERS[0], VICTIM),)))

    assert f"C: {VICTIM} made 0 attempts, and 1 were counted" in map(str, outcome.violations)
    assert "log" in outcome.order


def test_all_worlds_of_the_menu_are_made() -> None:
    """Each action is alone, with each report lost, and with each action, after no guess and after four."""
    made = list(worlds())

    assert len(made) == len(set(made))
    assert {world.acts for world in made if len(world.acts) == 1} == {(act,) for act in MENU}
    assert sum(len(world.acts) == 2 for world in made) == len(MENU) * (len(MENU) + 1)
