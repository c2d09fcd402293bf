"""Hidden guesses by plain TCP count, wherever their answers stand in the segments."""

from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.sip_raw import SEGMENT_GUESSES, answered_within_segments

pytestmark = pytest.mark.asterisk


@pytest.mark.parametrize("backend", ["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def test_answers_within_segments_count(open22: Lab, tmp_path: Path, backend: str) -> None:
    """The window is closed and filled with answers to BYE; then the guesses follow, all at once.

    The rule of unexplained requests is off, because it closes SIP by TCP without a look at the answers.
    """
    source = "198.19.92.1" if backend == "ipset" else "198.19.92.2"
    rules = {"unexplained": {"enabled": False}}
    with guarded(open22, tmp_path, firewall={"backend": backend}, rules=rules) as guard:
        answered = answered_within_segments(open22, source)
        until(lambda: source in guard.banned(), "the ban")
        assert answered < SEGMENT_GUESSES  # how many depends on the machine's speed
        assert guard.scopes()[source] == "sip"
