"""No address is blamed for what another sender, program or phone does: each recipe, on a real Asterisk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.blames import (
    AMI_INSIDE,
    FRAMES,
    HABITS,
    IN_CONTAINER,
    Recipe,
    Scene,
    blamed,
    configured,
    contained,
)
from tests.support.guarded import end_shared, guarded, shared
from tests.support.lab import Lab

pytestmark = pytest.mark.asterisk

LONG = ("16", "h")
"""It waits for many seconds, and is the same with PJSIP."""
RECIPES = [
    pytest.param(
        release,
        number,
        recipe,
        id=f"{release}-{recipe.letter}",
        marks=pytest.mark.long if (release, recipe.letter) == LONG else (),
    )
    for release in ("22", "16")
    for number, recipe in enumerate((*FRAMES[release], *HABITS[release]))
]


@pytest.fixture(scope="module")
def labs() -> Iterator[dict[str, Lab]]:
    """Yield both laboratories, with the lamps and numbers of the recipes."""
    with Lab.made("22", configured("22")) as lab22, Lab.made("16", configured("16")) as lab16:
        yield {"22": lab22, "16": lab16}
        end_shared(lab22)
        end_shared(lab16)


@pytest.mark.parametrize(("release", "number", "recipe"), RECIPES)
def test_the_innocent_are_not_blamed(labs: dict[str, Lab], release: str, number: int, recipe: Recipe) -> None:
    """The recipe works, and no ban and no alarm blames the addresses that it returns."""
    with shared(labs[release]) as guard:
        innocent = recipe.run(Scene(labs[release], guard, release, f"198.19.{150 + number}"))
        recipe.settle(guard)
        assert blamed(guard, innocent, recipe.true) == []


def test_the_innocent_are_not_blamed_if_asterisk_runs_in_a_container(tmp_path: Path) -> None:
    """The kernel knows no connection of the container, and nothing is concluded from that."""
    with contained() as lab, guarded(lab, tmp_path, ami=AMI_INSIDE) as guard:
        innocent = IN_CONTAINER.run(Scene(lab, guard, "22", "198.19.150"))
        IN_CONTAINER.settle(guard)
        assert blamed(guard, innocent) == []


@pytest.mark.parametrize("release", ["22", pytest.param("16", marks=pytest.mark.long)])
def test_a_forbidden_number_is_no_guess_without_ami(
    labs: dict[str, Lab], tmp_path: Path, release: str
) -> None:
    """No event about the right password excuses the 403, and no attempt is counted."""
    [recipe] = [recipe for recipe in HABITS[release] if recipe.letter == "p"]
    with guarded(labs[release], tmp_path, ami={"enabled": False}) as guard:
        innocent = recipe.run(Scene(labs[release], guard, release, "198.19.170"))
        recipe.settle(guard)
        assert blamed(guard, innocent) == []
        assert [guard.attempts_of(address) for address in innocent] == [[], []]
