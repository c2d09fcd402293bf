"""The keys of the configuration: their paths, and the tables in which they are."""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from attrs import Attribute, fields, frozen, has

from ringfence.config.converters import HOOKS
from ringfence.config.schema import RuleSettings, Settings, default_rules

KeyPath = tuple[str | int, ...]
"""The tables and the key, from the outside in. A number chooses one of a repeated table, from 0."""


@frozen
class Key:
    """A key and the type of its value; or a table, if :func:`children_of` yields its keys."""

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
        """The type of the value in Python, without None and without the names of ``converters``."""
        kind = self.kind
        if get_origin(kind) in {Union, UnionType}:
            kind = next(one for one in get_args(kind) if one is not NoneType)
        while hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        return kind


ROOT = Key((), Settings)
"""The table that contains everything."""


def children_of(key: Key, entries: int = 1) -> Iterator[Key]:
    """Yield the keys and tables in a table. A repeated table has ``entries`` of them."""
    if (inner := key.entries) is not None:
        yield from (Key((*key.path, number), inner) for number in range(entries))
    elif get_origin(key.kind) is Mapping:  # [rules]
        yield from (Key((*key.path, name), RuleSettings) for name in default_rules())
    elif key.is_table:
        yield from (Key((*key.path, field.name), field.type) for field in _fields_of(key))


def _fields_of(key: Key) -> "list[Attribute[Any]]":
    """Return the fields of a table, without the keys that its rule does not have."""
    if key.kind is not RuleSettings:
        return list(fields(key.kind))
    rule = default_rules()[str(key.path[-1])]
    return [field for field in fields(RuleSettings) if getattr(rule, field.name) is not None]


def keys_of(table: Key = ROOT) -> Iterator[Key]:
    """Yield every key in a table and in its tables; a repeated table has one entry."""
    for child in children_of(table):
        if child.is_table:
            yield from keys_of(child)
        else:
            yield child


def text_of_key(path: KeyPath) -> str:
    """Return a path as error messages write it: ``asterisk[0].ami.port``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
