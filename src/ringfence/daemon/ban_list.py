"""The list of the bans in force, as JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from operator import itemgetter

from ringfence.firewall.contract import Element
from ringfence.ledger import Ledger, Record, key_of
from ringfence.model import UNRECORDED, Scope, ban_json, format_network, rfc3339

_ROWS = 500  # the number of bans in one part of the list, some 120 kB


def bans_report(elements: Iterable[Element], ledger: Ledger, now: float) -> Iterator[bytes]:
    """Return the kernel's bans as a JSON list, one object for each ban, the newest first.

    ``timeout`` in an object is the time left in the kernel (seconds). If ``ledger`` has no record of a ban,
    the values that only a record has are null. If another program added the ban without an end, ``expires``
    and ``timeout`` are null.

    All elements are read at once. The text of the list comes in parts, because 100,000 objects would take
    150 MB.
    """
    found = []
    for element in elements:
        record = ledger.get(key_of(element.network, element.scope))
        since = -record.since if record else 0.0
        # The network is kept as text, which takes a tenth of the memory of the network object.
        found.append(
            (
                since,
                format_network(element.network),
                element.scope,
                element.timeout,
                element.packets,
                element.bytes,
                record,
            )
        )
    found.sort(key=itemgetter(0))
    return _bans_in_parts(found, now)


_Row = tuple[float, str, Scope, float, int, int, Record | None]


def _bans_in_parts(found: Sequence[_Row], now: float) -> Iterator[bytes]:
    between = "["
    for start in range(0, len(found), _ROWS):
        rows = json.dumps([_ban_row(row, now) for row in found[start : start + _ROWS]])
        yield (between + rows[1:-1]).encode()
        between = ", "
    yield b"]" if found else b"[]"


def _ban_row(row: _Row, now: float) -> dict[str, object]:
    _, address, scope, timeout, packets, octets, record = row
    # A ban may be longer than the longest timeout of the kernel. Then the record has the later, true end.
    expires = max(now + timeout, record.expires if record else 0.0)
    return {
        "address": address,
        "scope": scope,
        **(ban_json(record) if record else UNRECORDED),
        "expires": rfc3339(expires) if isfinite(expires) else None,
        "timeout": round(timeout) if isfinite(timeout) else None,
        "packets": packets,
        "bytes": octets,
    }
