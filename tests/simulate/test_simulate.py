"""The daemon in simulated time: stories of fixed seeds hold, a seed repeats, and seeds find old faults."""

from pathlib import Path

import pytest
from tests.judge.asterisk import Act
from tests.judge.fault import put_back
from tests.judge.oracle import Violation
from tests.judge.worlds import ATTACKERS
from tests.simulate.cases import keep, read
from tests.simulate.faults import FAULTS
from tests.simulate.play import Failure, play, shrunk, traced
from tests.simulate.step import Step
from tests.simulate.story import story

SEEDS = [range(first, first + 10) for first in range(0, 200, 10)]
CASES = sorted(Path(__file__).parent.glob("cases/*.txt"))


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_invariant_fails(seeds: range) -> None:
    """Stories of fixed seeds hold."""
    for seed in seeds:
        failure = play(seed, story(seed))

        assert failure is None, str(shrunk(failure))


@pytest.mark.parametrize("seed", [0, 1], ids=["without features", "with features"])
def test_a_seed_repeats_exactly(seed: int) -> None:
    """Every callback of a story comes at the same time again."""
    first, second = (traced(seed, story(seed)) for _ in range(2))

    assert first == second
    assert traced(seed + 1, story(seed)) != first


@pytest.mark.parametrize("name", FAULTS)
def test_a_seed_finds_each_fault_that_is_put_back(name: str) -> None:
    """A story fails with the fault, by the invariant that it breaks, and holds without it.

    Some faults show in some orders only of what is ready, so the first of ten seeds that shows it counts.
    """
    fault, invariant, first, steps = FAULTS[name]

    with put_back(fault):
        failure = next(filter(None, (play(seed, steps) for seed in range(first, first + 10))), None)
    assert failure is not None
    assert failure.invariant == invariant, str(failure)
    assert play(failure.seed, steps) is None


def test_a_failed_story_is_made_shorter() -> None:
    """Of a story that fails, only the steps stay without which it would hold."""
    before = [Step("rotate"), Step("ban", number=1), Step("hold", seconds=0.3)]
    steps = [*before, Step("act", Act("guesses", ATTACKERS[0])), Step("damage"), Step("cut")]
    fault, *_ = FAULTS["removed sets"]

    with put_back(fault):
        failure = play(0, steps)
        assert failure is not None
        shorter = shrunk(failure)

    assert [step.kind for step in shorter.steps] == ["ban", "damage"]
    assert read(str(shorter)) == (0, [*shorter.steps])


def test_a_failed_story_is_kept_as_a_case(tmp_path: Path) -> None:
    """The file of a failure has its seed and its steps, as those of the cases have."""
    steps = (Step("act", Act("guesses", ATTACKERS[0])), Step("kill", number=3, seconds=0.1))

    path = keep(str(Failure(7, steps, (Violation("L", "no ban"),))), tmp_path / "findings")

    assert read(path.read_text("utf-8")) == (7, [*steps])


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_story_that_failed_once_holds(case: Path) -> None:
    """The shortened stories that once failed hold."""
    assert play(*read(case.read_text("utf-8"))) is None
