"""Plain output of all commands. Only this module writes plain text to standard output and standard error.

Text from outside (an account, a message of a SIP peer, a DNS name, a log line) may contain any character.
Each argument is printed as one line: :func:`~ringfence.values.text.printable` escapes line ends and other
control characters. Tables and colours are printed by ``screen``.
"""

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from textwrap import wrap
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from attrs import define

from ringfence.errors import Exit, OutputError, RingfenceError, error_lines
from ringfence.findings import Finding
from ringfence.values.text import printable, readable_time

if TYPE_CHECKING:
    from ringfence.cli.plain_text import TextForm

# -- the streams of a command


class _Stream(io.FileIO):
    """Standard output or standard error, whose failure is an OutputError, except for a closed pipe.

    After a failure the stream is /dev/null, so that what is buffered does not fail again at the end.
    """

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as in io
        """Write bytes; raise OutputError if the device is full, for example."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            raise OutputError(f"the output cannot be written: {error.strerror}") from None


def open_closed_streams() -> None:
    """Open /dev/null in place of each of the three standard streams that is closed.

    Python has None for such a stream. A file that is opened later could get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            setattr(sys, name, os.fdopen(nothing, mode, encoding="utf-8", closefd=False))


def checked(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a stream to the same descriptor whose failure is an OutputError; flush ``stream``.

    An account name may contain a character that the terminal's encoding lacks. It is printed escaped.
    """
    stream.flush()
    buffer = io.BufferedWriter(_Stream(stream.fileno(), "w", closefd=False))
    buffered = stream.line_buffering
    return io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=buffered)


# -- line wrapping for terminals: lines break between words, and continuation lines are indented
#
# If the output is not a terminal but a pipe or a file, lines are not wrapped, so that grep finds whole
# lines.


_FIX = re.compile("; (?=fix: )")
_PIPE = 1_000_000
"""The width (columns) for a pipe or a file. It is so large that no line is wrapped."""


def width_of(stream: IO[str]) -> int:
    """Return the width of the terminal ``stream`` in columns; for a pipe or file, _PIPE."""
    return shutil.get_terminal_size().columns if stream.isatty() else _PIPE


def wrapped(text: str, width: int, indent: int) -> str:
    """Return ``text`` wrapped to lines of at most ``width`` columns; all but the first are indented.

    ``indent`` is in columns. If the text is too long for one line, its part ``fix: …`` begins a new line, so
    that the command in it can be copied. A word that is longer than a line, such as a path, is not broken.
    """
    if len(text) <= width:
        return text
    lines: list[str] = []
    for part in _FIX.split(text):
        blanks = " " * indent
        lines += wrap(
            part,
            width,
            initial_indent=blanks if lines else "",
            subsequent_indent=blanks,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
    return "\n".join(lines)


_MARK = 4  # columns of the mark (``ok``, ``NO`` or ``--``) before a finding
_INDENT = 2  # columns before a continuation line on standard error


def echo(*lines: str, indent: int | None = None) -> None:
    """Print each text on its own line.

    With ``indent``, long lines are :func:`wrapped` on a terminal, and their continuation lines are indented
    by so many columns.
    """
    _write(lines, err=False, indent=indent)


def echo_findings(*findings: Finding) -> None:
    """Print a line for each finding."""
    echo(*(finding.line for finding in findings), indent=_MARK)


def echo_stderr(*lines: str) -> None:
    """Print each text on a line of standard error: errors, and notes that are not part of the result."""
    _write(lines, err=True, indent=_INDENT)


@contextmanager
def errors_reported() -> Iterator[None]:
    """If the block raises a RingfenceError, print it to standard error, and exit with the code for it."""
    try:
        yield
    except RingfenceError as error:
        lines, code = error_lines(error)
        echo_stderr(*lines)
        raise typer.Exit(code) from None


_unrecorded: list[str] = []


def note_unrecorded(why: str) -> None:
    """Print that a change is in force, but not recorded because of ``why``; the exit code will show it."""
    if why not in _unrecorded:
        _unrecorded.append(why)
        echo_stderr(f"in force, but not recorded, so a restart may undo it: {why}")


def exit_if_unrecorded() -> None:
    """Exit with the code for an unrecorded change if the database did not record one of this command."""
    if _unrecorded:
        _unrecorded.clear()
        raise typer.Exit(Exit.NOT_RECORDED)


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
    typer.echo("\n".join(map(printable, text.split("\n"))).encode(), nl=False)


def _write(lines: tuple[str, ...], *, err: bool, indent: int | None) -> None:
    escaped = [printable(line) for line in lines]
    if indent is not None:
        width = width_of(sys.stderr if err else sys.stdout)
        escaped = [wrapped(line, width, _leading(line) + indent) for line in escaped]
    if lines:
        typer.echo("\n".join(escaped), err=err)


def _leading(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


# -- times in the output for people: in UTC, or in the local time zone of the terminal
#
# ``--local`` or the key ``times`` of ``[display]`` chooses local times. JSON is always in UTC.


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
LocalOption = Annotated[bool, typer.Option("--local", help="Show local times instead of UTC.")]


@define
class _Choice:
    """Whether the option ``--local`` is given, and whether the configuration chooses local times.

    Times are local if at least one of them is true.
    """

    option: bool = False
    configured: bool = False

    @property
    def local(self) -> bool:
        return self.option or self.configured


_choice = _Choice()


def choose(*, local: bool) -> None:
    """Record whether the option ``--local`` is given. Without it, the configuration decides."""
    _choice.option = local


def configure(times: str) -> None:
    """Record in which time zone the configuration (key ``times``) shows times: ``utc`` or ``local``."""
    _choice.configured = times == "local"


def zone() -> str:
    """Return the name of the time zone in which times are shown: ``UTC`` or ``LOCAL``."""
    return "LOCAL" if _choice.local else "UTC"


def head(name: str) -> str:
    """Return the head of a table column with times: its name and the time zone, as ``SINCE (UTC)``."""
    return f"{name} ({zone()})"


def short_time(moment: str | None, unknown: str = "?", *, seconds: bool = False) -> str:
    """Return a time from the daemon's JSON as tables show it: ``2026-11-20 10:14``.

    With ``seconds``, the seconds are shown too. Return ``unknown`` if there is no time.
    """
    if not moment:
        return unknown
    if _choice.local:
        moment = datetime.fromisoformat(moment).astimezone().isoformat()
    return readable_time(moment)[: 19 if seconds else 16]


RECORDED_ONLY = "The daemon does not answer: this is what it has recorded."


def text_form(width: int = 80) -> "TextForm":
    """Return the form in which a report is written to standard output, with lines of ``width`` columns.

    Charts use block characters if the encoding of standard output has them. Times are in UTC or local, as the
    user chose.
    """
    from ringfence.cli.plain_text import TextForm, has_blocks  # noqa: PLC0415 - loaded by a few commands

    return TextForm(has_blocks(sys.stdout.encoding), width, zone(), short_time)
