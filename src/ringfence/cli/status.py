"""``ringfence status``: how everything is."""

import json
from typing import TYPE_CHECKING, Any

import typer

from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    counted,
    errors_told,
    say_mistakes,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


REFUSED = "the new configuration is refused"
"""So a problem begins by which the daemon itself tells of mistakes in the file."""
_ALL_FAILING = "phones.all_failing"
_OF_A_KIND = 5
"""So many alarms of one name are shown."""


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(status)


def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show what is heard, what is counted, and what is enforced."""
    with errors_told():
        report = ask_daemon(config, "status", quietly=True)
        if not any(problem.startswith(REFUSED) for problem in report["problems"]):
            say_mistakes(config)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    _print(report)


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    console = Console(highlight=False)
    for line in _alarms(report["alarms"]):
        console.print(Text(line, style="bold red"), soft_wrap=True)
    for problem in report["problems"]:
        console.print(Text(f"! {problem}", style="bold red"), soft_wrap=True)
    firewall = report["firewall"]
    guarded = ", ".join(f"IPv{version} {how}" for version, how in firewall["families"].items())
    verified = "verified" if firewall["verified"] else "not verified"
    state = f"enforcing, {verified}" + (f" ({guarded})" if guarded else "")
    if not firewall["enforcing"]:  # what once was found of rules that are not there says nothing
        state = "nothing is dropped"
    console.print(Text(f"firewall  {firewall['backend']}: {state}"))
    for source in report["sources"]:
        good = source["state"] == "listening"
        heard = f"{source['state']}, {counted(source['events'], 'event')}"
        known = good and source["name"].endswith(source["detail"])  # a log's name ends with its path
        line = f"source    {source['name']}: {heard}" + ("" if known else f"  {source['detail']}")
        console.print(Text(line, style="" if good else "bold red"), soft_wrap=True)
    console.print(
        Text(
            f"attempts  {report['attempts']} ({report['withheld']} withheld, {report['late']} late, "
            f"{report['never_banned']} never banned)\n"
            f"tricks    {report['tampered']} tampered, {report['hidden']} hidden, {report['forged']} forged"
        )
    )
    _print_firewall(console, report)
    if report["watched"]:
        console.print()
        console.print(_watched(report["watched"]))


def _alarms(alarms: list[dict[str, Any]]) -> list[str]:
    """Write the alarms; where all phones fail that comes first, and of very many of a kind only some."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for alarm in sorted(alarms, key=lambda alarm: bool(alarm["name"] != _ALL_FAILING)):
        by_name.setdefault(alarm["name"], []).append(alarm)
    lines = []
    for name, mine in by_name.items():
        for alarm in mine[:_OF_A_KIND]:
            again = f" ({alarm['times']} times)" if alarm["times"] > 1 else ""
            lines.append(f"! {name} {alarm['subject']}: {alarm['text']}{again}")
        if len(mine) > _OF_A_KIND:
            lines.append(f"! {name}: and {len(mine) - _OF_A_KIND} more; see: ringfence status --json")
    return lines


def _print_firewall(console: "Console", report: dict[str, Any]) -> None:
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    firewall = report["firewall"]
    short = report["enforced"] < report["expected"]
    verb = "would be in force" if firewall["backend"] == "memory" else "in force"
    there = f"{report['enforced']} of {report['expected']} {verb}"
    bans = f"bans      {there}, {report['placed']} placed since the start"
    console.print(Text(bans, style="bold red" if short else ""))
    rules = report["rules"]
    off = f" ({', '.join(rules['off'])} off)" if rules["off"] else ""
    decoys = f", {counted(len(rules['decoys']), 'decoy')}"
    console.print(
        Text(f"rules     {len(rules['on'])} of {len(rules['on']) + len(rules['off'])} on{off}{decoys}"),
        soft_wrap=True,
    )
    console.print(Text(f"friends   {counted(report['friends'], 'address', 'addresses')}"))
    if firewall["healed"]:
        back = counted(firewall["restored"], "ban")
        console.print(Text(f"healed    {counted(firewall['healed'], 'time')}, {back} put back"))
    if firewall["limiter"] != "off" and firewall["enforcing"]:
        verb = "dropped" if firewall["limiter"] == "enforce" else "over the limit, and let pass"
        waits = " until friends are known" if report["limiter_waits"] else ""
        console.print(
            Text(
                f"limiter   {firewall['limiter']}{waits}: {counted(report['limiter_drops'], 'packet')} {verb}"
            )
        )
    for use in firewall["rules"]:
        if use["packets"]:
            met = f"{counted(use['packets'], 'packet')}, {counted(use['bytes'], 'byte')}"
            console.print(Text(f"dropped   {use['rule']}: {met}"))


def _watched(entries: list[dict[str, Any]]) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - loaded when the command runs
    from rich.text import Text  # noqa: PLC0415 - loaded when the command runs

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("WATCHED", "ATTEMPTS", "STANDING", "PROOF", "ACCOUNTS"):
        table.add_column(name, justify="right" if name == "ATTEMPTS" else "left")
    for entry in entries:
        table.add_row(
            Text(entry["address"]),
            f"{entry['attempts']} of {entry['of']}",
            entry["standing"],
            entry["proof"],
            Text(", ".join(entry["accounts"])),
        )
    return table
