"""Bans and alarms that blame somebody else: each recipe of an attacker, and each habit of phones.

Each recipe runs on a real Asterisk, with addresses of its own; the recipes of one Asterisk share a daemon.
All rules are on but ``distributed``: the attackers of all recipes guess at the same accounts.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, field
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, bed
from tests.support.blames import (
    AMI_INSIDE,
    FRAMES,
    HABITS,
    IN_CONTAINER,
    Recipe,
    Scene,
    bans_of,
    blamed,
    configured,
    contained,
)
from tests.support.daemon import Guard
from tests.support.guarded import guarded
from tests.support.lab import Lab

RUNS = 2
_RULES = {"distributed": {"enabled": False}}
_CONTAINED = "22 in a container"


@define
class Found:
    """The number of runs, of the addresses that must not be blamed, and what blames them."""

    runs: int = 0
    innocent: int = 0
    blamed: list[str] = field(factory=list)


def judged(release: str) -> Mapping[str, Found]:
    """Run each recipe of an Asterisk with one daemon; return the results by the recipe's letter."""
    with bed(_RULES, release=release, extra=configured(release)) as here:
        return _run((*FRAMES[release], *HABITS[release]), here.lab, here.guard, release)


def judged_in_a_container() -> Mapping[str, Found]:
    """Run the recipe of an Asterisk in a container."""
    with (
        contained() as lab,
        tempfile.TemporaryDirectory() as folder,
        guarded(lab, Path(folder), ami=AMI_INSIDE, rules=_RULES) as guard,
    ):
        return _run((IN_CONTAINER,), lab, guard, "22")


def _run(recipes: Sequence[Recipe], lab: Lab, guard: Guard, release: str) -> Mapping[str, Found]:
    """Run each recipe ``RUNS`` times, and judge all of them at the end."""
    found = {recipe.letter: Found() for recipe in recipes}
    ran: list[tuple[Recipe, Sequence[str]]] = []
    for number, recipe in enumerate([*recipes] * RUNS):
        ran.append((recipe, sorted(recipe.run(Scene(lab, guard, release, f"198.19.{100 + number}")))))
    max(recipes, key=lambda recipe: recipe.settles).settle(guard)
    for recipe, innocent in ran:
        one = found[recipe.letter]
        one.runs += 1
        one.innocent += len(innocent)
        # The second run has other addresses and the same accounts, which is an alarm about their passwords.
        wrong = bans_of if recipe in HABITS[release] else blamed
        one.blamed += [f"{release} ({recipe.letter}): {text}" for text in wrong(guard, innocent)]
    return found


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    results = {**{release: judged(release) for release in FRAMES}, _CONTAINED: judged_in_a_container()}
    frames = {**FRAMES, _CONTAINED: (IN_CONTAINER,)}
    yield _row("(h) to (k)", frames, results, "bans or alarms that blame an address that sent nothing")
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
    runs, innocent = sum(one.runs for one in found), sum(one.innocent for one in found)
    return Figure(
        what=f"{letters}: {what}: {listed}",
        measured=f"{len(wrong)} (of {innocent} addresses, n={runs})" + "".join(f"; {text}" for text in wrong),
        must="0",
        reached=not wrong,
        cores=PLACED,
    )
