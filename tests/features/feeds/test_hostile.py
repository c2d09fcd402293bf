"""Hostile feeds, taken over by the parts of the daemon."""

from pathlib import Path

from tests.support.hostile_feeds import play, play_decisions


def test_no_hostile_feed_cuts_anybody_off(tmp_path: Path) -> None:
    """Whatever lists contain, no phone, former one, trunk, allowed or own address, or login is dropped."""
    played = play(tmp_path, 150)

    assert played.dropped == []
    assert played.taken > 20


def test_no_hostile_decision_cuts_anybody_off(tmp_path: Path) -> None:
    """Whatever other hosts ban, no phone, former one, trunk, allowed or own address, or login is dropped."""
    played = play_decisions(tmp_path, 300)

    assert played.dropped == []
    assert played.taken > 100
