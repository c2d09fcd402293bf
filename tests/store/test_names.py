"""The last known networks of names."""

from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from ringfence.store.database import Store

NAMES = {"sip.carrier.example": frozenset({ip_network("192.0.2.1"), ip_network("2001:db8::1")})}


def test_names_are_read_as_they_were_recorded(store: Store) -> None:
    """The latest networks of all names are returned; at first there are none."""
    assert store.names.load() == {}
    for names in ({"office.example": frozenset({ip_network("192.0.2.9")})}, NAMES):
        store.names.save(names)

    assert store.names.load() == NAMES


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"a": 1}', '{"a": ["nowhere"]}'])
def test_names_edited_by_hand_are_reported(store: Store, text: str) -> None:
    """Invalid text counts as no names, and the error is shown."""
    store.state.set_fact("names", text)
    with capture_logs():
        assert store.names.load() == {}
    assert "the recorded addresses of names are invalid" in store.best_effort.error
