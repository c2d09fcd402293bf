"""The storage of entries, and the import of lists.

An import may have a million networks, and the daemon must be able to write bans meanwhile. So an import is
written in parts of ten thousand. New networks are added before old ones are removed. So a network that is in
both the old and the new version of a file is never missing.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from ringfence.errors import ListError
from ringfence.lists.entries import COMMAND, CONFIGURATION
from ringfence.lists.prefixes import Gatherer, Prefixes, coded, text_of
from ringfence.model import ListEntry, ListKind
from ringfence.networks import VERSIONS
from ringfence.store.entries import EntryTable

T = TypeVar("T")

AT_ONCE = 10_000
"""The number of entries that are written at once. The daemon's writes wait for this, some 50 ms."""

PAUSE = 0.01  # seconds between parts, for the daemon's writes: SQLite has no queue of writers


MOST_COVERED: Mapping[int, int] = {4: 1 << (32 - 4), 6: 1 << (128 - 7)}
"""The maximum number of addresses in an imported file without ``force``, by IP version.

This is a sixteenth of the IPv4 addresses, and of the IPv6 addresses that registries assign (2000::/3). The
lists of attackers that we know are far shorter: Spamhaus DROP has about 0.4 % of the IPv4 addresses.
"""

MOST_GROWTH = 10
"""A file may grow to at most so many times its former size without ``force``."""

_UNREMARKABLE: Mapping[int, int] = {4: 1 << (32 - 12), 6: 1 << (128 - 28)}
"""Addresses up to which any growth is accepted: a single new network may multiply those of a short list."""


def replace_imported(
    entries: EntryTable,
    kind: ListKind,
    origin: str,
    networks: Prefixes,
    *,
    note: str,
    now: float,
    most: int,
    force: bool = False,
) -> tuple[int, int]:
    """Replace the networks imported from ``origin``; return how many are new, and how many were removed.

    Raise ListError before anything is written if the imported lists would then have more than ``most``
    networks. Raise it too, unless ``force``, if the file covers a large part of the internet, or if it has
    grown too much since the last import: whoever publishes the file could have anybody denied.

    Entries of other origins stay: an import removes no entry that a person added. A network that has such an
    entry is not added. Networks that the file already had are not written again, unless their note differs
    from ``note``.
    """
    before, same_note, others, imported = Gatherer(), Gatherer(), Gatherer(), Gatherer()
    for entry in entries.current(kind, now):
        # Host names and regions are skipped (``coded`` raises ValueError): no imported file has them.
        with suppress(ValueError):
            version, code = coded(entry.value)
            (before if entry.origin == origin else others).add_code(version, code)
            if entry.origin not in {origin, COMMAND, CONFIGURATION}:
                imported.add_code(version, code)
            if entry.origin == origin and entry.note == note:
                same_note.add_code(version, code)
    known, settled, taken = before.unmerged(), same_note.unmerged(), others.unmerged()
    if not force:
        _check_size(networks, before.prefixes(), len(known))
    _check_room(networks, imported.prefixes(), most)
    new = 0
    for part in _parts(
        one for one in networks.coded() if not settled.has_code(*one) and not taken.has_code(*one)
    ):
        entries.add([ListEntry(kind, text_of(*one), note, now, None, origin) for one in part])
        new += sum(not known.has_code(*one) for one in part)
        time.sleep(PAUSE)
    gone = remove(entries, kind, (text_of(*one) for one in known.coded() if not networks.has_code(*one)))
    return new, gone


def _check_size(networks: Prefixes, before: Prefixes, number_before: int) -> None:
    """Raise ListError if a file covers too many addresses, or has grown too much.

    ``before`` are the networks that were imported from it before, and ``number_before`` is their number.
    """
    rest = "nothing is changed; fix: look at the file; --force imports it anyway"
    for version in VERSIONS:
        covered, old = networks.addresses(version), before.addresses(version)
        if covered > MOST_COVERED[version]:
            raise ListError(f"the file covers a large part of the internet (IPv{version}): {rest}")
        if covered > _UNREMARKABLE[version] and 0 < old * MOST_GROWTH < covered:
            raise ListError(f"the file covers {covered // old} times more addresses (IPv{version}): {rest}")
    if 0 < number_before * MOST_GROWTH < len(networks):
        raise ListError(f"the file has {len(networks)} networks, and had {number_before} before: {rest}")


def _check_room(networks: Prefixes, others: Prefixes, most: int) -> None:
    whole = Gatherer()
    whole.extend(networks)
    whole.extend(others)
    number = len(whole.prefixes())
    if number > most:
        raise ListError(
            f"the imported lists would hold {number} networks, of which {most} fit: nothing is changed; "
            "fix: raise [firewall] max_bans and reload, or remove another imported list"
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
