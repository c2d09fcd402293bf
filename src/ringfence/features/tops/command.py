"""``ringfence top``: a live display, and the accounts and addresses with the most attempts."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from itertools import compress
from operator import itemgetter
from pathlib import Path
from textwrap import TextWrapper
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live

from ringfence.cli import output
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    account_cell,
    alarm_line,
    ask_daemon,
    duration_from,
    rule_cell,
)
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, errors_reported, short_time
from ringfence.cli.plain_text import cell, columns_of, has_blocks, sparkline
from ringfence.cli.screen import Screen, cropped, table_of
from ringfence.clock import format_duration
from ringfence.plurals import counted
from ringfence.values.location import area_of, column_of
from ringfence.values.text import printable

REFRESH = 1.0  # seconds between two updates of the display
_SLOW_REFRESH = 5.0  # seconds between two updates on a terminal that cannot move its cursor
_MAX_ALARMS = 3
_MOST_ROWS = 20
_SORTS = ("newest", "time left", "address")
_MOST_ACCOUNT = 20  # columns of an account on the live display
_LEAST_ACCOUNT = 8  # an account is not cut below this number of columns

_GAP = "  "
_INDENT = 10  # columns before the second line of a row
_LEAST_WIDTH = 8  # columns of an alarm: TextWrapper raises an error below those of indent and placeholder
_MOST_TEXT = 200  # characters of a cell
_ACCOUNT, _AREA = 2, 4  # where a row of cells has the account, and where its address is

View = dict[str, Any]
_Cells = tuple[str, ...]
SinceOption = Annotated[str, typer.Option("--since", metavar="TIME", help="How long ago, such as 7d.")]

top = typer.Typer(cls=HintingGroup, invoke_without_command=True, add_completion=False)


@top.callback()
def top_live(
    context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, local: output.LocalOption = False
) -> None:
    """Show attempts and bans live. Do nothing if a subcommand was given."""
    if context.invoked_subcommand is not None:
        return
    output.choose(local=local)
    with errors_reported():
        _live(config)


@top.command("accounts")
def top_accounts(
    config: ConfigOption = DEFAULT_CONFIG,
    since: SinceOption = "1d",
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the accounts with the most attempts in a period, counted by the hour."""
    _tops(config, "accounts", since, local=local, as_json=as_json)


@top.command("addresses")
def top_addresses(
    config: ConfigOption = DEFAULT_CONFIG,
    since: SinceOption = "1d",
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the addresses with the most attempts in a period, counted by the hour."""
    _tops(config, "addresses", since, local=local, as_json=as_json)


def _tops(path: Path, kind: str, since: str, *, local: bool, as_json: bool) -> None:
    output.choose(local=local)
    seconds = duration_from("--since", since)
    with errors_reported():
        rows = ask_daemon(path, "tops", kind=kind, seconds=seconds)
    if as_json:
        echo_json(rows)
    elif not rows:
        echo("There were no attempts in this time.")
    else:
        _print(kind, rows[:_MOST_ROWS])


def _print(kind: str, rows: list[dict[str, Any]]) -> None:
    name, known = ("ACCOUNT", "works here") if kind == "accounts" else ("ADDRESS", "friend")
    notes = [[known] * row["known"] + ["banned"] * row["banned"] for row in rows]
    columns = {
        name: [row["name"] for row in rows],
        "ATTEMPTS": [str(row["attempts"]) for row in rows],
        output.head("LAST HOUR"): [short_time(row["last"]) for row in rows],
        **column_of(rows),
        "NOTE": [", ".join(note) for note in notes],
    }
    table = table_of(columns, right=["ATTEMPTS"], wrapped=())
    table.columns[0].max_width = 40
    Screen().print(table)


# -- the live display -------------------------------------------------------------------------------------


def _live(path: Path) -> None:
    """Show attempts and bans, and update them, until ``q`` or Ctrl-C is pressed.

    If the output is not a terminal, print them once.
    """
    to = Screen(whole_lines=False)
    state = {"sort": _SORTS[0], "paused": ""}
    if not to.is_terminal:
        to.print(_page(ask_daemon(path, "top"), to, 24, state), soft_wrap=True)
        return
    try:
        with _keys() as pressed:
            if to.is_dumb_terminal:
                _print_frames(path, to, state, pressed)
            else:
                _draw_frames(path, to, state, pressed)
    except KeyboardInterrupt:
        return


def _draw_frames(path: Path, to: Screen, state: dict[str, str], pressed: "Keys") -> None:
    view, due = ask_daemon(path, "top"), time.monotonic() + REFRESH
    with Live(console=to, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_page(view, to, to.height, state), refresh=True)
            key = pressed.wait(max(0.0, due - time.monotonic()))
            if _handle(key, state):
                return
            if time.monotonic() >= due:
                due = time.monotonic() + REFRESH
                view = view if state["paused"] else ask_daemon(path, "top", quietly=True)


def _print_frames(path: Path, to: Screen, state: dict[str, str], pressed: "Keys") -> None:
    quietly = False  # errors of the configuration are printed with the first frame only
    while True:
        if not state["paused"]:
            view, quietly = ask_daemon(path, "top", quietly=quietly), True
            to.print(_page(view, to, to.height, state), soft_wrap=True)
        if _handle(pressed.wait(_SLOW_REFRESH), state):
            return


def _handle(key: str, state: dict[str, str]) -> bool:
    """Handle a pressed key ("" if none); return whether it ends the display.

    ``p`` pauses or continues, and ``s`` changes the order of the bans. Both change ``state``.
    """
    if key == "p":
        state["paused"] = "" if state["paused"] else "paused"
    if key == "s":
        state["sort"] = _SORTS[(_SORTS.index(state["sort"]) + 1) % len(_SORTS)]
    return key in {"q", "Q", "\x04"}


class Keys:
    """The keys that the user presses. ``descriptor`` is that of the terminal; None without a terminal."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, seconds: float) -> str:
        """Return the next key; "" if none is pressed within these seconds. At the end of input return "q"."""
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return os.read(self._descriptor, 1).decode("latin-1") or "q" if ready else ""


@contextmanager
def _keys() -> Iterator[Keys]:
    """Switch the terminal to single keys (without Enter) while the block runs, and restore it afterwards."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _has_blocks(to: Screen) -> bool:
    """Whether the terminal can show block characters, for charts."""
    return has_blocks(to.encoding) and not to.is_dumb_terminal


def _page(view: View, to: Screen, height: int, state: dict[str, str]) -> RenderableType:
    """Return the display for a screen of ``height`` lines. Lines are cut at the width of the screen.

    ``view`` and ``state`` are as in :func:`frame`.
    """
    return cropped(frame(view, to.width, height, state, blocks=_has_blocks(to)), to.width - 1)


def frame(
    view: View, width: int, height: int, state: dict[str, str], *, blocks: bool
) -> Iterator[tuple[str, str]]:
    """Yield the lines of the display, each with its style. ``width`` and ``height`` are in characters.

    ``view`` is the daemon's answer to ``top``. ``state`` has the order of the bans (``sort``, one of _SORTS),
    and ``paused``, which is "" unless the display is paused. ``blocks``: the screen shows block characters.
    """
    room = max(6, height - 1)
    lines = [*_head(view, width, height, blocks=blocks), ""]
    left = max(2, room - len(lines) - 4)  # minus two headers, a blank line and the help on keys
    bans = _aligned(_bans(view, state["sort"]), width)
    attempts = _aligned([_sender(row) for row in view["senders"]], width)
    share = max(left // 2, left - len(bans))
    shown = attempts[:share]
    lines += ["LATEST ATTEMPTS by sender", *(shown or ["none since the start"])]
    lines += ["", f"BANS by {state['sort']}", *(bans[: max(1, left - len(shown))] or ["none"])]
    lines = lines[: room - 1]
    lines += [""] * (room - 1 - len(lines))
    paused = "  PAUSED" if state["paused"] else ""
    lines.append(f"q quit  p pause  s sort{paused}")
    for number, line in enumerate(lines):
        yield line, _style(number, line)


def _style(number: int, line: str) -> str:
    """Return the style of ``line``, number ``number`` of the display: alarms are red, heads bold."""
    if line.startswith("! "):
        return "bold red"
    return "bold" if number == 0 or line.startswith(("LATEST", "BANS")) else ""


def _head(view: View, width: int, height: int, *, blocks: bool) -> list[str]:
    state = "enforcing" if view["enforcing"] else "NOTHING IS DROPPED"
    minutes = view["minutes"]
    numbers = (
        f"{counted(view['bans'], 'ban')}  {counted(view['attempts'], 'attempt')}  "
        f"{counted(view['friends'], 'friend')}"
    )
    title = f"ringfence {view['backend']}: {state}"
    clock = short_time(view["time"], seconds=True)[11:]
    whole = _GAP.join((title, numbers, clock))
    lines = [whole] if len(whole) < width else [_GAP.join((title, clock)), numbers]
    lines += _alarms(view, width, height) or ["no alarms"]
    label = f"attempts/min {minutes[-1]:5}  "
    drawn = sparkline(minutes[-max(1, min(60, width - len(label) - 12)) :], blocks=blocks)
    return [*lines, f"{label}{drawn}  most {max(minutes)}"]


def _alarms(view: View, width: int, height: int) -> list[str]:
    """Return lines with the first alarms, wrapped at words: a quarter of the screen's height, and a hint.

    A shortened alarm ends with ``…``. The hint says where the whole texts are.
    """
    shown = view["alarms"][:_MAX_ALARMS]
    most = max(1, height // 4 // max(1, len(shown)))  # lines of one alarm
    wrapper = TextWrapper(max(_LEAST_WIDTH, width - 1), subsequent_indent="!   ", break_on_hyphens=False)
    wrapper.max_lines, wrapper.placeholder = most, " …"
    lines = [line for alarm in shown for line in wrapper.wrap(printable(alarm_line(alarm)))]
    more = view["alarm_count"] - len(shown)
    if more > 0:
        lines.append(f"! and {more} more; see: ringfence alarms")
    elif any(line.endswith("…") for line in lines):
        lines.append("! the whole texts: ringfence alarms")
    return lines


def _sender(row: dict[str, Any]) -> _Cells:
    moment = short_time(row["time"], seconds=True)[11:]
    times = f"{row['times']}x" if row["times"] > 1 else ""
    what = f"{row['reason']} ({row['standing']})"
    return moment, row["subject"], account_cell(row), times, area_of(row), what


def _bans(view: View, sort: str) -> list[_Cells]:
    rows = list(view["latest_bans"])
    if sort == "time left":
        rows.sort(key=itemgetter("left"))
    elif sort == "address":
        rows.sort(key=_address_key)
    return [
        (f"{format_duration(row['left']):>8}", row["address"], account_cell(row), rule_cell(row))
        for row in rows
    ]


def _address_key(row: dict[str, Any]) -> tuple[int, int, int]:
    """Return the key by which bans are sorted by address: IP version, address and prefix length."""
    network = ip_network(row["address"])
    return network.version, int(network.network_address), network.prefixlen


def _aligned(rows: list[_Cells], width: int) -> list[str]:
    """Return a line for each row, with its cells in columns. An empty column is left out.

    If the lines are too long, accounts are cut, and then the locations are left out. The last cell of a line
    that is still too long gets a line of its own.
    """
    if not rows:
        return []
    cells = [[printable(text[:_MOST_TEXT]) for text in row] for row in rows]
    widths = [max(map(columns_of, column)) for column in zip(*cells, strict=True)]
    widths[_ACCOUNT] = min(widths[_ACCOUNT], _MOST_ACCOUNT)
    excess = _needed(widths) - (width - 1)
    widths[_ACCOUNT] = max(min(widths[_ACCOUNT], _LEAST_ACCOUNT), widths[_ACCOUNT] - max(0, excess))
    if _needed(widths) > width - 1 and len(widths) > _AREA:
        widths[_AREA] = 0
    cells = [[*compress(row, widths)] for row in cells]
    widths = [*compress(widths, widths)]
    lines = []
    for row in cells:
        *first, last = map(cell, row, widths)
        line = _GAP.join((*first, last)).rstrip()
        fits = columns_of(line) < width
        lines += [line] if fits else [_GAP.join(first).rstrip(), f"{'':{_INDENT}}{last.rstrip()}"]
    return lines


def _needed(widths: list[int]) -> int:
    """Return the width of a line whose cells have these widths, with gaps; a width of 0 means no column."""
    return sum(widths) + len(_GAP) * (sum(map(bool, widths)) - 1)
