"""Every transcript of this folder: what it says must follow follows, and nothing else does."""

from pathlib import Path

import pytest
from tests.scenarios.language import read_file
from tests.scenarios.playing import play

FILES = sorted(Path(__file__).parent.glob("*.scenario"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_goes_as_it_is_written(path: Path) -> None:
    """A difference is shown in the transcript itself."""
    play(read_file(path))
