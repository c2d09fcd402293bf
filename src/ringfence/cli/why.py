"""``ringfence why``: all that is known of an address, and what would have to happen for a ban or its end."""

import json
import time
from datetime import datetime
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    errors_told,
    fitting,
    networks_from,
    say,
    settings_from,
)
from ringfence.errors import DaemonUnreachableError
from ringfence.exits import Exit
from ringfence.spans import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

_MOST = 20
"""So many attempts are shown, the last ones."""

_LABEL, _ACCOUNT = 10, 40  # columns
_WITNESSES = "ami log notice journal wire"
_ROLLS = {"allow": "never drops it", "deny": "drops all it sends", "friends": "does not limit it"}
_SPARED: "tuple[frozenset[str], ...]" = (
    frozenset(),
    frozenset({"date"}),
    frozenset({"date", "BY"}),
    frozenset({"date", "BY", "TOLD BY"}),
)
"""What goes where a line has no room for everything, until it fits."""

Document = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(why)


def why(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="An address, or a network.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say who an address is, what it did, and what would end its ban or bring one."""
    [network] = networks_from([address])
    with errors_told():
        try:
            found = ask_daemon(config, "why", network=str(network))
        except DaemonUnreachableError:
            found = _without_daemon(config, address)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print(found)
    if not found["daemon"]:
        say("The daemon is not running: what it remembers of attempts, and how near rules are, is not known.")
    for problem in found["problems"]:
        say(problem)
    if found["problems"]:
        raise typer.Exit(Exit.PROBLEM)


def _without_daemon(path: Path, address: str) -> Document:
    from ringfence.why.alone import without_daemon  # noqa: PLC0415 - loaded when the command runs

    [network] = networks_from([address])
    return without_daemon(settings_from(path), network, time.time())


def _print(found: Document) -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    console = Console(highlight=False)
    out = found["verdict"] in {"banned", "denied"}
    console.print(Text(_headline(found), style="bold red" if out else "bold"), soft_wrap=True)
    for alarm in found["alarms"]:
        again = f" ({alarm['times']} times)" if alarm["times"] > 1 else ""
        text = f"! {alarm['name']} {alarm['subject']}: {alarm['text']}{again}"
        console.print(Text(text, style="bold red"), soft_wrap=True)
    console.print()
    for label, text in _lines(found):
        lines = wrap(text, console.width - _LABEL, break_on_hyphens=False)
        console.print(Text(f"{label:{_LABEL}}" + f"\n{'':{_LABEL}}".join(lines)), soft_wrap=True)
    _print_tables(console, found)


def _print_tables(console: "Console", found: Document) -> None:
    if found["attempts"]:
        console.print()
        last = found["attempts"][-_MOST:]
        console.print(fitting((_attempts(last, spared) for spared in _SPARED), console))
        earlier = len(found["attempts"]) - _MOST
        if earlier > 0:
            console.print(f"{earlier} more before these: --json")
    # Where a friend lives the rule about networks leads to nothing.
    counted = [
        rule for rule in found["rules"] if rule["have"] and not (found["spared"] and rule["by"] == "prefix")
    ]
    if counted:
        console.print()
        console.print(_rules(counted))


def _headline(found: Document) -> str:
    address, verdict = found["address"], found["verdict"]
    if verdict == "off":
        return f"{address}: nothing is dropped, since enforcement is switched off"
    if verdict == "banned" and not any(ban["in_kernel"] for ban in found["bans"]):
        return f"{address} is to be banned, and the kernel does not have it"
    if verdict == "banned" and all(ban["scope"] != "full" for ban in found["bans"]):
        return f"{address} is banned from the SIP ports by UDP"
    said = {"friend": "is a friend", "stranger": "is not banned", "protected": "is never banned by a rule"}
    return f"{address} {said.get(verdict, f'is {verdict}')}"


def _lines(found: Document) -> "Iterator[tuple[str, str]]":
    """Give what is known but for the attempts, each with what it is about."""
    if found["subject"] != found["address"]:
        yield "counted", f"as {found['subject']}"
    yield from (("ban", _ban(ban, found)) for ban in found["bans"])
    yield from (("list", _entry(entry)) for entry in found["lists"])
    yield from (("host", f"{own['network']} is {own['why']}") for own in found["protected"])
    yield from _friends(found)
    out = found["verdict"] in {"banned", "denied"}  # then no limit matters
    rolls = [name for name, there in found["rolls"].items() if there and not (out and name == "friends")]
    if rolls:
        yield "kernel", ", ".join(_ROLLS[name] for name in rolls)
    yield from (("before", _past(ban, found)) for ban in found["past"][:_MOST])
    yield from (("next", sentence) for sentence in found["outlook"])


def _friends(found: Document) -> "Iterator[tuple[str, str]]":
    for friend in found["friends"]:
        how = friend["tie"] if friend["proven"] else f"{friend['tie']}, by its own word"
        lasts = f"since {_short(friend['since'])}, seen {_short(friend['seen'])}"
        yield "friend", f"{friend['account']} ({how}) {lasts}, until {_short(friend['until'])}"
    if not found["friends"]:
        yield "friend", "no"
    for friend in found["former"]:
        yield "was", f"{friend['account']} ({friend['tie']}) until {_short(friend['until'])}"


def _ban(ban: Document, found: Document) -> str:
    parts = [_by(ban, found)]
    if ban["attempts"]:
        parts.append(f"of {ban['attempts']} attempts {ban['proven']} proven")
    if ban["since"]:
        parts.append(f"since {_short(ban['since'])}")
    if ban["in_kernel"]:
        left = "no end" if ban["timeout"] is None else f"{span(ban['timeout'])} left in the kernel"
        dropped = "1 packet" if ban["packets"] == 1 else f"{ban['packets']} packets"
        parts += [left, f"{dropped} dropped"]
    else:
        parts.append("the kernel does not have it")
    return "; ".join(parts)


def _by(ban: Document, found: Document) -> str:
    whose = "" if ban["network"] == found["address"] else f" of {ban['network']}"
    number = f", {ban['offence']}. ban" if (ban["offence"] or 0) > 1 else ""
    scope = "" if ban["scope"] == "full" else f" ({ban['scope']})"
    reason = f", {ban['reason']}" if ban["reason"] else ""
    return f"{ban['rule'] or 'nobody knows why'}{scope}{whose}{number}{reason}"


def _past(ban: Document, found: Document) -> str:
    end = f"lifted {_short(ban['lifted'])}" if ban["lifted"] else f"until {_short(ban['expires'])}"
    return f"{_by(ban, found)}; since {_short(ban['since'])}, {end}"


def _entry(entry: Document) -> str:
    leads = "" if entry["network"] == entry["entry"] else f" ({entry['network']})"
    forced = ", forced" if entry["forced"] else ""
    ends = f", until {_short(entry['ends'])}" if entry["ends"] else ""
    note = f", {entry['note']}" if entry["note"] else ""
    return f"{entry['side']}: {entry['entry']}{leads}{note}, from {entry['source']}{forced}{ends}"


def _attempts(attempts: list[Document], spared: frozenset[str]) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    columns = {
        "TIME (UTC)": [
            _short(one["time"], seconds=True)[11 if "date" in spared else 0 :] for one in attempts
        ],
        "ADDRESS": [one["address"] for one in attempts],
        "KIND": [one["kind"] for one in attempts],
        "ACCOUNT": [one["account"][:_ACCOUNT] for one in attempts],
        "BY": [f"{one['service']} {one['transport']}" for one in attempts],
        "PROOF": [one["proof"] for one in attempts],
        "TOLD BY": [_told_by(one) for one in attempts],
        "NOTE": [_note(one) for one in attempts],
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = []
    for head, cells in columns.items():
        # What is the same everywhere would take the room of what is not.
        alike = head == "ADDRESS" and len(set(cells)) == 1
        if alike or head in spared or (head in {"KIND", "NOTE"} and not _tells(cells)):
            continue
        table.add_column(head, no_wrap=head not in {"ACCOUNT", "NOTE"}, overflow="ellipsis")
        shown.append(cells)
    for row in zip(*shown, strict=True):
        table.add_row(*map(Text, row))
    return table


def _tells(cells: list[str]) -> bool:
    return bool(set(cells) - {"guess", ""})


def _told_by(attempt: Document) -> str:
    names = ["notice" if one.endswith("#notice") else one.partition(":")[0] for one in attempt["sources"]]
    return "+".join(sorted(set(names), key=_WITNESSES.find)) or "?"


def _note(attempt: Document) -> str:
    notes = ["banned"] if attempt["ban"] else []
    notes += ["tampered"] if attempt["tampered"] else []
    notes += [] if attempt["trusted"] else ["withheld"]
    notes += [f"aimed at {attempt['aimed_at']}"] if attempt["aimed_at"] else []
    return ", ".join(notes)


def _rules(rules: list[Document]) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("RULE", "COUNTED", "PROVEN", "WITHIN", "ONE LESS IN"):
        table.add_column(name, justify="right" if name in {"COUNTED", "PROVEN"} else "left")
    for rule in rules:
        left = span(datetime.fromisoformat(rule["ends"]).timestamp() - time.time()) if rule["ends"] else ""
        of = f"{rule['have']} of {rule['of']}" if rule["of"] else f"{rule['have']}, never"
        whose = " (of its network)" if rule["by"] == "prefix" else ""
        table.add_row(rule["rule"] + whose, of, str(rule["proven"]), span(rule["window"]), left)
    return table


def _short(moment: str | None, *, seconds: bool = False) -> str:
    return (moment or "?").replace("T", " ").removesuffix("Z")[: 19 if seconds else 16]
