"""Programs that attack as they come: what passes the cable is read, and those that guess are banned."""

from pathlib import Path

import pytest
from tests.judge.oracle import GUESSES
from tests.live.play import game
from tests.live.programs import attacks
from tests.support.scanners import NEIGHBOURS

NAMES = ("svcrack", "nmap sip-brute", "sipp that registers by TCP")


@pytest.mark.asterisk
def test_programs_as_they_come_are_banned(tmp_path: Path) -> None:
    """Scanners and test tools that guess are banned, and each guess that Asterisk refused counts.

    The ban may drop the answer to the guess that caused it.
    """
    with game("22", tmp_path, 1, NEIGHBOURS) as played:
        found, wrong = attacks(played, "22", tmp_path, NAMES)
    assert wrong == [], [*map(str, found)]
    assert all(one.guesses >= GUESSES - 1 for one in found), [*map(str, found)]
