"""The keys of the configuration: their paths, and the tables in which they are."""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from attrs import Attribute, fields, frozen, has

from ringfence.config.converters import HOOKS
from ringfence.config.schema import RuleSettings, Settings, default_rules

KeyPath = tuple[str | int, ...]
"""The names of the tables that contain a key, the outermost first, and then the name of the key.

A number after the name of a repeated table is the index of an entry, from 0.
"""


@frozen
class Key:
    """A key, or a table. ``kind`` is the type of its value."""

    path: KeyPath
    kind: Any

    @property
    def entries(self) -> "type[Any] | None":
        """The class of one entry of a repeated table such as ``[[asterisk]]``; None for everything else."""
        inner = get_args(self.kind)[:1] if get_origin(self.kind) is tuple else ()
        return inner[0] if inner and has(inner[0]) and inner[0] not in HOOKS else None

    @property
    def is_table(self) -> bool:
        """Whether this is a table, and not a key with a value."""
        return self.entries is not None or has(self.kind) or get_origin(self.kind) is Mapping

    @property
    def plain_kind(self) -> Any:  # noqa: ANN401 - a type
        """The plain Python type of the value: ``int`` for ``Port | None``, for example."""
        kind = self.kind
        if get_origin(kind) in {Union, UnionType}:
            kind = next(one for one in get_args(kind) if one is not NoneType)
        while hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        return kind


ROOT = Key((), Settings)
"""The whole configuration, as a table that contains all others."""


def children_of(key: Key, entries: int = 1) -> Iterator[Key]:
    """Yield the keys and tables directly in a table; nothing for a key that is no table.

    The children of a repeated table are its entries. ``entries`` is how many of them to yield.
    """
    if (inner := key.entries) is not None:
        yield from (Key((*key.path, number), inner) for number in range(entries))
    elif get_origin(key.kind) is Mapping:  # [rules], which contains a table for each rule
        yield from (Key((*key.path, name), RuleSettings) for name in default_rules())
    elif key.is_table:
        yield from (Key((*key.path, field.name), field.type) for field in _fields_of(key))


def _fields_of(key: Key) -> "list[Attribute[Any]]":
    """Return the fields of a table. For the table of a rule, omit the keys that this rule does not have."""
    if key.kind is not RuleSettings:
        return list(fields(key.kind))
    rule = default_rules()[str(key.path[-1])]
    return [field for field in fields(RuleSettings) if getattr(rule, field.name) is not None]


def keys_of(table: Key = ROOT) -> Iterator[Key]:
    """Yield every key in a table and in the tables that it contains.

    Of a repeated table, only the keys of the first entry are yielded.
    """
    for child in children_of(table):
        if child.is_table:
            yield from keys_of(child)
        else:
            yield child


def text_of_key(path: KeyPath) -> str:
    """Return a path as error messages write it: ``asterisk[0].ami.port``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
