"""The line of each key in a TOML file, which tomllib does not report."""

import tomllib
from collections.abc import Iterator
from typing import Any

from ringfence.config.keys import KeyPath

_ENDS = ("]", '"""', "'''")
"""A statement of several lines (an array or a string) ends with a line that contains one of these texts.

So only its first line and such lines are tried as its end.
"""


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, on which each key of a valid TOML document begins."""
    lines: dict[KeyPath, int] = {}
    entries: dict[KeyPath, int] = {}  # how many entries each repeated table has so far
    table: KeyPath = ()
    for number, statement in _statements(text):
        parsed = tomllib.loads(statement)
        if statement.lstrip(" \t").startswith("["):
            table = _table_of(parsed, entries)
        else:
            lines |= dict.fromkeys(_keys_of(parsed, table), number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each statement with the number of its first line.

    Each statement alone is valid TOML: a key with its value, the head of a table, a comment, or an empty
    line.
    """
    begun = 0
    rows = text.replace("\r\n", "\n").split("\n")
    for number, row in enumerate(rows):
        if number > begun and not any(end in row for end in _ENDS):
            continue
        statement = "\n".join(rows[begun : number + 1])
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # the statement ends on a later line
        yield begun + 1, statement
        begun = number + 1


def _table_of(parsed: dict[str, Any], entries: dict[KeyPath, int]) -> KeyPath:
    """Return the path of a table; ``parsed`` is its head, such as ``[firewall.limit]``, as tomllib parsed it.

    ``entries`` has the number of entries that each repeated table has so far. If the head begins a new entry,
    add 1 to this number.
    """
    path: KeyPath = ()
    node: Any = parsed
    while node:
        if isinstance(node, list):
            entries[path] = entries.get(path, 0) + 1
            node = node[0]
            path = (*path, entries[path] - 1)
            continue
        if path in entries:  # a repeated table: its last entry is meant
            path = (*path, entries[path] - 1)
        ((name, node),) = node.items()
        path = (*path, name)
    return path


def _keys_of(value: object, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _keys_of(inner, (*path, name))
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        for number, inner in enumerate(value):
            yield from _keys_of(inner, (*path, number))
    else:
        yield path
