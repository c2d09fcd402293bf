"""Environment variables that set keys of the configuration, for containers.

The name of a variable is ``RINGFENCE_`` and the key in capital letters, with two underscores for each
dot: ``RINGFENCE_FIREWALL__MAX_BANS`` sets ``firewall.max_bans``. The name of a repeated table means its
first entry. A number after the name means another entry: ``RINGFENCE_ASTERISK__1__NAME`` sets
``asterisk[1].name``.

A value is a text, a number, ``true`` or ``false``, without quotes. The entries of a list are separated by
commas; a value that begins with ``[`` is a list in TOML. A variable overrides the file.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, get_args, get_origin

from attrs import frozen

from ringfence import CONFIG_VARIABLE, street
from ringfence.config.schema import ROOT, Key, KeyPath, children_of, keys_of, text_of_key

PREFIX = "RINGFENCE_"
_OTHER_VARIABLES = frozenset(
    name for module in street.settings().values() for name in getattr(module, "VARIABLES", ())
) | {CONFIG_VARIABLE, "RINGFENCE_LAB"}
"""Environment variables that begin with PREFIX but set no key. Only tests use RINGFENCE_LAB."""

_NUMBER = re.compile(r"[0-9]{1,3}")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_EITHER = {
    "secret": "secret_file",
    "secret_file": "secret",
    "password": "password_file",
    "password_file": "password",
    "token": "token_file",
    "token_file": "token",
}
"""Pairs of keys of which a table may have only one.

If a variable sets one key of a pair, the other one is removed from the TOML document.
"""


@frozen
class Overridden:
    """A TOML document (``tree``) in which environment variables have set keys.

    ``variables`` maps the path of each key that the environment sets to the name of its variable.
    ``problems`` has a line for each variable that is wrong.
    """

    tree: dict[str, Any]
    variables: Mapping[KeyPath, str]
    problems: tuple[str, ...]

    def named(self, problem: str) -> str:
        """Return ``problem`` with the name of the variable that the administrator must correct.

        ``problem`` is a line that begins with the path of a key. If a variable has set this key, the name of
        the variable replaces the path. Otherwise the line stays as it is.
        """
        for path, name in self.variables.items():
            key = text_of_key(path)
            if problem.startswith((f"{key}:", f"{key}[")):
                return name + problem.removeprefix(key)
        return problem


def overridden(tree: Mapping[str, object], environ: Mapping[str, str]) -> Overridden:
    """Return a copy of a TOML document in which the variables of ``environ`` have set their keys."""
    problems: list[str] = []
    variables: dict[KeyPath, str] = {}
    keys: dict[KeyPath, Key] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _OTHER_VARIABLES:
            continue
        key = key_of(name)
        if reason := _absent(name.removeprefix(PREFIX).lower().split("__")):
            problems.append(f"{name}: {reason}")
        elif key is None:
            problems.append(f"{name}: sets no key of the configuration; fix: {_fix(name)}")
        elif key.path in variables:
            problems.append(f"{name}: sets the same key as {variables[key.path]}; fix: unset one of them")
        else:
            keys[key.path] = key
            variables[key.path] = name
    result = deepcopy(dict(tree))
    for path in sorted(keys):
        try:
            _set(result, path, _value(environ[variables[path]], keys[path]))
        except ValueError as error:
            problems.append(f"{variables[path]}: {error}")
    for *table, last in keys:
        if last in _EITHER and (*table, _EITHER[str(last)]) not in keys:
            _remove(result, (*table, _EITHER[str(last)]))
    return Overridden(result, variables, tuple(problems))


def key_of(variable: str) -> Key | None:
    """Return the configuration key that an environment variable sets; None if there is no such key."""
    key = ROOT
    words = variable.removeprefix(PREFIX).split("__")
    while words:
        if key.entries is not None:
            number = int(words.pop(0)) if _NUMBER.fullmatch(words[0]) else 0
            key = Key((*key.path, number), key.entries)
        else:
            word = words.pop(0)
            found = (child for child in children_of(key) if str(child.path[-1]).upper() == word)
            if (child := next(found, None)) is None:
                return None
            key = child
    return None if key.is_table else key


def variable_of(path: KeyPath) -> str:
    """Return the name of the environment variable that sets a key; leave out a table's index 0."""
    return PREFIX + "__".join(str(part).upper() for part in path if part != 0)


def _absent(path: Sequence[str | int]) -> str:
    """Return why ``path`` cannot be set: this copy lacks its feature; "" if that is not so."""
    names = [str(part) for part in path if not _NUMBER.fullmatch(str(part))]
    for table in (".".join(names[:depth]) for depth in (1, 2)):
        feature = street.SETTINGS.get(table)
        if feature is not None and feature not in street.present():
            return f"{street.reason(feature)}, or remove [{table}]"
    return ""


def remove_absent(table: dict[str, Any], path: KeyPath = ()) -> Iterator[str]:
    """Remove tables whose feature this copy lacks from a document or table; yield a problem for each."""
    for name, value in [*table.items()]:
        if reason := _absent((*path, name)):
            yield f"{text_of_key((*path, name))}: {reason}"
            del table[name]
        elif not path and isinstance(value, dict):
            yield from remove_absent(value, (name,))
        elif not path and isinstance(value, list):
            for number, entry in enumerate(value):
                if isinstance(entry, dict):
                    yield from remove_absent(entry, (name, number))


def needing(tree: Mapping[str, object]) -> Iterator[str]:
    """Yield a problem for each key that needs a feature which this copy lacks."""
    for key, feature in street.NEEDS.items():
        name, _, inner = key.partition(".")
        table = tree.get(name)
        if feature not in street.present() and isinstance(table, Mapping) and inner in table:
            yield f"{key}: {street.reason(feature)}, or remove it"


def _fix(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - loaded where something is wrong

    names = [CONFIG_VARIABLE, *(variable_of(key.path) for key in keys_of())]
    near = get_close_matches(name.upper(), names, n=1, cutoff=0.8)
    return (
        f"write {near[0]}, or unset it"
        if near
        else "unset it; docs/configuration.md has the rule for the names"
    )


def _value(text: str, key: Key) -> object:
    """Convert the text of a variable to the type of ``key``: to a bool, an int, a list or a text.

    A text that is no valid bool or int is returned unchanged; the key's converter refuses it later. Raise
    ValueError for an invalid list.
    """
    kind = key.plain_kind
    if kind is bool:
        return {"true": True, "false": False}.get(text, text)
    if kind is int:
        return _number(text)
    if get_origin(kind) is tuple:
        entry = Key(key.path, get_args(kind)[0])
        return [*map(_number, _list(text))] if entry.plain_kind is int else _list(text)
    return text


def _number(entry: object) -> object:
    """Return a whole number for a text of one, any other value unchanged."""
    return int(entry) if isinstance(entry, str) and _WHOLE.fullmatch(entry) else entry


def _list(text: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [entry.strip() for entry in text.split(",")] if text.strip() else []
    try:
        entries: list[Any] = tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"begins with [ and is not a list in TOML: {error}") from None
    return entries


def _set(tree: dict[str, Any], path: KeyPath, value: object) -> None:
    """Set a key in a TOML document.

    A new entry of a repeated table must follow the last one: raise ValueError if there would be a gap. If the
    document has a value where ``path`` has a table, do nothing, because the loader reports this mistake.
    """
    node: Any = tree
    for part, inner in pairwise(path):
        empty: Any = [] if isinstance(inner, int) else {}
        if isinstance(part, int):
            if part > len(node):
                table = text_of_key(path[: path.index(part)])
                raise ValueError(
                    f"there is no {table}[{part - 1}]; fix: number the tables from 0, without a gap"
                )
            node += [empty] if part == len(node) else []
            node = node[part]
        else:
            node = node.setdefault(part, empty)
        if not isinstance(node, type(empty)):
            return
    node[path[-1]] = value


def _remove(tree: dict[str, Any], path: KeyPath) -> None:
    node: Any = tree
    for part in path[:-1]:
        try:
            node = node[part]
        except (LookupError, TypeError):
            return
    if isinstance(node, dict):
        node.pop(path[-1], None)
