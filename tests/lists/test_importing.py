"""Imports of lists into a real database."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ringfence.errors import ListError
from ringfence.lists import importing
from ringfence.lists.importing import remove, replace_imported
from ringfence.lists.prefixes import Prefixes
from ringfence.model import ListEntry, ListKind
from ringfence.store.database import Store

NOW = 1_000.0
MOST = 262_144


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "db", owner=False) as store:
        yield store


def prefixes(*texts: str) -> Prefixes:
    """Return the networks of these texts."""
    return Prefixes.of(ip_network(text) for text in texts)


def imported(store: Store, origin: str, *texts: str, most: int = MOST) -> tuple[int, int]:
    """Import networks into the deny list."""
    return replace_imported(
        store.entries, ListKind.DENY, origin, prefixes(*texts), note=origin, now=NOW, most=most
    )


def listed(store: Store) -> dict[str, str]:
    """Return the values on the deny list with their origins."""
    return {entry.value: entry.origin for entry in store.entries.current(ListKind.DENY, NOW)}


def test_an_import_replaces_what_came_from_the_same_file(store: Store) -> None:
    """An import adds new entries and removes missing ones of its file only; its entries do not expire."""
    assert imported(store, "/a", "192.0.2.1", "198.51.100.0/24") == (2, 0)
    assert imported(store, "/b", "203.0.113.1") == (1, 0)
    assert imported(store, "/a", "192.0.2.1", "2001:db8::/32") == (1, 1)

    assert listed(store) == {"192.0.2.1": "/a", "2001:db8::/32": "/a", "203.0.113.1": "/b"}
    assert {entry.until for entry in store.entries.current(ListKind.DENY, NOW)} == {None}


def test_an_import_that_does_not_fit_changes_nothing(store: Store) -> None:
    """Entries of other files and commands count towards the limit; adjacent networks count as one."""
    store.entries.add([ListEntry(ListKind.DENY, "192.0.2.1", "", NOW)])
    imported(store, "/a", "198.51.100.1", "198.51.100.3", most=3)
    before = listed(store)

    with pytest.raises(ListError, match=r"would hold 4 networks, of which 3 fit.*\[firewall\] max_bans"):
        imported(store, "/b", "203.0.113.9", most=3)
    assert listed(store) == before

    assert imported(store, "/a", "198.51.100.5", "198.51.100.7", most=3) == (2, 2)
    assert imported(store, "/b", "192.0.2.0", "198.51.100.4", "198.51.100.6", most=3) == (3, 0)


def test_present_entries_stay_unchanged(store: Store) -> None:
    """An entry keeps its time of addition; a new note applies to all entries."""
    imported(store, "/a", "192.0.2.1", "198.51.100.0/24")
    networks = prefixes("192.0.2.1", "192.0.2.9")
    replace_imported(store.entries, ListKind.DENY, "/a", networks, note="/a", now=NOW + 5, most=MOST)
    assert {e.value: e.added for e in store.entries.current(ListKind.DENY, NOW)} == {
        "192.0.2.1": NOW,
        "192.0.2.9": NOW + 5,
    }

    assert replace_imported(store.entries, ListKind.DENY, "/a", networks, note="new", now=NOW, most=MOST) == (
        0,
        0,
    )
    assert {entry.note for entry in store.entries.current(ListKind.DENY, NOW)} == {"new"}


def test_an_import_removes_no_other_entry(store: Store) -> None:
    """Entries that a person or another file denied before keep their note and origin."""
    by_hand = ListEntry(ListKind.DENY, "192.0.2.1", "by hand", NOW)
    store.entries.add([by_hand, ListEntry(ListKind.DENY, "country DE", "", NOW)])

    assert imported(store, "/a", "192.0.2.1", "192.0.2.9") == (1, 0)
    assert imported(store, "/a", "192.0.2.9") == (0, 0)

    assert by_hand in list(store.entries.current(ListKind.DENY, NOW))
    assert listed(store) == {"192.0.2.1": "command", "192.0.2.9": "/a", "country DE": "command"}


def test_an_import_is_written_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list longer than one batch is imported completely and removed completely."""
    monkeypatch.setattr(importing, "AT_ONCE", 3)
    texts = [f"192.0.2.{number}" for number in range(0, 20, 2)]

    assert imported(store, "/a", *texts) == (10, 0)
    assert listed(store) == dict.fromkeys(texts, "/a")
    assert remove(store.entries, ListKind.DENY, texts) == 10
    assert listed(store) == {}
