"""Where commands' entries and imported lists are kept, and how an import gets there.

An import may be a million networks, and the daemon must be able to write bans meanwhile: it goes in by the
ten thousand, the new ones first and then what is gone, so that at no moment anybody is missing who was on the
old list and the new one.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol, TypeVar

from ringfence.lists.prefixes import Gatherer, Prefixes, coded, text_of
from ringfence.model import ListEntry, Side

T = TypeVar("T")

AT_ONCE = 10_000
"""Some 50 ms: the daemon's own writing waits for it."""

PAUSE = 0.01  # seconds; between two writers SQLite is not fair


class Shelf(Protocol):
    """What the lists need of the store."""

    def entries(self, side: Side, now: float) -> Iterable[ListEntry]:
        """Give the entries of a list that have not ended."""

    def entries_about(self, side: Side, whats: Sequence[str], now: float, origin: str) -> Iterable[ListEntry]:
        """Give those of them that say one of ``whats``, and all that came from ``origin``."""

    def add_entries(self, entries: Iterable[ListEntry]) -> None:
        """Put entries on their lists, all or none; one that is there already is replaced."""

    def remove_entries(self, side: Side, whats: Iterable[str]) -> int:
        """Take entries off a list, by what they say; give how many were on it."""


def replace_imported(
    shelf: Shelf, side: Side, origin: str, networks: Prefixes, *, note: str, now: float
) -> tuple[int, int]:
    """Have exactly ``networks`` on the list as what came from ``origin``; give how many are new and gone.

    What is on the list from elsewhere stays what it is: an import takes no entry of a person's away. What is
    there already from the same file stays as it is too, but for another note.
    """
    before, same_note, others = Gatherer(), Gatherer(), Gatherer()
    for entry in shelf.entries(side, now):
        with suppress(ValueError):  # names and places, which no file has
            version, code = coded(entry.what)
            (before if entry.origin == origin else others).take(version, code)
            if entry.origin == origin and entry.note == note:
                same_note.take(version, code)
    known, settled, taken = before.exactly(), same_note.exactly(), others.exactly()
    new = 0
    for part in _parts(one for one in networks.coded() if not settled.has(*one) and not taken.has(*one)):
        shelf.add_entries([ListEntry(side, text_of(*one), note, now, None, origin) for one in part])
        new += sum(not known.has(*one) for one in part)
        time.sleep(PAUSE)
    gone = remove(shelf, side, (text_of(*one) for one in known.coded() if not networks.has(*one)))
    return new, gone


def remove(shelf: Shelf, side: Side, whats: Iterable[str]) -> int:
    """Take entries off a list, part by part; give how many were on it."""
    number = 0
    for part in _parts(whats):
        number += shelf.remove_entries(side, part)
        time.sleep(PAUSE)
    return number


def _parts(source: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(source)
    while part := list(islice(rest, AT_ONCE)):
        yield part
