"""``ringfence fleet``: show and test the bans that are shared with other hosts."""

from typing import Any

import typer

from ringfence.cli import output
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, ask_daemon, settings_from
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.screen import Screen, show_list
from ringfence.clock import Clock
from ringfence.errors import Exit
from ringfence.features.fleet.api import Api
from ringfence.features.fleet.channel import FleetError
from ringfence.features.fleet.rows import rows
from ringfence.features.fleet.settings import CrowdsecSettings

MOST_ROWS = 50
"""The maximum number of rows in the table of origins: those with the most decisions."""
_BEGIN = "ringfence setup --crowdsec http://127.0.0.1:8080"
"""The command by which an administrator begins to share bans if CrowdSec runs on this host."""

fleet = typer.Typer(cls=HintingGroup, no_args_is_help=True, add_completion=False)


@fleet.callback()
def group() -> None:
    """Show and test the bans that are shared with other hosts by CrowdSec's local API."""


@fleet.command("status")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the last requests to the local API, and the decisions of each origin and node."""
    output.choose(local=local)
    with errors_reported():
        report: dict[str, Any] = ask_daemon(config, "fleet")
        if as_json:
            echo_json(report)
        elif not report:
            echo(
                "No ban is shared. Hosts share their bans by CrowdSec's local API (docs/fleet.md).",
                f"To begin: {_BEGIN}",
            )
        else:
            _print(report)
        if report and (problems := _problems(report)):
            echo_stderr(*problems)
            raise typer.Exit(Exit.PROBLEM)


@fleet.command("test")
def prove(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Store a decision about a test address at the local API, look it up, and delete it."""
    with errors_reported():
        sharing = settings_from(config).of(CrowdsecSettings).sharing
        if sharing is None:
            raise FleetError(f"the configuration has no [crowdsec] url; fix: {_BEGIN}")
        Api(sharing.access, Clock()).prove()
        echo(f"ok  {sharing.access.url} stores and returns decisions of {sharing.access.machine}")


def _problems(report: dict[str, Any]) -> list[str]:
    """Return a line for each kind of request to the local API that fails."""
    ways = [way for way in ("pull", "push") if report[way]["problem"]]
    return [f"the {way} fails: {report[way]['problem']}" for way in ways]


def _print(report: dict[str, Any]) -> None:
    echo(*(f"{row.label:13}{row.text}" for row in rows(report, short_time)), indent=13)
    origins = report["origins"][:MOST_ROWS]
    if origins:
        columns = {
            "ORIGIN": [row["origin"] for row in origins],
            "NODE": [row["node"] or "unknown" for row in origins],
            "DECISIONS": [str(row["decisions"]) for row in origins],
        }
        show_list(columns, (), Screen(), right=["DECISIONS"], wrapped=["ORIGIN", "NODE"])
    if len(report["origins"]) > MOST_ROWS:
        echo(f"and {len(report['origins']) - MOST_ROWS} more: ringfence fleet status --json")
