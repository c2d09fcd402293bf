"""The commands as a newcomer sees them, with nothing configured and nothing happened yet."""

from collections.abc import Iterator

import pytest
from tests.support.daemon import Guard

BEGINS = {
    ("fence", "status"): ("admits only friends", "then: ringfence reload"),
    ("feeds", "list"): ("block list", "ringfence feeds add"),
    ("feeds", "refresh"): ("block list", "ringfence feeds add"),
    ("fleet", "status"): ("share their bans", "ringfence setup --crowdsec"),
    ("report",): ("who guessed", "ringfence events --follow"),
    ("friends",): ("phones and trunks", "ringfence check"),
    ("allow", "list"): ("never banned", "ringfence allow add ADDRESS"),
    ("deny", "list"): ("always dropped", "ringfence deny add ADDRESS"),
}
"""The purpose of each command, and the one command to begin with."""
FIXES = {
    ("fleet", "test"): "fix: ringfence setup --crowdsec",
    ("notify", "test"): "then: ringfence reload",
    ("fence", "enforce"): "fix: set mode",
}
"""The end of the error of each command that needs a configuration."""


@pytest.fixture(name="guard", scope="module")
def _guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Yield a daemon with nothing configured; it begins without the alarms of a dry run."""
    with Guard(tmp_path_factory.mktemp("newcomer")) as made:
        yield made


@pytest.mark.parametrize(("command", "words"), BEGINS.items(), ids=" ".join)
def test_an_empty_answer_says_what_it_is_for_and_how_to_begin(
    guard: Guard, command: tuple[str, ...], words: tuple[str, str]
) -> None:
    """The answer names the purpose and the command to begin, in lines for a narrow terminal."""
    text = guard.must(*command)

    assert [word for word in words if word not in " ".join(text.split())] == []


@pytest.mark.parametrize(("command", "words"), FIXES.items(), ids=str)
def test_a_command_without_its_configuration_names_the_fix(
    guard: Guard, command: tuple[str, ...], words: str
) -> None:
    """The error of a command that needs a configuration has the fix."""
    done = guard.command(*command)

    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())


def test_a_fence_that_is_off_counts_nothing(guard: Guard) -> None:
    """Without a fence there is no number of packets that it would drop."""
    assert "would be dropped" not in guard.must("fence", "status")


def test_without_events_a_sentence_is_printed(guard: Guard) -> None:
    """If no attempt was made since the start, `events` shows the command that waits for the next."""
    assert "ringfence events --follow" in guard.must("events", "--only", "attempt")
    assert guard.must("events", "--only", "attempt", "--json") == ""
