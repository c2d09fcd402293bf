"""The history as scripts read it."""

from pathlib import Path

from ringfence.features.history.guard import read_history
from ringfence.features.history.table import DAY, HOUR, Slot, Timeline
from ringfence.store.database import Store

NOON = 1_795_262_400.0  # 2026-11-21 12:00 UTC


def test_the_history_as_json(tmp_path: Path) -> None:
    """Counts are by kind and proof or by rule, for the whole time and for each slot."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        timeline = Timeline(store.connection)
        timeline.add(NOON - 30, 60.0, {"attempts.guess.total": 2, "bans.guess": 1, "unbans": 3})
        timeline.add(NOON - 2 * DAY, 60.0, {"unbans": 7})
        new = Slot(
            int(NOON) - 5, 10.0, {"attempts.guess.total": 4, "attempts.guess.proven": 3, "unconfirmed": 5}
        )
        found = read_history(timeline, HOUR, NOON + 1, new)

    counts = {
        "attempts": {"guess": {"total": 6, "proven": 3}},
        "bans": {"guess": 1},
        "unbans": 3,
        "unconfirmed": 5,
    }
    assert found == {
        "since": "2026-11-21T11:00:00Z",
        "until": "2026-11-21T12:00:01Z",
        "step": 60,
        "watched": 70,
        "totals": counts,
        "slots": [{"start": "2026-11-21T11:59:00Z", "watched": 70, **counts}],
    }


def test_what_is_not_recorded_may_be_the_only_thing(tmp_path: Path) -> None:
    """The present minute is a slot before it is recorded, in slots of any length."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        found = read_history(
            Timeline(store.connection), 2 * DAY, NOON + 90, Slot(int(NOON) + 70, 20.0, {"unbans": 1})
        )

    assert [(slot["start"], slot["unbans"]) for slot in found["slots"]] == [("2026-11-21T12:00:00Z", 1)]
    assert found["step"] == HOUR
