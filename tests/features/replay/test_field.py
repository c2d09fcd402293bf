"""Logs as they are in the field: each contains the right events, attempts and bans, and no tampering."""

import pytest
from tests.support.field import CASES, FOLDER, outcome_of


@pytest.mark.parametrize("name", CASES)
def test_a_log_of_the_field_gives_what_it_contains(name: str) -> None:
    """Foreign lines, other languages, JSON and the ends of a terminal change nothing."""
    assert outcome_of(FOLDER / f"{name}.log") == CASES[name]
