"""The saved state: the switch, facts and log positions."""

from pathlib import Path

from ringfence.store.database import Store


def test_facts_are_kept_by_name(store: Store, path: Path) -> None:
    """Each name keeps its last value, also after a restart, until it is deleted."""
    assert store.state.fact("trial") is None
    for value in ("1", "2"):
        store.state.set_fact("trial", value)
    with Store.open(path, owner=False) as other:
        assert other.state.fact("trial") == "2"
    store.state.set_fact("trial", None)
    assert store.state.fact("trial") is None


def test_the_switch_outlasts_a_restart(store: Store, path: Path) -> None:
    """The switch is on at first, and off stays off after a restart until it is on again."""
    assert store.state.switched_off() is False
    store.state.set_switched_off(True)
    store.close()
    with Store.open(path, owner=True) as again:
        assert again.state.switched_off() is True
        again.state.set_switched_off(False)
        assert again.state.switched_off() is False


def test_log_positions_are_kept_by_source(store: Store, path: Path) -> None:
    """Each source has one position, the last one reported, also after a restart."""
    store.state.set_positions({"pbx/log /a": "1", "pbx/log /b": "1"})
    store.state.set_positions({"pbx/log /a": "2"})
    store.close()

    with Store.open(path, owner=True) as again:
        assert again.state.positions() == {"pbx/log /a": "2", "pbx/log /b": "1"}
