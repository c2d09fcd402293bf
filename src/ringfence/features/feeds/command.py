"""``ringfence feeds``: show, add, refresh and remove block lists of others."""

import os
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any

import typer
from attrs import evolve

from ringfence.cli import output
from ringfence.cli.check_friends import allowed_of, denied_trunks, trunks_from
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask_about,
    ask_daemon,
    ask_or_read,
    settings_from,
)
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.screen import Screen, show_list
from ringfence.config import loader
from ringfence.config.converters import read_secret
from ringfence.errors import ConfigError, DaemonUnreachableError, Exit, ListError
from ringfence.features.feeds.formats import FeedFormat
from ringfence.features.feeds.plan import FetchError, PlannedFeed, encode_plan
from ringfence.features.feeds.settings import PRESETS, SETTLED, TABLE, FeedSettings, feed_table, without_feed
from ringfence.host.asterisk_conf import FOLDER
from ringfence.host.console import local_console
from ringfence.host.file_changes import FileState, file_state, write_file
from ringfence.values.network import format_network
from ringfence.values.text import printable

feeds = typer.Typer(cls=HintingGroup, no_args_is_help=True, add_completion=False)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of a feed, as `list` shows it.")]
_OPTIONAL = ("TAKEN", "FROM", "LEFT OUT")
"""Columns that are left out one after the other, in this order, until the table fits the screen."""
_PATIENCE = 2 * SETTLED  # seconds in which the daemon reads a file that is at rest
_POLL = 0.2
_RESTART = "to fetch it: systemctl enable ringfence-feeds, and systemctl restart ringfence-feeds"


@feeds.command("list")
def show(
    config: ConfigOption = DEFAULT_CONFIG,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the feeds, and how many networks each denies."""
    output.choose(local=local)
    with errors_reported():
        rows, absent = ask_or_read(config, "feeds")
        if as_json:
            echo_json(rows)
        else:
            _print(rows)
        if absent:
            echo_stderr("The daemon does not answer: these are the last lists that it took over.")


@feeds.command("add")
def add(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A known feed, or the name of a new one with --file; default: list the known ones.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A block list in a file of yours.")
    ] = None,
    layout: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="How the file is written: plain, json or csv.")
    ] = FeedFormat.PLAIN.value,
    key: Annotated[
        str,
        typer.Option(
            "--key", metavar="KEY", help="The JSON key, or the column of a CSV file, of the addresses."
        ),
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Add a known feed, or a block list in a file, to the configuration, and reload."""
    if file is None and (key or layout != FeedFormat.PLAIN):
        raise typer.BadParameter("--format and --key need --file")
    if file is not None:
        if name is None:
            raise typer.BadParameter("--file needs a name for the feed")
        with errors_reported():
            _add_file(config, name, file, {"format": layout} | ({"key": key} if key else {}))
    elif name is None:
        for known, preset in PRESETS.items():
            echo(f"{known}: {preset.keys['url']}", f"  {preset.terms}", indent=0)
    else:
        with errors_reported():
            _add_preset(config, name)


def _add_preset(config: Path, name: str) -> None:
    """Add the known block list ``name`` to the configuration; raise ListError for an unknown name."""
    if name not in PRESETS:
        names = ", ".join(PRESETS)
        raise ListError(
            f"no feed is known by this name; known are: {names}; fix: name the file of a list with --file, "
            "or write [[feeds]] by hand"
        )
    preset = PRESETS[name]
    _add(config, {"name": name, **preset.keys}, preset.terms)
    echo(f"{name}: {preset.terms}")
    echo_stderr(_RESTART)
    _reload(config)


def _add_file(config: Path, name: str, file: Path, keys: Mapping[str, str]) -> None:
    """Add the block list ``file`` to the configuration, and print the result; ListError if it is missing."""
    path = file.absolute()
    wanted = {"name": name, "file": str(path), **keys}
    if not all(text.isprintable() for text in wanted.values()):
        raise ListError("a name, path or key must be printable; fix: rename it")
    if not os.path.isfile(path):  # noqa: PTH113 - False also if it may not be known
        raise ListError(f"{path}: there is no such file; fix: write the list there first")
    _add(config, wanted)
    _reload(config)
    until = time.monotonic() + _PATIENCE
    while True:
        rows = [row for row in ask_daemon(config, "feeds_refresh") if row["name"] == name]
        waiting = any(row["state"] == "waiting" and not row["problem"] for row in rows)
        if not waiting or time.monotonic() > until:
            break
        time.sleep(_POLL)
    if waiting:
        echo_stderr(f"{path} is being written; the daemon reads it when it is at rest for {SETTLED:.0f} s")
    _show_result(config, rows)


def _add(config: Path, keys: Mapping[str, str], comment: str = "") -> None:
    """Add a table ``[[feeds]]`` with ``keys`` to the configuration; raise ListError if the name is taken."""
    state, text = _configuration(config)
    if any(feed.name == keys["name"] for feed in settings_from(config).of(TABLE)):
        raise ListError(f"{keys['name']} is already in {config}")
    _write(config, state, feed_table(text, keys, comment))


@feeds.command("remove")
def remove(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove a feed from the configuration, and reload. Its networks are no longer denied."""
    with errors_reported():
        state, text = _configuration(config)
        if all(feed.name != name for feed in settings_from(config).of(TABLE)):
            raise ListError(f"{config} has no feed {printable(name)}")
        shorter = without_feed(text, name)
        if shorter is None:
            raise ListError(f"{config} writes the feed in another way; fix: remove its [[feeds]] by hand")
        _write(config, state, shorter)
        _reload(config)


@feeds.command("refresh")
def refresh(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Feeds whose size --force accepts.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    force: Annotated[
        bool, typer.Option("--force", help="Accept any size of their lists up to max_bans.")
    ] = False,
) -> None:
    """Make the daemon read the files of all feeds now, and show the feeds."""
    if force and not names:
        raise typer.BadParameter("--force needs the names of feeds")
    with errors_reported():
        wanted: dict[str, Any] = {"names": names} if names else {}
        rows = ask_daemon(config, "feeds_refresh", force=force, **wanted)
        _show_result(config, rows)


def _show_result(config: Path, rows: list[dict[str, Any]]) -> None:
    """Print feeds after a change, with the trunks that they deny; exit with an error if one has a problem."""
    _print(rows)
    echo_stderr(*_denied_trunks(config))
    if any(row["problem"] for row in rows):
        raise typer.Exit(Exit.PROBLEM)


def _denied_trunks(config: Path) -> Iterator[str]:
    """Yield a line for each trunk that Asterisk knows by its address, and of which a feed denies a part."""
    console = local_console(FOLDER)
    wanted = [str(trunk.network) for trunk in trunks_from(console) if trunk.network.prefixlen]
    denied: set[str] = set()
    for rows in ask_about(config, "feeds", wanted):
        denied |= {network for row in rows for network in row["denies"]}
    if denied:
        rows, friends = ask_daemon(config, "lists", quietly=True, side="allow"), ask_daemon(config, "friends")
        allowed = allowed_of(settings_from(config), rows, friends)
        yield from denied_trunks(console, lambda network: format_network(network) in denied, allowed)


@feeds.command("plan")
def write_plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The plan; its folder's owner gets it.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write the plan of `feeds fetch`, with the keys for servers (for systemd, as root)."""
    with errors_reported():
        plan = encode_plan(_planned(settings_from(config).of(TABLE)))
        try:
            _hand_over(file, plan)
        except OSError as error:
            raise FetchError(f"{file}: cannot be written: {error.strerror}") from None


def _planned(configured: Iterable[FeedSettings]) -> Iterator[PlannedFeed]:
    """Yield the feeds of the configuration that are fetched. Print why a feed's key cannot be read."""
    for at, feed in enumerate(configured):
        if feed.url is None:
            continue
        try:
            key = read_secret(feed.key_file, f"feeds[{at}].key_file").reveal() if feed.key_file else ""
        except ValueError as error:
            echo_stderr(str(error))
            continue
        yield PlannedFeed(feed.name, feed.url.reveal(), feed.path, feed.every, feed.format, key)


def _hand_over(path: Path, content: bytes) -> None:
    """Write a file that only the owner of its folder can read; raise OSError.

    The owner of the folder may have put anything there. So the file is a new one, and no link is followed.
    """
    owner = path.parent.stat()
    partial = path.with_name(f".{token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as new:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
        new.write(content)
    partial.replace(path)


@feeds.command("fetch")
def fetch(
    plan: Annotated[Path, typer.Argument(metavar="FILE", help="The file that `feeds plan` wrote.")],
) -> None:
    """Fetch the lists of a plan until stopped (for systemd)."""
    from ringfence.features.feeds.fetcher import run  # noqa: PLC0415 - only this command needs TLS

    with errors_reported():
        run(plan)


def _configuration(path: Path) -> tuple[FileState, str]:
    """Return the state of the configuration file, and its text; raise RingfenceError if it is unreadable."""
    state = file_state(path)
    if state is None:
        raise ConfigError(str(path), ["there is no such file"])
    try:
        return state, state.content.decode()
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["is not UTF-8; fix: save it as UTF-8"]) from None


def _write(path: Path, state: FileState, text: str) -> None:
    """Write ``text`` as the configuration file; raise RingfenceError, and write nothing, if it is wrong."""
    try:
        tree = tomllib.loads(text)
    except ValueError:  # such as `feeds = []`, to which no table can be added
        raise ListError(f"{path} writes the feeds in another way; fix: write [[feeds]] by hand") from None
    loader.parse(tree, str(path), secrets=False)
    write_file(path, evolve(state, content=text.encode()))


def _reload(path: Path) -> None:
    try:
        answer = ask_daemon(path, "reload", quietly=True)
    except DaemonUnreachableError as error:
        echo_stderr(f"this takes effect when the daemon starts: {error}")
        raise typer.Exit(Exit.UNREACHABLE) from None
    if answer["refused"]:
        raise ConfigError(answer["where"], answer["refused"])


def _print(rows: list[dict[str, Any]]) -> None:
    to = Screen()
    if not rows:
        to.show("There is no feed. A feed is a block list of others: ringfence denies its networks.")
        to.show("To begin, list the known ones: ringfence feeds add")
        return
    columns = {
        "NAME": [row["name"] for row in rows],
        "STATE": [row["state"] for row in rows],
        "NETWORKS": [str(row["networks"]) for row in rows],
        "LEFT OUT": [str(row["left_out"]) for row in rows],
        "CHECKED": [short_time(row["checked"], "never") for row in rows],
        "TAKEN": [short_time(row["taken"], "never") for row in rows],
        "FROM": [printable(row["source"]) for row in rows],
    }
    show_list(columns, _OPTIONAL, to, right=["NETWORKS", "LEFT OUT"], wrapped=["FROM"])
    for row in rows:
        if row["left_out_named"]:
            more = ", ..." if row["left_out"] > len(row["left_out_named"]) else ""
            echo_stderr(f"{row['name']} leaves out: {', '.join(row['left_out_named'])}{more}")
        if row["problem"]:
            echo_stderr(f"{row['name']}: {row['problem']}")
