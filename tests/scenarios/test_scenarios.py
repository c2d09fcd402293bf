"""All transcripts of this folder: the results that they state follow, and no others."""

import re
from pathlib import Path

import pytest
from tests.scenarios.language import read, read_file
from tests.scenarios.outcomes import What
from tests.scenarios.playing import play

from ringfence.detect.rules import RULES, Rule

FILES = sorted(Path(__file__).parent.glob("*.scenario"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_goes_as_it_is_written(path: Path) -> None:
    """Each transcript plays as it is written, and a difference is shown in the transcript itself."""
    play(read_file(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_begins_with_an_explanation(path: Path) -> None:
    """Each transcript begins with a sentence that explains it, for readers when it fails."""
    first = path.read_text("utf-8").partition("\n")[0]
    assert re.fullmatch(r"# [A-Z\"].{20,}", first)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_has_one(rule: Rule) -> None:
    """Each rule has a scenario in which it bans, so that a new rule is shown at work."""
    outcomes = [one for path in FILES for step in read_file(path).steps for one in step.outcomes]
    assert rule.name in {outcome.name for outcome in outcomes if outcome.what is What.BAN}


def test_the_example_of_the_readme_is_one() -> None:
    """The example of the README is a scenario that works."""
    readme = (Path(__file__).parent / "README.md").read_text("utf-8")
    lines = [line[4:] for line in readme.split("\n") if line.startswith("    ") or not line]
    play(read("README", "\n".join(lines)))
