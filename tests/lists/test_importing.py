"""Imports of lists into a real database."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ringfence.errors import ListError
from ringfence.lists import handlers
from ringfence.lists.handlers import remove, replace_imported
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


def imported(
    store: Store, origin: str, *texts: str, most: int = MOST, force: bool = False
) -> tuple[int, int]:
    """Import networks into the deny list."""
    networks = prefixes(*texts)
    return replace_imported(
        store.entries, ListKind.DENY, origin, networks, note=origin, now=NOW, most=most, force=force
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
    """Networks of other files count towards the limit, and those by hand do not; adjacent ones are one."""
    store.entries.add([ListEntry(ListKind.DENY, "192.0.2.1", "", NOW)])
    imported(store, "/a", "198.51.100.1", "198.51.100.3", "198.51.100.9", most=3)
    before = listed(store)

    with pytest.raises(
        ListError, match=r"lists would hold 4 networks, of which 3 fit.*\[firewall\] max_bans"
    ):
        imported(store, "/b", "203.0.113.9", most=3)
    assert listed(store) == before

    assert imported(store, "/a", "198.51.100.5", "198.51.100.7", most=3) == (2, 3)
    assert imported(store, "/b", "192.0.2.8", "198.51.100.4", "198.51.100.6", most=3) == (3, 0)


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
    monkeypatch.setattr(handlers, "AT_ONCE", 3)
    texts = [f"192.0.2.{number}" for number in range(0, 20, 2)]

    assert imported(store, "/a", *texts) == (10, 0)
    assert listed(store) == dict.fromkeys(texts, "/a")
    assert remove(store.entries, ListKind.DENY, texts) == 10
    assert listed(store) == {}


WIDE = [f"{number}.0.0.0/8" for number in range(20, 37)]
"""More than a sixteenth of all IPv4 addresses, in networks that a registry may assign."""


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([], WIDE, r"covers a large part of the internet \(IPv4\)"),
        (
            [],
            [f"{number:x}::/16" for number in range(0x2400, 0x2602)],
            r"large part of the internet \(IPv6\)",
        ),
        (["192.0.2.1", "192.0.2.3"], [f"192.0.2.{n}" for n in range(0, 42, 2)], "has 21 networks, and had 2"),
        (["24.0.0.0/13"], ["20.0.0.0/8"], r"covers 32 times more addresses \(IPv4\)"),
    ],
    ids=["IPv4", "IPv6", "networks", "addresses"],
)
def test_a_suspicious_file_changes_nothing(
    store: Store, before: list[str], after: list[str], reason: str
) -> None:
    """A file that covers much of the internet, or has grown more than tenfold, needs ``force``."""
    if before:
        imported(store, "/a", *before)
    there = listed(store)
    with pytest.raises(ListError, match=f"{reason}.*nothing is changed; fix: look at the file; --force"):
        imported(store, "/a", *after)
    assert listed(store) == there

    imported(store, "/a", *after, force=True)
    assert listed(store) != there


def test_growth_up_to_tenfold_is_accepted(store: Store) -> None:
    """A file may grow tenfold at each import, and a first import may have any length."""
    imported(store, "/a", "192.0.2.1")
    assert imported(store, "/a", *(f"192.0.2.{n}" for n in range(1, 21, 2))) == (9, 0)
    assert imported(store, "/b", *(f"198.51.100.{n}" for n in range(0, 200, 2))) == (100, 0)
