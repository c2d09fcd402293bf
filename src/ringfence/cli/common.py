"""What every command shares: the configuration, the way to the daemon, and what errors become."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar, cast

import typer

import ringfence
from ringfence.errors import ConfigError, DaemonUnreachableError, ListError, RingfenceError
from ringfence.exits import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import tzinfo

    from rich.console import Console
    from rich.table import Table

    from ringfence.config import Settings
    from ringfence.model import Network

_T = TypeVar("_T")

_ENDLESS = 10_000  # columns
_MOST_FRIENDS = 5
PATIENCE = 30.0
"""Seconds that a command waits for an answer of the daemon."""

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration file.", envvar="RINGFENCE_CONFIG"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Give JSON, for scripts.")]
DEFAULT_CONFIG = Path(ringfence.DEFAULT_CONFIG)


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn ringfence's errors into a line each on standard error, and into the exit code they mean."""
    try:
        yield
    except RingfenceError as error:
        lines, code = explained(error)
        for line in lines:
            say(line)
        raise typer.Exit(code) from None


@contextmanager
def opened(file: str) -> "Iterator[BinaryIO]":
    """Open a file that a command was given to read, standard input for ``-``; raises ListError."""
    import sys  # noqa: PLC0415 - loaded when a command runs

    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as source:
            yield cast("BinaryIO", source)
    except OSError as error:
        raise ListError(f"{file} cannot be read: {error.strerror}") from None


def say(text: str) -> None:
    """Tell a person something, beside the command's output."""
    typer.echo(text, err=True)


def console() -> "Console":
    """Give a console as wide as the terminal; a pipe has no end of a line, unless COLUMNS says so."""
    import os  # noqa: PLC0415 - loaded when a command runs
    import sys  # noqa: PLC0415 - loaded when a command runs

    from rich.console import Console  # noqa: PLC0415 - loaded when a command runs

    endless = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(width=_ENDLESS if endless else None, highlight=False)


def fitting(tables: "Iterable[Table]", to: "Console") -> "Table":
    """Give the first of these tables that ``to`` has the width for; where none fits, the last."""
    table: Table | None = None
    for table in tables:
        if to.measure(table, options=to.options.update(width=_ENDLESS)).maximum <= to.width:
            break
    if table is None:
        raise ValueError("no table")
    return table


def tell_of_friends(path: Path, networks: "Sequence[Network]", done: str) -> None:
    """Say who of these is a friend of this PBX: to have him out may be meant, or a slip."""
    try:
        rows = ask_daemon(path, "friends", quietly=True, networks=[str(network) for network in networks])
    except DaemonUnreachableError:  # who is a friend is told when there is one
        return
    say_friends(rows, done)


def say_friends(rows: "Iterable[Mapping[str, Any]]", done: str) -> None:
    """Say who is a friend, by rows as the daemon gives them, and what is done to him all the same."""
    accounts: dict[str, set[str]] = {}
    for row in rows:
        accounts.setdefault(row["address"], set()).add(row["account"])
    for address, names in [*accounts.items()][:_MOST_FRIENDS]:
        from ringfence.model import printable  # noqa: PLC0415 - loaded when a command runs

        shown = ", ".join(printable(name) for name in sorted(names)[:_MOST_FRIENDS])
        say(f"{address} is a friend ({shown}): {done} all the same")
    if len(accounts) > _MOST_FRIENDS:
        say(f"and {len(accounts) - _MOST_FRIENDS} friends more")


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number with what it counts: ``1 packet``, ``2 packets``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def settings_from(path: Path, *, secrets: bool = False) -> "Settings":
    """Load the configuration; without ``secrets`` for commands that only talk to the daemon or the kernel."""
    from ringfence import config  # noqa: PLC0415 - loaded when a command runs

    return config.load(path, secrets=secrets)


def say_mistakes(path: Path) -> None:
    """Say what is wrong with the configuration, where something is."""
    try:
        settings_from(path)
    except ConfigError as error:
        for line in explained(error)[0]:
            say(line)


def settings_all_the_same(path: Path) -> "Settings":
    """Load the configuration; what is wrong with it is said, and stands aside.

    Whoever is locked out has no time to mend a file first.
    """
    try:
        return settings_from(path)
    except ConfigError as error:
        from ringfence import config  # noqa: PLC0415 - loaded when a command runs

        for line in explained(error)[0]:
            say(line)
        say("going on with what is right in it, and the defaults for the rest")
        return config.load_what_is_right(path)


def ask_daemon(
    path: Path,
    do: str,
    *,
    quietly: bool = False,
    **arguments: object,
) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Ask the daemon of the configuration at ``path``.

    A daemon goes on with the old configuration when the new one is wrong, and so can its commands; where
    none answers, the ConfigError is what matters. ``quietly`` is for what the daemon itself says of it.
    """
    return _ask_by(path, lambda settings: ask(settings, do, patience=PATIENCE, **arguments), quietly=quietly)


def ask_daemon_encoded(path: Path, do: str, **arguments: object) -> bytes:
    """Ask the same, and give the answer as the JSON that it came in."""
    from ringfence import control  # noqa: PLC0415 - loaded when a command runs

    return _ask_by(path, lambda settings: control.ask_encoded(settings.control.socket, do, **arguments))


def _ask_by(path: Path, asking: "Callable[[Settings], _T]", *, quietly: bool = False) -> "_T":
    from ringfence import config  # noqa: PLC0415 - loaded when a command runs

    try:
        settings = settings_from(path)
    except ConfigError as error:
        try:
            answer = asking(config.load_what_is_right(path))
        except DaemonUnreachableError:
            raise error from None
        if not quietly:
            for line in explained(error)[0]:
                say(line)
        return answer
    return asking(settings)


def ask(
    settings: "Settings",
    do: str,
    *,
    patience: float = PATIENCE,
    **arguments: object,
) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Ask the daemon of these settings, and wait for its answer for ``patience`` seconds."""
    from ringfence import control  # noqa: PLC0415 - loaded when a command runs

    return control.ask(settings.control.socket, do, patience=patience, **arguments)


def networks_from(texts: list[str]) -> "list[Network]":
    """Read addresses or networks as a person typed them."""
    from ringfence.model import network_from  # noqa: PLC0415 - loaded when a command runs

    networks: list[Network] = []
    wrong = []
    for text in texts:
        try:
            networks.append(network_from(text))
        except ValueError as error:
            # What Python says of text that is nothing of the kind is the same again.
            wrong.append(repr(text) if "does not appear" in str(error) else str(error))
    if wrong:
        raise typer.BadParameter(f"not an address or a network: {', '.join(wrong)}")
    return networks


def zone_from(name: str) -> "tzinfo | None":
    """Read the time zone of ``--timezone``; None where nothing was typed."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - loaded when a command runs

    try:
        return ZoneInfo(name) if name else None
    except (OSError, ValueError, LookupError):
        raise typer.BadParameter(f"{name!r} is no time zone", param_hint="--timezone") from None
