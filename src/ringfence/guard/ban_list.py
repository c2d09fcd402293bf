"""The list of the bans in force, as JSON.

A list of 262,000 bans as Python objects would take 60 MB, and as text another 60 MB. So the values that only
the kernel has are kept in arrays of numbers, some 15 MB, and the text is made in parts. Nothing here sorts or
encodes many bans at once: meanwhile no other thread could run.
"""

import heapq
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import isfinite
from socket import inet_ntoa

from ringfence.firewall.contract import Element
from ringfence.ledger import Ledger, Record, key_of, network_of, parts_of, scope_of
from ringfence.values.ban import UNRECORDED, ban_json
from ringfence.values.network import BITS, VERSIONS, format_network
from ringfence.values.text import rfc3339

_ROWS = 500  # the number of bans in one part of the list, some 120 kB
_SLICE = 5_000  # the number of bans that are sorted at once, which takes a millisecond
_KEY = 18  # bytes of a key of the ledger


def bans_report(
    elements: Iterable[Element], ledger: Ledger, now: float, most: int | None = None
) -> Iterator[bytes]:
    """Yield the kernel's bans as the parts of a JSON list, one object for each ban, the newest first.

    ``timeout`` in an object is the time left in the kernel (seconds). If ``ledger`` has no record of a ban,
    the values that only a record has are null. If another program added the ban without an end, ``expires``
    and ``timeout`` are null. If there are more than ``most`` bans, only those that end last are listed.

    ``now`` is in seconds since the epoch. All elements are read for the first part.
    """
    found = _FoundBans(elements, ledger)
    order = found.newest_first(most, now)
    between = "["
    while rows := [found.row(at, now) for at in islice(order, _ROWS)]:
        yield (between + json.dumps(rows)[1:-1]).encode()
        between = ", "
    yield b"[]" if between == "[" else b"]"


class _FoundBans:
    """The bans in the kernel, numbered from 0 in the order in which they were read."""

    def __init__(self, elements: Iterable[Element], ledger: Ledger) -> None:
        self._keys = bytearray()
        self._records: list[Record | None] = []
        self._order, self._timeouts = array("d"), array("d")
        self._packets, self._bytes = array("Q"), array("Q")
        for element in elements:
            key = key_of(element.network, element.scope)
            record = ledger.get(key)
            self._keys += key.to_bytes(_KEY, "big")
            self._records.append(record)
            self._order.append(-record.since if record else 0.0)  # ascending: the newest ban first
            self._timeouts.append(element.timeout)
            self._packets.append(element.packets)
            self._bytes.append(element.bytes)

    def newest_first(self, most: int | None, now: float) -> Iterator[int]:
        """Yield the numbers of the bans, the newest ban first; at most ``most``: those that end last.

        ``now`` is in seconds since the epoch.
        """
        numbers: Iterable[int] = range(len(self._records))
        if most is not None and most < len(self._records):
            numbers = islice(_sorted(numbers, [-self._end(at, now) for at in numbers]), most)
        return _sorted(numbers, self._order)

    def _end(self, at: int, now: float) -> float:
        """Return the end of the ban with the number ``at``; it and ``now`` are in seconds since the epoch."""
        record = self._records[at]
        # A ban may be longer than the longest timeout of the kernel. Then the record has the later, true end.
        return max(now + self._timeouts[at], record.expires if record else 0.0)

    def row(self, at: int, now: float) -> dict[str, object]:
        """Return the JSON object of the ban with the number ``at``; ``now`` is in seconds since the epoch."""
        key = int.from_bytes(self._keys[at * _KEY : (at + 1) * _KEY], "big")
        record, timeout, expires = self._records[at], self._timeouts[at], self._end(at, now)
        return {
            "address": _text_of(key),
            "scope": scope_of(key),
            **(ban_json(record) if record else UNRECORDED),
            "expires": rfc3339(expires) if isfinite(expires) else None,
            "timeout": round(timeout) if isfinite(timeout) else None,
            "packets": self._packets[at],
            "bytes": self._bytes[at],
        }


def _text_of(key: int) -> str:
    """Return the network of a ban's ``key`` (network and scope as a number) as text.

    For IPv4 this is five times as fast as ``ipaddress``.
    """
    version, address, length = parts_of(key)
    if version != VERSIONS[0]:
        return format_network(network_of(key)[0])
    text = inet_ntoa(address.to_bytes(4, "big"))
    return text if length == BITS[version] else f"{text}/{length}"


def _sorted(numbers: Iterable[int], values: Sequence[float]) -> Iterator[int]:
    """Return ``numbers`` by ascending ``values[number]``: sorted in slices, which are merged as needed."""
    numbers = iter(numbers)
    slices: list[array[int]] = []
    while some := sorted(islice(numbers, _SLICE), key=values.__getitem__):
        slices.append(array("I", some))
    return heapq.merge(*slices, key=values.__getitem__)
