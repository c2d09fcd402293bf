"""Imports into a real database."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ringfence.lists import shelf
from ringfence.lists.prefixes import Prefixes
from ringfence.lists.shelf import remove, replace_imported
from ringfence.model import ListEntry, Side
from ringfence.store import Store

NOW = 1_000.0


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "db", owner=False) as store:
        yield store


def prefixes(*texts: str) -> Prefixes:
    """Give networks."""
    return Prefixes.of(ip_network(text) for text in texts)


def imported(store: Store, origin: str, *texts: str) -> tuple[int, int]:
    """Import networks."""
    return replace_imported(store, Side.DENY, origin, prefixes(*texts), note=origin, now=NOW)


def listed(store: Store) -> dict[str, str]:
    """Give what is on the list, and where from."""
    return {entry.what: entry.origin for entry in store.entries(Side.DENY, NOW)}


def test_an_import_replaces_what_came_from_the_same_file(store: Store) -> None:
    """What is new comes, what is gone goes, what another file said stays; nothing ends by itself."""
    assert imported(store, "/a", "192.0.2.1", "198.51.100.0/24") == (2, 0)
    assert imported(store, "/b", "203.0.113.1") == (1, 0)
    assert imported(store, "/a", "192.0.2.1", "2001:db8::/32") == (1, 1)

    assert listed(store) == {"192.0.2.1": "/a", "2001:db8::/32": "/a", "203.0.113.1": "/b"}
    assert {entry.until for entry in store.entries(Side.DENY, NOW)} == {None}


def test_what_was_there_stays_as_it_was(store: Store) -> None:
    """An entry keeps when it was added; a new note is written to all."""
    imported(store, "/a", "192.0.2.1", "198.51.100.0/24")
    networks = prefixes("192.0.2.1", "192.0.2.9")
    replace_imported(store, Side.DENY, "/a", networks, note="/a", now=NOW + 5)
    assert {e.what: e.added for e in store.entries(Side.DENY, NOW)} == {
        "192.0.2.1": NOW,
        "192.0.2.9": NOW + 5,
    }

    assert replace_imported(store, Side.DENY, "/a", networks, note="new", now=NOW) == (0, 0)
    assert {entry.note for entry in store.entries(Side.DENY, NOW)} == {"new"}


def test_an_import_takes_nothing_of_others(store: Store) -> None:
    """What a person or another file has denied already keeps its note and its origin."""
    by_hand = ListEntry(Side.DENY, "192.0.2.1", "by hand", NOW)
    store.add_entries([by_hand, ListEntry(Side.DENY, "country DE", "", NOW)])

    assert imported(store, "/a", "192.0.2.1", "192.0.2.9") == (1, 0)
    assert imported(store, "/a", "192.0.2.9") == (0, 0)

    assert by_hand in list(store.entries(Side.DENY, NOW))
    assert listed(store) == {"192.0.2.1": "command", "192.0.2.9": "/a", "country DE": "command"}


def test_an_import_goes_in_by_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list longer than a part is whole in the end, and goes whole."""
    monkeypatch.setattr(shelf, "AT_ONCE", 3)
    texts = [f"192.0.2.{number}" for number in range(0, 20, 2)]

    assert imported(store, "/a", *texts) == (10, 0)
    assert listed(store) == dict.fromkeys(texts, "/a")
    assert remove(store, Side.DENY, texts) == 10
    assert listed(store) == {}
