"""Functions shared by all commands: configuration, requests to the daemon, and error output."""

import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast
from zoneinfo import ZoneInfo

import typer

import ringfence
from ringfence import control
from ringfence.cli import output
from ringfence.cli.output import echo_stderr
from ringfence.config import loader
from ringfence.config.converters import parse_duration
from ringfence.config.schema import Settings
from ringfence.errors import (
    ConfigError,
    DaemonUnreachableError,
    HangingError,
    ListError,
    NoAccessError,
    NoAnswerError,
    error_lines,
)
from ringfence.plurals import counted
from ringfence.values.network import Network, parse_network

_MAX_FRIENDS = 5
_MAX_ACCOUNT = 12  # characters of an account in a table of bans
_AT_ONCE = 64  # the maximum number of networks in one request
_KNOWN_TO_HANG = 10.0
"""Seconds for which a command that has met a daemon that hangs does not ask it again."""
_hangs: dict[Path, tuple[float, HangingError]] = {}
"""For each socket: when its daemon was found to hang (monotonic seconds), and the error raised then."""

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Configuration file.", envvar=ringfence.CONFIG_VARIABLE
    ),
]
DEFAULT_CONFIG = Path(ringfence.DEFAULT_CONFIG)


@contextmanager
def open_input(file: str) -> Iterator[BinaryIO]:
    """Open an input file of a command; ``-`` is standard input. Raise ListError if it cannot be opened."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as source:
            yield cast("BinaryIO", source)
    except OSError as error:
        raise ListError(f"cannot read {file}: {error.strerror}") from None


def warn_about_friends(path: Path, networks: Sequence[Network], done: str) -> None:
    """Print a warning for each friend of this PBX in ``networks``, because the command may be a mistake.

    ``done`` is the past participle of the command, such as "banned". Without a daemon nothing is printed.
    """
    try:
        rows = ask_daemon(path, "friends", quietly=True, networks=[str(network) for network in networks])
    except DaemonUnreachableError:  # friends are known only while the daemon runs
        return
    print_friends(rows, f"{done} anyway")


def print_friends(rows: Iterable[Mapping[str, Any]], effect: str) -> None:
    """Print a line for each friend in ``rows`` (as the daemon lists them), up to a limit.

    Each line ends with ``effect``, what the command does to the friend.
    """
    accounts: dict[str, set[str]] = {}
    for row in rows:
        accounts.setdefault(row["address"], set()).add(row["account"])
    for address, names in [*accounts.items()][:_MAX_FRIENDS]:
        shown = ", ".join(sorted(names)[:_MAX_FRIENDS])
        echo_stderr(f"{address} is a friend ({shown}): {effect}")
    if len(accounts) > _MAX_FRIENDS:
        echo_stderr(f"and {counted(len(accounts) - _MAX_FRIENDS, 'more friend')}")


def alarm_text(alarm: Mapping[str, Any]) -> str:
    """Return an alarm of the daemon as text: its code, its subject if it has one, and its text."""
    about = " ".join(filter(None, [alarm["code"], alarm["subject"]]))
    return f"{about}: {alarm['text']}"


def alarm_line(alarm: Mapping[str, Any]) -> str:
    """Return an active alarm as a line for people, with how often it was activated."""
    again = f" ({alarm['times']} times)" if alarm["times"] > 1 else ""
    return f"! {alarm_text(alarm)}{again}"


def account_cell(row: dict[str, Any]) -> str:
    """Return the account of a ban, and how many further accounts its attempts tried: ``204 +3``.

    A long account is cut. Return "-" if the ban has no account.
    """
    if not row["account"]:
        return "-"
    more = f" +{row['accounts'] - 1}" if row["accounts"] > 1 else ""
    account = str(row["account"])
    room = _MAX_ACCOUNT - len(more)
    return (account if len(account) <= room else account[: room - 1] + "…") + more


def rule_cell(row: dict[str, Any]) -> str:
    """Return the rule of a ban; "?" if it is unknown.

    If the ban does not drop all packets, what it drops follows in brackets: ``guess (sip-udp)``.
    """
    rule = row["rule"] or "?"
    return rule if row["scope"] == "full" else f"{rule} ({row['scope']})"


def duration_from(option: str, text: str) -> float:
    """Return the value ``text`` of an option in seconds. End with a usage error if it is not a duration."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None


def settings_from(path: Path, *, secrets: bool = False) -> Settings:
    """Return the configuration in the file ``path``; raise ConfigError if it has mistakes.

    This also makes the command show times in the configuration's time zone (UTC or local).
    Secrets are only read with ``secrets``. Commands that only use the daemon or the kernel need none, and
    their user may not be allowed to read them.
    """
    return _with_times(loader.load(path, secrets=secrets))


def _with_times(settings: Settings) -> Settings:
    """Make this command show times as the settings choose, in UTC or local; return the settings."""
    output.configure(settings.display.times)
    return settings


def print_config_errors(path: Path) -> None:
    """Print the errors of the configuration, if there are any."""
    try:
        settings_from(path)
    except ConfigError as error:
        echo_stderr(*error_lines(error)[0])


def settings_or_defaults(path: Path) -> Settings:
    """Load the configuration leniently: print its errors, and use defaults for the invalid parts.

    So an administrator who is locked out can end a ban at once, without fixing the configuration first.
    """
    try:
        return settings_from(path)
    except ConfigError as error:
        echo_stderr(*error_lines(error)[0])
        echo_stderr("continuing with the valid parts of it, and defaults for the rest")
        return _valid_parts(path)


def _valid_parts(path: Path) -> Settings:
    return _with_times(loader.load_what_is_right(path))


def ask_daemon(
    path: Path,
    do: str,
    *,
    quietly: bool = False,
    **arguments: object,
) -> Any:  # noqa: ANN401 - any JSON value
    """Send the request ``do`` to the daemon of the configuration at ``path``; return its answer.

    Raise DaemonUnreachableError if no daemon answers, and ControlError if the daemon refuses the request.

    If the configuration has mistakes, the daemon still runs with its old one. So the request is sent, and the
    mistakes are then printed as errors, except with ``quietly``. If no daemon answers either, the ConfigError
    is raised.
    """
    with _settings_to_ask(path, quietly=quietly) as settings:
        return ask(settings, do, patience=control.ANSWER_TIMEOUT, **arguments)


def ask_about(path: Path, do: str, networks: Sequence[str]) -> Iterator[Any]:
    """Send the request ``do`` about networks, as many as one request may name; yield each answer.

    Mistakes of the configuration are not printed again.
    """
    for at in range(0, len(networks), _AT_ONCE):
        yield ask_daemon(path, do, quietly=True, networks=networks[at : at + _AT_ONCE])


def ask_daemon_encoded(path: Path, do: str, *, quietly: bool = False, **arguments: object) -> bytes:
    """Send the request ``do`` as :func:`ask_daemon` does; return the answer as JSON text, not parsed."""
    with _settings_to_ask(path, quietly=quietly) as settings, _once_if_hanging(settings.control.socket):
        return control.ask_encoded(settings.control.socket, do, **arguments)


@contextmanager
def _settings_to_ask(path: Path, *, quietly: bool = False) -> Iterator[Settings]:
    """Yield the settings with which the block asks the daemon (see :func:`ask_daemon` for mistakes)."""
    try:
        settings = settings_from(path)
    except ConfigError as error:
        try:
            yield _valid_parts(path)
        except DaemonUnreachableError:
            raise error from None
        if not quietly:
            echo_stderr(*error_lines(error)[0])
    else:
        yield settings


def ask(
    settings: Settings,
    do: str,
    *,
    patience: float = control.ANSWER_TIMEOUT,
    **arguments: object,
) -> Any:  # noqa: ANN401 - any JSON value
    """Send the request ``do`` to the daemon of these settings; return its answer.

    Wait up to ``patience`` seconds for the answer. If a change is not recorded, print why. Raise
    DaemonUnreachableError if no daemon answers, and ControlError if the daemon refuses the request.
    """
    path = settings.control.socket
    unrecorded: list[str] = []
    with _once_if_hanging(path):
        answer = control.ask(path, do, timeout=patience, unrecorded=unrecorded, **arguments)
    for reason in unrecorded:
        output.note_unrecorded(reason)
    return answer


@contextmanager
def _once_if_hanging(path: Path) -> Iterator[None]:
    """Record if the daemon at the socket ``path`` hangs while the block sends it a request.

    Raise HangingError at once if an earlier request has found in the last seconds that this daemon hangs.
    """
    met, hanging = _hangs.get(path, (-math.inf, None))
    if hanging is not None and time.monotonic() - met < _KNOWN_TO_HANG:
        raise HangingError(hanging.state, "This request was not sent.", is_known=True)
    try:
        yield
    except HangingError as error:
        _hangs[path] = time.monotonic(), error
        raise


def answer_without_daemon(settings: Settings, do: str, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
    """Answer the request ``do`` without the daemon, from its database and the kernel; return the answer.

    Raise DaemonUnreachableError if there is no database.
    """
    from ringfence.guard import offline  # noqa: PLC0415 - slow to load, and only needed without the daemon

    return offline.ANSWERS[do](settings, arguments)


def answer_instead(error: DaemonUnreachableError, settings: Settings, do: str, **arguments: object) -> Any:  # noqa: ANN401 - the same
    """Answer the request ``do``, which failed with ``error``, without the daemon; return the answer.

    If the daemon hangs, print that. Raise ``error`` instead if only a daemon can answer the request, or if a
    daemon may run that has got a request that changes something, or would not notice the change.
    """
    from ringfence.guard.offline import ANSWERS, CHANGES  # noqa: PLC0415 - as above

    may_run = isinstance(error, NoAccessError | NoAnswerError)
    if do not in ANSWERS or (may_run and do in CHANGES):
        raise error
    if isinstance(error, HangingError) and not error.is_known:
        echo_stderr(error.state)
    return answer_without_daemon(settings, do, **arguments)


def ask_or_read(
    where: Path | Settings,
    do: str,
    *,
    quietly: bool = False,
    **arguments: Any,  # noqa: ANN401 - as above
) -> tuple[Any, str]:
    """Send the request ``do`` to the daemon; if no daemon answers, answer the request from its database.

    ``where`` is the configuration, or its file (see :func:`ask_daemon`, also for ``quietly``). Return the
    answer, and why the daemon could not be reached; "" if it gave the answer. Raise NoAccessError or
    NoAnswerError for a change if a daemon may run, and DaemonUnreachableError if only a daemon can answer.
    """
    try:
        if isinstance(where, Path):
            return ask_daemon(where, do, quietly=quietly, **arguments), ""
        return ask(where, do, **arguments), ""
    except DaemonUnreachableError as error:
        settings = settings_from(where) if isinstance(where, Path) else where
        return answer_instead(error, settings, do, **arguments), str(error)


def networks_from(texts: list[str]) -> list[Network]:
    """Parse addresses or networks that a user typed. End with a usage error if one of them is invalid."""
    networks: list[Network] = []
    wrong = []
    for text in texts:
        try:
            networks.append(parse_network(text))
        except ValueError as error:
            # Python's message "… does not appear to be an address" adds nothing to the text itself.
            wrong.append(repr(text) if "does not appear" in str(error) else str(error))
    if wrong:
        raise typer.BadParameter(f"not an address or network: {', '.join(wrong)}")
    return networks


def zone_from(name: str) -> tzinfo | None:
    """Return the time zone of ``--timezone``; None if the option is absent (``name`` is empty).

    End with a usage error if there is no such time zone.
    """
    try:
        return ZoneInfo(name) if name else None
    except (OSError, ValueError, LookupError):
        raise typer.BadParameter(f"{name!r} is not a time zone", param_hint="--timezone") from None
