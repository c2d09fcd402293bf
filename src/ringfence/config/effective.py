"""The effective configuration: every value, and where it comes from. Secrets are masked."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from attrs import frozen

from ringfence.config import loader
from ringfence.config.converters import SipPort, text_of_duration
from ringfence.config.environment import overridden
from ringfence.config.schema import ROOT, Key, KeyPath, children_of
from ringfence.errors import ConfigError
from ringfence.values.secret import MASK, Secret, SecretUrl

# -- the line of each key in a TOML file, which tomllib does not report


_ENDS = ("]", '"""', "'''")
"""A TOML statement of several lines ends with a line that contains one of these texts.

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
    """Yield each TOML statement of ``text`` with the number of its first line.

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
    """Return the path of a TOML table; ``parsed`` is its head, such as ``[firewall.limit]``, in parsed form.

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


class ValueOrigin(StrEnum):
    """Where the value of a key comes from, such as the file or an environment variable."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


@frozen
class Value:
    """A key of the configuration with the value that is in force.

    ``value`` is written as in a configuration file (a duration is ``"10m"``). A secret is masked. None means
    that the key is not set. If the value comes from the file, ``line`` is its line number. If it comes from
    an environment variable, ``variable`` is the name of the variable.
    """

    path: KeyPath
    value: bool | int | str | list[int | str] | None
    origin: ValueOrigin
    line: int | None = None
    variable: str | None = None


def effective(path: Path, environ: Mapping[str, str] = os.environ) -> list[Value]:
    """Return the value in force of every key, table by table, without reading the files with secrets.

    Raise ConfigError with all problems if the configuration ``path`` is invalid.
    """
    settings = loader.load(path, environ, secrets=False)
    try:
        lines = lines_of(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [f"cannot be read a second time: {error}"]) from None
    variables = overridden({}, environ).variables
    return [_value(key, value, lines, variables) for key, value in _values(ROOT, settings)]


def _values(key: Key, value: Any) -> Iterator[tuple[Key, Any]]:  # noqa: ANN401 - whatever a key has
    if not key.is_table:
        yield key, value
        return
    several = key.entries is not None
    for child in children_of(key, entries=len(value) if several else 1):
        name = child.path[-1]
        inner = value[name] if several or isinstance(value, Mapping) else getattr(value, str(name))
        yield from _values(child, inner)


def _value(key: Key, value: object, lines: Mapping[KeyPath, int], variables: Mapping[KeyPath, str]) -> Value:
    shown = _written(value)
    if (variable := variables.get(key.path)) is not None:
        return Value(key.path, shown, ValueOrigin.ENVIRONMENT, variable=variable)
    if value is not None and (line := lines.get(key.path)) is not None:
        return Value(key.path, shown, ValueOrigin.FILE, line=line)
    return Value(key.path, shown, ValueOrigin.DEFAULT)


def _written(value: object) -> bool | int | str | list[int | str] | None:
    """Return a value as a configuration file would write it, with secrets masked."""
    if isinstance(value, tuple):
        return [one if isinstance(one, int) else _text(one) for one in value]
    return value if value is None or isinstance(value, int) else _text(value)


def _text(value: object) -> str:
    match value:
        case Secret() if not isinstance(value, SecretUrl):
            return MASK
        case float():
            return text_of_duration(value)
        case Enum():
            return str(value.value)
        case ZoneInfo():
            return value.key
        case SipPort():
            transport = "udp" if value.udp else "tcp"
            return f"{value.number}" if value.udp and value.tcp else f"{value.number}/{transport}"
    return str(value)
