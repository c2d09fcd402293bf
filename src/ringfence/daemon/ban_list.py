"""The list of bans, as JSON.

The keys are an interface for scripts: keys may be added, but not changed or removed.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import isfinite
from operator import itemgetter

from ringfence.firewall.contract import Element
from ringfence.ledger import Ledger, Record, key_of
from ringfence.model import Scope, format_network, printable, rfc3339

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
        rows = [_ban_row(row, now) for row in found[start : start + _ROWS]]
        yield (between + ", ".join(rows)).encode()
        between = ", "
    yield b"]" if found else b"[]"


def _ban_row(row: _Row, now: float) -> str:
    """Encode one ban as JSON by hand, which is faster for 100,000 bans."""
    _, address, scope, timeout, packets, octets, record = row
    # A ban may be longer than the longest timeout of the kernel. Then the record has the later, true end.
    expires = max(now + timeout, record.expires if record else 0.0)
    since = f'"{rfc3339(record.since)}"' if record else "null"
    until = f'"{rfc3339(expires)}"' if isfinite(expires) else "null"
    left = round(timeout) if isfinite(timeout) else "null"
    rule, reason = (_quoted(record.rule), _quoted(record.reason)) if record else ("null", "null")
    attempts, offence = (record.attempts, record.offence) if record else ("null", "null")
    proven = record.proven if record else "null"
    accounts, account = (record.accounts, _encoded(record.account)) if record else ("null", "null")
    return (
        f'{{"address": "{address}", "since": {since}, "expires": {until}, "rule": {rule}, '
        f'"attempts": {attempts}, "packets": {packets}, "bytes": {octets}, "timeout": {left}, '
        f'"reason": {reason}, "scope": "{scope}", "offence": {offence}, "proven": {proven}, '
        f'"account": {account}, "accounts": {accounts}}}'
    )


@lru_cache(maxsize=64)
def _quoted(text: str) -> str:
    """Encode a text as JSON. The result is cached, because most bans have one of a few texts."""
    return _encoded(text)


def _encoded(text: str) -> str:
    return json.dumps(printable(text))
