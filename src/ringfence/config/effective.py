"""The effective configuration: every value, and where it comes from. Secrets are masked."""

import os
from collections.abc import Iterator, Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from attrs import frozen

from ringfence.config import loader
from ringfence.config.converters import SipPort, text_of_duration
from ringfence.config.environment import overridden
from ringfence.config.keys import ROOT, Key, KeyPath, children_of
from ringfence.config.positions import lines_of
from ringfence.errors import ConfigError
from ringfence.model import Secret

MASKED = "***"


class ValueOrigin(StrEnum):
    """Where a value comes from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


@frozen
class Value:
    """One key with its effective value.

    ``value`` is written as in a configuration file (a duration is ``"10m"``). A secret is masked. None means
    that the key is not set. If the value comes from the file, ``line`` is its line number. If it comes from
    an environment variable, ``variable`` is the name of the variable.
    """

    path: KeyPath
    value: bool | int | str | list[str] | None
    origin: ValueOrigin
    line: int | None = None
    variable: str | None = None


def effective(path: Path, environ: Mapping[str, str] = os.environ) -> list[Value]:
    """Return the value of every key, table by table, without reading the files with secrets.

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


def _written(value: object) -> bool | int | str | list[str] | None:
    """Return a value as a configuration file would write it, with secrets masked."""
    if isinstance(value, tuple):
        return [_text(one) for one in value]
    return value if value is None or isinstance(value, int) else _text(value)


def _text(value: object) -> str:
    match value:
        case Secret():
            return MASKED
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
