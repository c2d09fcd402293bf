"""The storage of entries, and the import of lists.

An import may have a million networks, and the daemon must be able to write bans meanwhile. So an import is
written in parts of ten thousand. New networks are added before old ones are removed. So a network that is in
both the old and the new version of a file is never missing.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from ringfence.errors import ListError
from ringfence.lists.prefixes import Gatherer, Prefixes, coded, text_of
from ringfence.model import ListEntry, ListKind
from ringfence.store.entries import EntryTable

T = TypeVar("T")

AT_ONCE = 10_000
"""The number of entries that are written at once. The daemon's writes wait for this, some 50 ms."""

PAUSE = 0.01  # seconds between parts, for the daemon's writes: SQLite has no queue of writers


def replace_imported(
    entries: EntryTable, kind: ListKind, origin: str, networks: Prefixes, *, note: str, now: float, most: int
) -> tuple[int, int]:
    """Replace the networks imported from ``origin``; return how many are new, and how many were removed.

    Raise ListError before anything is written if the list would then have more than ``most`` networks.

    Entries of other origins stay: an import removes no entry that a person added. A network that has such an
    entry is not added. Networks that the file already had are not written again, unless their note differs
    from ``note``.
    """
    before, same_note, others = Gatherer(), Gatherer(), Gatherer()
    for entry in entries.current(kind, now):
        # Host names and regions are skipped (``coded`` raises ValueError): no imported file has them.
        with suppress(ValueError):
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
        entries.add([ListEntry(kind, text_of(*one), note, now, None, origin) for one in part])
        new += sum(not known.has_code(*one) for one in part)
        time.sleep(PAUSE)
    gone = remove(entries, kind, (text_of(*one) for one in known.coded() if not networks.has_code(*one)))
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


def remove(entries: EntryTable, kind: ListKind, values: Iterable[str]) -> int:
    """Remove entries from a list, in parts; return how many were removed."""
    number = 0
    for part in _parts(values):
        number += entries.remove(kind, part)
        time.sleep(PAUSE)
    return number


def _parts(source: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(source)
    while part := list(islice(rest, AT_ONCE)):
        yield part
