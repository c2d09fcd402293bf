"""One attack on a real Asterisk, read from its log in every form that a log can have."""

from pathlib import Path

import pytest
from tests.support.field import FORMS, attacked, outcome_of, wrong_forms

pytestmark = pytest.mark.asterisk


@pytest.mark.parametrize("release", [pytest.param("16", marks=pytest.mark.long), "22"])
def test_every_form_of_a_log_gives_the_same_bans(tmp_path: Path, release: str) -> None:
    """A console on a terminal, JSON, containers, syslog and the journal give the bans of the file."""
    with attacked(release, tmp_path) as paths:
        assert len(outcome_of(paths["file"]).bans) == 4
        assert paths.keys() == {"file", *FORMS}
        assert wrong_forms(paths) == {}
