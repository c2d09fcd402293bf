"""docs/configuration.md, made from the settings and from the comments of examples/full.toml.

The settings have the keys, their defaults and what each accepts; the example explains them.
"""

import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

import attrs
from tests.docs.pages import FOLDER, ROOT

from ringfence.config.converters import HOOKS
from ringfence.config.environment import variable_of
from ringfence.config.schema import RuleSettings, Settings, default_rules

PAGE = FOLDER / "configuration.md"
EXAMPLE = ROOT / "examples" / "full.toml"

_HEAD = """\
<!-- Written by `make docs` from the settings and from examples/full.toml. Change those, not this page. -->

# Configuration

ringfence reads one file: `/etc/ringfence/ringfence.toml`. The format is [TOML](https://toml.io). Only the
secret of the manager user has no default, so [examples/minimal.toml](../examples/minimal.toml) is complete.
[examples/full.toml](../examples/full.toml) has every key with its default.

- `ringfence config check` names every mistake in the file at once, each with its key. `ringfence check` also
  checks this host.
- `ringfence config show` prints every value in force, and where it comes from: the default, a line of the
  file, or a variable of the environment. It masks secrets.
- `ringfence reload` (or `systemctl reload ringfence`) makes the daemon read the file again. If the file has a
  mistake, the command prints all mistakes and fails, and the daemon keeps the old configuration.
- A key that needs more than a reload has a note below.
- A duration is `"90s"`, `"10m"`, `"1h30m"`, `"7d"` or `"2w"`.
- Only `ringfence setup`, `feeds add` and `feeds remove` write this file. `ringfence allow add` and
  `ringfence deny add` write to the database.

Other pages explain the terms: [rules](rules.md), [proof](evidence.md), [sources](sources.md),
[lists and friends](lists-and-friends.md), [firewall](firewall.md). Back to the [README](../README.md).

## Environment variables

A variable of the environment sets a key, and overrides the file. It is meant for
[containers](install.md#in-a-container). Its name is `RINGFENCE_` and the key in capital letters, with two
underscores for each dot:

{variables}

- The name of a repeated table stands for the first one. A number after it chooses another one, from 0 as in
  error messages: the second one has the number 1.
- A value is a text, a number, `true` or `false`, without quotes.
- The entries of a list are separated by commas. If an entry contains a comma, write the list in TOML:
  `["a,b", "c"]`. An empty value is an empty list.
- `RINGFENCE_ASTERISK__AMI__SECRET_FILE` also overrides a `secret` in the file, and the other way round.
- A variable that begins with `RINGFENCE_` and names no key is an error. Only `RINGFENCE_CONFIG` has another
  meaning: it names the file. The variables of [your own command](notify.md#your-own-command) are ignored.
- `reload` cannot change variables. Set them for the whole container, because commands need them too.
"""
_VARIABLES = {
    "firewall.max_bans": "1048576",
    "asterisk.ami.secret_file": "/run/secrets/asterisk",
    "asterisk[1].name": "branch",
    "rules.guess.ban": "1h, 6h, 1d",
    "allow.networks": "192.0.2.0/24, 2001:db8::/32",
}
"""Examples of keys that a variable sets, with a value."""
_TABLE = re.compile(r"#?(\[{1,2})([a-z_.]+)\]{1,2}")
_KEY = re.compile(r"#?([a-z_]+) = (.*)")
_ANY_TEXT = "a text"


@attrs.frozen
class Explained:
    """The comments of the example about each table and each key."""

    tables: dict[str, str]
    keys: dict[tuple[str, str], str]


def explained() -> Explained:
    """Return the comments of the example."""
    tables: dict[str, str] = {}
    keys: dict[tuple[str, str], str] = {}
    table = ""
    comment: list[str] = []
    for line in EXAMPLE.read_text("utf-8").splitlines():
        if head := _TABLE.fullmatch(line):
            table = head[2]
            tables[table] = " ".join(comment)
        elif key := _KEY.fullmatch(line):
            keys[table, key[1]] = " ".join(comment).removesuffix(" No default.")
        elif line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
            continue
        comment = []
    return Explained(tables, keys)


def tables() -> Iterator[tuple[str, type, bool]]:
    """Yield each table of the settings: its name, its class, and whether it may be repeated."""
    for field in attrs.fields(Settings):
        if field.name == "rules":
            yield from ((f"rules.{name}", RuleSettings, False) for name in default_rules())
        else:
            yield from _tables(field.name, field.type)


def _tables(name: str, kind: Any) -> Iterator[tuple[str, type, bool]]:  # noqa: ANN401 - a type
    repeated = get_origin(kind) is tuple
    inner = get_args(kind)[0] if repeated else kind
    yield name, inner, repeated
    for field in attrs.fields(inner):
        if _is_table(field.type):
            yield from _tables(f"{name}.{field.name}", field.type)


def _is_table(kind: Any) -> bool:  # noqa: ANN401 - a type
    inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return attrs.has(inner) and inner not in HOOKS


def keys_of(table: str, kind: type) -> "list[attrs.Attribute[Any]]":
    """Return the keys of a table, without its sub-tables and the keys that its rule does not have."""
    _, _, rule = table.partition("rules.")
    return [
        field
        for field in attrs.fields(kind)
        if not _is_table(field.type)
        and not (rule and field.name != "enabled" and getattr(default_rules()[rule], field.name) is None)
    ]


def accepted(kind: Any) -> str:  # noqa: ANN401 - a type
    """Return the values that a key accepts, in the words of the configuration's error messages."""
    hook = HOOKS.get(kind)
    if hook is None and get_origin(kind) is tuple:
        return f"a list; each entry: {accepted(get_args(kind)[0])}"
    if hook is None:
        return accepted(next(one for one in get_args(kind) if one is not type(None)))
    refusals = [refusal for wrong in ([], "?", object()) if (refusal := _refusal(hook, wrong, kind))]
    return next((refusal for refusal in refusals if not refusal.startswith(_ANY_TEXT)), _ANY_TEXT)


def _refusal(hook: Callable[[Any, Any], Any], value: object, kind: Any) -> str:  # noqa: ANN401 - a type
    try:
        hook(value, kind)
    except ValueError as error:
        return re.sub(r'(?<="): .*', "", str(error).removeprefix("must be "))
    return ""


def default_of(table: str, field: "attrs.Attribute[Any]") -> str:
    """Return the default of a key as written in the file."""
    value = _written(table, field)
    return f"`{value}`" if value else "none"


def _written(table: str, field: "attrs.Attribute[Any]") -> str:
    if field.default is None and "rules." not in table:
        return ""
    lines = EXAMPLE.read_text("utf-8").splitlines()
    here = ""
    for line in lines:
        if head := _TABLE.fullmatch(line):
            here = head[2]
        elif (key := _KEY.fullmatch(line)) and (here, key[1]) == (table, field.name):
            return "" if field.default is attrs.NOTHING and "rules." not in table else key[2]
    raise AssertionError((table, field.name))


def page() -> str:
    """Return the whole page."""
    found = explained()
    parts = [_HEAD.format(variables="\n".join(_variables()))]
    for name, kind, repeated in tables():
        head = f"[[{name}]]" if repeated else f"[{name}]"
        parts.append(f"## {head}\n")
        if found.tables[name]:
            parts.append(textwrap.fill(found.tables[name], 120, break_on_hyphens=False) + "\n")
        rows = [
            f"| `{field.name}` | {default_of(name, field)} | {_cell(accepted(field.type))} "
            f"| {_cell(_meaning(found, name, field.name))} |"
            for field in keys_of(name, kind)
        ]
        if rows:
            parts.append("\n".join(["| key | default | accepts | meaning |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _variables() -> Iterator[str]:
    paths = {
        key: tuple(int(part) if part.isdigit() else part for part in re.findall(r"\w+", key))
        for key in _VARIABLES
    }
    lines = {f"{variable_of(paths[key])}={value}": key for key, value in _VARIABLES.items()}
    width = max(map(len, lines))
    yield from ("```text", *(f"{line:{width}}  # {key}" for line, key in lines.items()), "```")


def _meaning(found: Explained, table: str, key: str) -> str:
    first = "notify.mail" if table.startswith("notify.") else "rules.guess"
    return found.keys[table, key] or found.keys[first, key]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
