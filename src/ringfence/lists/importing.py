"""The storage of entries, and the import of lists.

An import may have a million networks, and the daemon must be able to write bans meanwhile. So it is written
in parts of ten thousand. New networks are added before old ones are removed, so that a network on both lists
is never missing.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol, TypeVar

from ringfence.errors import ListError
from ringfence.lists.prefixes import Gatherer, Prefixes, coded, text_of
from ringfence.model import ListEntry, ListKind

T = TypeVar("T")

AT_ONCE = 10_000
"""Takes some 50 ms, for which the daemon's own writes wait."""

PAUSE = 0.01  # seconds; SQLite does not alternate fairly between two writers


class ListStore(Protocol):
    """The part of the store that the lists use."""

    def entries(self, kind: ListKind, now: float) -> Iterable[ListEntry]:
        """Return the entries of a list that have not ended."""

    def entries_about(
        self, kind: ListKind, values: Sequence[str], now: float, origin: str
    ) -> Iterable[ListEntry]:
        """Return the entries with one of ``values``, and all whose origin is ``origin``."""

    def add_entries(self, entries: Iterable[ListEntry]) -> None:
        """Add entries to their lists, all or none; an existing entry is replaced."""

    def remove_entries(self, kind: ListKind, values: Iterable[str]) -> int:
        """Remove entries from a list by value; return how many were on it."""


def replace_imported(
    store: ListStore, kind: ListKind, origin: str, networks: Prefixes, *, note: str, now: float, most: int
) -> tuple[int, int]:
    """Replace what was imported from ``origin`` by ``networks``; return how many are new and removed.

    Raise ListError before anything is written if the list would then have more than ``most`` networks.

    Entries of other origins stay: an import removes no entry that a person added. Networks that are already
    there from the same file stay too, unless the note differs.
    """
    before, same_note, others = Gatherer(), Gatherer(), Gatherer()
    for entry in store.entries(kind, now):
        with suppress(ValueError):  # names and places, which no file has
            version, code = coded(entry.value)
            (before if entry.origin == origin else others).add_code(version, code)
            if entry.origin == origin and entry.note == note:
                same_note.add_code(version, code)
    known, settled, taken = before.unmerged(), same_note.unmerged(), others.unmerged()
    _check_room(kind, networks, taken, most)
    new = 0
    for part in _parts(
        one for one in networks.coded() if not settled.has_code(*one) and not taken.has_code(*one)
    ):
        store.add_entries([ListEntry(kind, text_of(*one), note, now, None, origin) for one in part])
        new += sum(not known.has_code(*one) for one in part)
        time.sleep(PAUSE)
    gone = remove(store, kind, (text_of(*one) for one in known.coded() if not networks.has_code(*one)))
    return new, gone


def _check_room(kind: ListKind, networks: Prefixes, others: Prefixes, most: int) -> None:
    whole = Gatherer()
    whole.extend(networks)
    whole.extend(others)
    number = len(whole.prefixes())
    if number > most:
        raise ListError(
            f"the {kind} list would hold {number} networks, of which {most} fit: nothing is changed; "
            "fix: raise [firewall] max_bans and reload, or remove another file from the list"
        )


def remove(store: ListStore, kind: ListKind, values: Iterable[str]) -> int:
    """Remove entries from a list, in parts; return how many were on it."""
    number = 0
    for part in _parts(values):
        number += store.remove_entries(kind, part)
        time.sleep(PAUSE)
    return number


def _parts(source: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(source)
    while part := list(islice(rest, AT_ONCE)):
        yield part
