"""Bans and alarms that blame somebody else: each recipe of an attacker, and each habit of phones.

Each recipe runs on a real Asterisk, with addresses of its own; the recipes of one Asterisk share a daemon.
All rules are on.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, field
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, bed
from tests.support.blames import FRAMES, HABITS, Recipe, Scene, blamed, configured

RUNS = 2


@define
class Found:
    """The number of runs, of the addresses that must not be blamed, and what blames them."""

    runs: int = 0
    innocent: int = 0
    blamed: list[str] = field(factory=list)


def judged(release: str) -> Mapping[str, Found]:
    """Run each recipe ``RUNS`` times with one daemon; return the results by the recipe's letter."""
    recipes = (*FRAMES[release], *HABITS[release])
    found = {recipe.letter: Found() for recipe in recipes}
    with bed(release=release, extra=configured(release)) as here:
        all_innocent: list[tuple[Recipe, Sequence[str]]] = []
        for number, recipe in enumerate(recipes * RUNS):
            scene = Scene(here.lab, here.guard, release, f"198.19.{100 + 2 * number}")
            all_innocent.append((recipe, sorted(recipe.run(scene))))
        for recipe in recipes:
            recipe.settle(here.guard)
        for recipe, innocent in all_innocent:
            one = found[recipe.letter]
            one.runs += 1
            one.innocent += len(innocent)
            one.blamed += [f"{release}: {text}" for text in blamed(here.guard, innocent)]
    return found


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    results = {release: judged(release) for release in FRAMES}
    yield _row("(h) to (k)", FRAMES, results, "bans or alarms that blame an address that sent nothing")
    yield _row("(l) to (p)", HABITS, results, "phones and offices banned")


def _row(
    letters: str,
    recipes: Mapping[str, Sequence[Recipe]],
    results: Mapping[str, Mapping[str, Found]],
    what: str,
) -> Figure:
    found = [results[release][recipe.letter] for release, all_of in recipes.items() for recipe in all_of]
    wrong = [text for one in found for text in one.blamed]
    names = {recipe.letter: recipe.what for all_of in recipes.values() for recipe in all_of}
    listed = "; ".join(f"({letter}) {names[letter]}" for letter in sorted(names))
    return Figure(
        what=f"{letters}: {what}: {listed}",
        measured=f"{len(wrong)} of {sum(one.innocent for one in found)} addresses, "
        f"{sum(one.runs for one in found)} runs" + (f": {', '.join(wrong)}" if wrong else ""),
        must="0",
        reached=not wrong,
        cores=PLACED,
    )
