"""Plain output of all commands. Only this module writes plain text to standard output and standard error.

Text from outside (an account, a message of a SIP peer, a DNS name, a log line) may contain any character.
Each argument is printed as one line: :func:`ringfence.model.printable` escapes line ends and other control
characters. Tables and colours are printed by ``screen``.
"""

import json
import sys

import typer

from ringfence.cli.lines import width_of, wrapped

_INDENT = 2  # columns before a continuation line on standard error


def echo(*lines: str, indent: int | None = None) -> None:
    """Print each text on its own line.

    With ``indent``, long lines are :func:`wrapped` on a terminal, and their continuation lines are indented
    by so many columns.
    """
    _write(lines, err=False, indent=indent)


def echo_stderr(*lines: str) -> None:
    """Print each text on a line of standard error: errors, and notes that are not part of the result."""
    _write(lines, err=True, indent=_INDENT)


def echo_json(value: object, *, indent: int | None = 2) -> None:
    """Print a value as JSON. It is ASCII: every other character is escaped."""
    typer.echo(json.dumps(value, indent=indent))


def echo_encoded(encoded: bytes) -> None:
    """Print JSON as the daemon has encoded it.

    If it contains anything but printable ASCII, it is encoded again, so that such characters are escaped.
    """
    if not (encoded.isascii() and encoded.decode("ascii").isprintable()):
        encoded = json.dumps(json.loads(encoded)).encode()
    sys.stdout.buffer.write(encoded + b"\n")


def echo_document(text: str) -> None:
    """Print a text of several lines, such as a configuration. It is always encoded in UTF-8.

    Unprintable characters are escaped, except line ends.
    """
    from ringfence.model import printable  # noqa: PLC0415 - loaded when a command runs

    typer.echo("\n".join(map(printable, text.split("\n"))).encode(), nl=False)


def _write(lines: tuple[str, ...], *, err: bool, indent: int | None) -> None:
    from ringfence.model import printable  # noqa: PLC0415 - loaded when a command runs

    escaped = [printable(line) for line in lines]
    if indent is not None:
        width = width_of(sys.stderr if err else sys.stdout)
        escaped = [wrapped(line, width, _leading(line) + indent) for line in escaped]
    if lines:
        typer.echo("\n".join(escaped), err=err)


def _leading(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
