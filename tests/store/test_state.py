"""The saved state: the switch, facts, log positions, networks of names, and times of reports."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs

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


# -- the last known networks of names


NAMES = {"sip.carrier.example": {ip_network("192.0.2.1"): 0.0, ip_network("2001:db8::1"): 3_600.5}}


def test_names_are_read_as_they_were_recorded(store: Store) -> None:
    """The latest networks of all names are returned with their ages; at first there are none."""
    assert store.names.load() == {}
    for names in ({"office.example": {ip_network("192.0.2.9"): 0.0}}, NAMES):
        store.names.save(names)

    assert store.names.load() == NAMES


def test_names_without_ages_are_new(store: Store) -> None:
    """The database of an older daemon has a list of networks for each name."""
    store.state.set_fact("names", '{"office.example": ["192.0.2.9/32"]}')
    assert store.names.load() == {"office.example": {ip_network("192.0.2.9"): 0.0}}


@pytest.mark.parametrize(
    "text", ["nonsense", "[]", '{"a": 1}', '{"a": ["nowhere"]}', '{"a": {"192.0.2.1": "old"}}']
)
def test_names_edited_by_hand_are_reported(store: Store, text: str) -> None:
    """Invalid text counts as no names, and the error is shown."""
    store.state.set_fact("names", text)
    with capture_logs():
        assert store.names.load() == {}
    assert "the recorded addresses of names are invalid" in store.best_effort.error
