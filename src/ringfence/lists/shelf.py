"""Where commands' entries and imported lists are kept, and how an import gets there.

An import may be a million networks, and the daemon must be able to write bans meanwhile: it goes in by the
ten thousand, the new ones first and then what is gone, so that at no moment anybody is missing who was on the
old list and the new one.
"""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from ringfence.lists.prefixes import Prefixes, text_of
from ringfence.model import ListEntry, Side

AT_ONCE = 10_000
"""Some 50 ms: the daemon's own writing waits for it."""

PAUSE = 0.01  # seconds; between two writers SQLite is not fair


class Shelf(Protocol):
    """What the lists need of the store."""

    def entries(self, side: Side, now: float) -> Iterable[ListEntry]:
        """Give the entries of a list that have not ended."""

    def add_entries(self, entries: Iterable[ListEntry]) -> None:
        """Put entries on their lists, all or none; one that is there already is replaced."""

    def remove_entries(self, side: Side, whats: Iterable[str]) -> int:
        """Take entries off a list, by what they say; give how many were on it."""


def replace_imported(
    shelf: Shelf, side: Side, origin: str, networks: Prefixes, *, note: str, now: float
) -> tuple[int, int]:
    """Have exactly ``networks`` on the list as what came from ``origin``; give how many are new and gone.

    What is on the list from elsewhere stays what it is: an import takes no entry of a person's away.
    """
    others: set[str] = set()
    before: set[str] = set()
    for entry in shelf.entries(side, now):
        (before if entry.origin == origin else others).add(entry.what)
    wanted = (text_of(version, code) for version, code in networks.coded())
    new, kept = 0, set()
    for part in _parts(what for what in wanted if what not in others):
        shelf.add_entries([ListEntry(side, what, note, now, None, origin) for what in part])
        known = before.intersection(part)
        kept |= known
        new += len(part) - len(known)
        time.sleep(PAUSE)
    gone = before - kept
    remove(shelf, side, gone)
    return new, len(gone)


def remove(shelf: Shelf, side: Side, whats: Iterable[str]) -> int:
    """Take entries off a list, part by part; give how many were on it."""
    number = 0
    for part in _parts(whats):
        number += shelf.remove_entries(side, part)
        time.sleep(PAUSE)
    return number


def _parts(whats: Iterable[str]) -> Iterator[list[str]]:
    source = iter(whats)
    while part := list(islice(source, AT_ONCE)):
        yield part
