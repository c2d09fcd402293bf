"""The table of list entries."""

from pathlib import Path

from attrs import evolve

from ringfence.store.database import Store
from ringfence.values.entry import ListEntry, ListKind


def test_entries_keep_their_list_and_expire(store: Store, path: Path) -> None:
    """Entries keep their list, also after a restart; the same entry replaces; expired ones end."""
    office = ListEntry(ListKind.ALLOW, "203.0.113.0/24", "office", 1_000.0)
    guest = ListEntry(ListKind.ALLOW, "sip.carrier.example", "for a day", 1_001.0, until=87_401.0)
    denied = ListEntry(ListKind.DENY, "203.0.113.0/24", "", 1_002.0, forced=True)
    store.entries.add([office, guest, denied, evolve(office, note="the old one")])
    store.entries.add([office])

    assert list(store.entries.current(ListKind.ALLOW, 2_000.0)) == [office, guest]
    assert store.entries.remove(ListKind.ALLOW, [guest.value, "192.0.2.1"]) == [guest.value]
    store.entries.add([guest])
    assert list(store.entries.current(ListKind.ALLOW, 87_401.0)) == [office]
    store.purge(90_000.0)
    assert list(store.entries.current(ListKind.ALLOW, 2_000.0)) == [office]
    with Store.open(path, owner=False) as other:
        assert list(other.entries.current(ListKind.DENY, 2_000.0)) == [denied]


def test_entries_are_listed_in_the_order_of_their_addition(store: Store) -> None:
    """The earliest added comes first, whatever its value."""
    added = {"192.0.2.2": 1_002.0, "203.0.113.0/24": 1_000.0, "192.0.2.1": 1_001.0}
    store.entries.add(ListEntry(ListKind.DENY, value, "", at) for value, at in added.items())

    listed = [entry.value for entry in store.entries.in_order(ListKind.DENY, 2_000.0)]
    assert listed == ["203.0.113.0/24", "192.0.2.1", "192.0.2.2"]
