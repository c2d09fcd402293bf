"""``ringfence status``: show the state of the daemon."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from ringfence import street
from ringfence.alarm_codes import AlarmCode
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, alarm_line, ask_daemon, print_config_errors
from ringfence.cli.output import JsonOption, echo_json, errors_reported
from ringfence.cli.screen import Screen, table_of
from ringfence.plurals import counted
from ringfence.values.location import column_of

_MAX_OF_ONE_CODE = 5
"""The maximum number of alarms with the same code that are shown."""
_LABEL = 10
"""The width (columns) of the label at the beginning of each line, such as ``bans``."""
_MIN_ACCOUNTS = 20
"""The minimum width (columns) of the column ACCOUNTS."""
_OPTIONAL_COLUMNS = ("PROOF", "STATUS", "COUNTRY")
"""Columns that are left out one after the other, in this order, until the table fits the screen."""
UNTIL_KNOWN = " until friends are known"


def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show alarms, sources, attempts, bans, and addresses near a ban."""
    with errors_reported():
        report = ask_daemon(config, "status", quietly=True)
        if not any(alarm["code"] == AlarmCode.CONFIGURATION_REFUSED for alarm in report["alarms"]):
            print_config_errors(config)
    if as_json:
        echo_json(report)
        return
    _print(report)


def _print(report: dict[str, Any]) -> None:
    screen = Screen()
    for line in _alarms(report["alarms"], report["alarm_counts"]):
        screen.show(line, style="bold red", indent=2)
    firewall = report["firewall"]
    guarded = ", ".join(f"IPv{version} {how}" for version, how in firewall["families"].items())
    verified = "verified" if firewall["verified"] else "not verified"
    state = f"enforcing, {verified}" + (f" ({guarded})" if guarded else "")
    if not firewall["enforcing"]:  # the test with packets at the start means nothing now
        state = "nothing is dropped"
    screen.show(f"firewall  {firewall['backend']}: {state}", indent=_LABEL)
    for line in _untested(firewall["untried"] if firewall["enforcing"] else ()):
        screen.show(line, indent=_LABEL)
    for source in report["sources"]:
        good = source["state"] == "listening"
        condition = f"{source['state']}, {counted(source['events'], 'event')}"
        if source.get("standing_by"):
            condition += f", security lines in standby ({source['skipped']} skipped)"
        # The name of a log ends with its path, which is also its detail. It is printed once.
        redundant = good and source["name"].endswith(source["detail"])
        line = f"source    {source['name']}: {condition}" + ("" if redundant else f"  {source['detail']}")
        screen.show(line, style="" if good else "bold red", indent=_LABEL)
    if report["proxies"]:
        proxies = ", ".join(report["proxies"])
        screen.show(f"proxies   {proxies}: never banned, only their clients", indent=_LABEL)
    for gap in report["unseen"]:
        screen.show(f"not seen  {gap}", indent=_LABEL)
    screen.show(
        f"attempts  {report['attempts']} ({report['unconfirmed']} unconfirmed, {report['late']} late, "
        f"{report['exempt']} exempt)",
        indent=_LABEL,
    )
    screen.show(
        f"evasion   {report['tampered']} tampered, {report['hidden']} hidden, {report['forged']} forged",
        indent=_LABEL,
    )
    _print_counts(screen, report)
    if report["watched"]:
        screen.show()
        screen.print(_watched(report["watched"], screen.width))


def _alarms(alarms: list[dict[str, Any]], counts: Mapping[str, int]) -> list[str]:
    """Return a line for each alarm, but at most _MAX_OF_ONE_CODE for one code.

    ``counts`` has the number of alarms of each code, because ``alarms`` may lack some. The alarm that all
    phones fail comes first.
    """
    by_code: dict[str, list[dict[str, Any]]] = {}
    for alarm in sorted(alarms, key=lambda alarm: bool(alarm["code"] != AlarmCode.PHONES_ALL_FAILING)):
        by_code.setdefault(alarm["code"], []).append(alarm)
    lines: list[str] = []
    for code, same_code in by_code.items():
        lines += map(alarm_line, same_code[:_MAX_OF_ONE_CODE])
        more = counts.get(code, 0) - _MAX_OF_ONE_CODE
        if more > 0:
            lines.append(f"! {code}: and {more} more; see: ringfence alarms")
    return lines


def _untested(checks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield lines about the parts of the firewall's test that were impossible, each with the reason.

    In this test (the *probe*), the daemon bans an address for a moment at its start, and checks that packets
    from and to it are dropped. ``checks`` are the impossible parts, by IP version and direction.
    """
    directions: dict[tuple[int, str], list[str]] = {}
    for check in checks:
        directions.setdefault((check["version"], check["why"]), []).append(check["direction"])
    for (version, why), directions_of_ban in directions.items():
        yield f"probe     IPv{version} {' and '.join(directions_of_ban)} banned addresses: {why}"


def _print_counts(screen: Screen, report: dict[str, Any]) -> None:
    firewall = report["firewall"]
    short = report["enforced"] < report["expected"]
    verb = "would be in force" if firewall["backend"] == "memory" else "in force"
    in_force = f"{report['enforced']} of {report['expected']} {verb}"
    bans = f"bans      {in_force}, {report['placed']} placed since the start"
    screen.show(bans, style="bold red" if short else "", indent=_LABEL)
    rules = report["rules"]
    off = f" ({', '.join(rules['off'])} off)" if rules["off"] else ""
    decoys = f", {counted(len(rules['decoys']), 'decoy')}"
    on = f"{len(rules['on'])} of {len(rules['on']) + len(rules['off'])} on"
    screen.show(f"rules     {on}{off}{decoys}", indent=_LABEL)
    screen.show(f"friends   {counted(report['friends'], 'address', 'addresses')}")
    for module in street.modules("status"):
        for line, good in module.lines(report):
            screen.show(line, style="" if good else "bold red", indent=_LABEL)
    if firewall["repaired"]:
        restored = counted(firewall["restored"], "ban")
        screen.show(f"repaired  {counted(firewall['repaired'], 'time')}, {restored} restored")
    for use in firewall["rules"]:
        if use["packets"]:
            traffic = f"{counted(use['packets'], 'packet')}, {counted(use['bytes'], 'byte')}"
            screen.show(f"dropped   {use['rule']}: {traffic}", indent=_LABEL)


def limit_lines(
    report: Mapping[str, Any], name: str, packets: str, over: str, *, waits: bool = False
) -> Iterator[tuple[str, bool]]:
    """Yield the status line of a limit on packets in the kernel, with True (all is well), unless it is off.

    ``name`` is the key of the limit's mode in the status ``report``, ``packets`` how many packets exceeded
    it, as text, and ``over`` the words for these packets. With ``waits``, the line shows that the limit drops
    nothing until the friends are known.
    """
    firewall = report["firewall"]
    mode = firewall[name]
    if mode != "off" and firewall["enforcing"]:
        verb = "dropped" if mode == "enforce" else f"{over}, but passed"
        yield f"{name:10}{mode}{UNTIL_KNOWN if waits else ''}: {packets} {verb}", True


def _count(entry: dict[str, Any]) -> str:
    """Return how many attempts of an address count towards a ban, and how many it needs (``3 of 5``).

    Unconfirmed attempts lead to no ban, so only their number is returned.
    """
    if entry["standing"] == "unconfirmed":
        return f"{entry['attempts']} unconfirmed"
    return f"{entry['have']} of {entry['of']}"


def _watched(entries: list[dict[str, Any]], width: int) -> Table:
    """Return the table of addresses near a ban, without optional columns that do not fit into ``width``."""
    columns = {
        "WATCHED": [entry["address"] for entry in entries],
        "ATTEMPTS": [_count(entry) for entry in entries],
        "STATUS": [entry["standing"] for entry in entries],
        "PROOF": [entry["proof"] for entry in entries],
        **column_of(entries),
    }
    optional = [*_OPTIONAL_COLUMNS]
    while (
        room := width - sum(max(map(len, (name, *columns[name]))) + 2 for name in columns)
    ) < _MIN_ACCOUNTS:
        if not optional:
            break
        columns.pop(optional.pop(0), None)
    columns["ACCOUNTS"] = [", ".join(entry["accounts"]) for entry in entries]
    table = table_of(columns, right=["ATTEMPTS"], wrapped=())
    table.columns[-1].max_width = max(room, _MIN_ACCOUNTS)
    return table
