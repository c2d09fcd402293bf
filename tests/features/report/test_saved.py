"""The time of the last weekly report of each channel: a restart neither repeats nor loses a report."""

import pytest
from structlog.testing import capture_logs

from ringfence.features.report.guard import SavedReports
from ringfence.store.database import Store


def saved_reports(store: Store) -> SavedReports:
    """Return the records in a store."""
    return SavedReports(store.state, store.best_effort)


def test_times_are_read_as_they_were_recorded(store: Store) -> None:
    """The latest times of all channels are returned; at first, and after the last channel, there are none."""
    assert saved_reports(store).load() == {}
    for times in ({"mail": 1.5}, {"mail": 2.5, "oncall": 3.0}):
        saved_reports(store).save(times)
        assert saved_reports(store).load() == times

    saved_reports(store).save({})
    assert store.state.fact("reports") is None


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"a": "soon"}', '{"a": []}', '{"a": -1e15}'])
def test_times_edited_by_hand_are_reported(store: Store, text: str) -> None:
    """Invalid text counts as no times, and the error is shown."""
    store.state.set_fact("reports", text)
    with capture_logs():
        assert saved_reports(store).load() == {}
    assert "the recorded times of reports are invalid" in store.best_effort.error
