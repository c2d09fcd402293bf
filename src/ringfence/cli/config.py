"""``ringfence config``: show the effective configuration, and check a configuration file."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, settings_from
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, errors_reported
from ringfence.config.converters import toml_of
from ringfence.config.effective import Value, effective
from ringfence.config.schema import KeyPath, text_of_key

_WIDEST = 48
"""The maximum width (columns) of a line ``key = value`` after which comments are aligned.

Such a comment names the origin of the value. After a longer line, it follows directly.
"""

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="Configuration file; default: that of --config.")
]
WithoutSecretsOption = Annotated[
    bool, typer.Option("--without-secrets", help="Do not read the secrets: the file is for another host.")
]

config = typer.Typer(cls=HintingGroup, no_args_is_help=True, add_completion=False)


@config.command("show")
def config_show(path: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show every value in force, and where it comes from. Secrets are masked."""
    with errors_reported():
        values = effective(path)
    if as_json:
        echo_json({"file": str(path), "values": [_as_json(value) for value in values]})
    else:
        echo(*_lines(path, values))


@config.command("check")
def config_check(
    file: FileArgument = None,
    path: ConfigOption = DEFAULT_CONFIG,
    without_secrets: WithoutSecretsOption = False,
) -> None:
    """Check a configuration file, and print every mistake in it."""
    checked = path if file is None else file
    with errors_reported():
        settings_from(checked, secrets=not without_secrets)
    echo(f"{checked}: no mistakes")


def _as_json(value: Value) -> dict[str, object]:
    return {
        "key": text_of_key(value.path),
        "value": value.value,
        "origin": value.origin,
        "line": value.line,
        "variable": value.variable,
    }


def _lines(path: Path, values: Sequence[Value]) -> Iterator[str]:
    """Yield the lines of the configuration in TOML. After each value, a comment names its origin."""
    yield f"# The configuration of {path}. A line is a line of this file."
    for table, members in groupby(values, lambda value: value.path[:-1]):
        rows = [(_written(value), _origin(value)) for value in members]
        width = max((len(text) for text, _ in rows if len(text) <= _WIDEST), default=0)
        yield from ("", _head(table), *(f"{text:{width}}  # {origin}" for text, origin in rows))


def _head(table: KeyPath) -> str:
    name = ".".join(part for part in table if isinstance(part, str))
    return f"[[{name}]]" if isinstance(table[-1], int) else f"[{name}]"


def _written(value: Value) -> str:
    name = value.path[-1]
    return f"#{name} = none" if value.value is None else f"{name} = {toml_of(value.value)}"


def _origin(value: Value) -> str:
    if value.variable is not None:
        return value.variable
    return f"line {value.line}" if value.line is not None else str(value.origin)
