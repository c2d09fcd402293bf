"""Tables with a bound: the oldest entry is discarded first."""

from collections import OrderedDict
from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


def remember(table: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Store ``value`` as the latest entry. Discard the oldest if ``table`` then has more than ``most``."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
