"""``ringfence fence``: show the fence, start it as a trial, keep it, and admit a person on the road."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from ringfence.cli import output
from ringfence.cli.check_friends import trunks_from, unchecked
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    ask_about,
    ask_daemon,
    duration_from,
    print_friends,
)
from ringfence.cli.groups import HintingGroup
from ringfence.cli.output import JsonOption, echo, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.page import DEFAULT_LOGINS, LoginsOption, ask_page
from ringfence.cli.screen import Screen, show_list
from ringfence.clock import format_duration
from ringfence.errors import Exit, StartError, WebError
from ringfence.features.fence.rows import rows
from ringfence.guard.trial_end import start_trial_end
from ringfence.host.asterisk_conf import FOLDER
from ringfence.host.console import Console, local_console
from ringfence.values.network import format_network
from ringfence.values.text import printable

_LABEL = 10
"""The width (columns) of the label at the beginning of each line."""
_OFF = (
    "A fence admits only friends, the allow list, and the networks and countries that you name there.",
    'To begin: set mode = "observe" in [fence], then: ringfence reload',
)
"""The purpose of the fence, and the command to begin, while it is off."""

fence = typer.Typer(cls=HintingGroup, no_args_is_help=True, add_completion=False)


@fence.command("status")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what the fence drops by country, and which phones and trunks are outside."""
    output.choose(local=local)
    with errors_reported():
        found, console = ask_daemon(config, "fence"), local_console(FOLDER)
        trunks = [*_trunks_outside(config, console)] if found["configured"] != "off" else []
        if as_json:
            echo_json(found | {"trunks": trunks})
        else:
            _print(found, trunks)
        if found["configured"] != "off":
            echo_stderr(*unchecked(console))


@fence.command("enforce")
def enforce(
    config: ConfigOption = DEFAULT_CONFIG,
    time: Annotated[
        str, typer.Option("--for", metavar="TIME", help="The length of the trial, such as 1h.")
    ] = "15m",
    force: Annotated[
        bool,
        typer.Option("--force", help="Start, even if it has not observed for a day, or a trunk is outside."),
    ] = False,
) -> None:
    """Start to drop packets, as a trial; it ends unless `ringfence fence confirm` is run."""
    with errors_reported():
        seconds = duration_from("--for", time)
        console = local_console(FOLDER)
        trunks = [] if force else [*_trunks_outside(config, console)]
        if trunks:
            echo_stderr(
                *trunks, "the fence would drop the calls of these trunks; fix: allow them, or use --force"
            )
            raise typer.Exit(Exit.PROBLEM)
        echo_stderr(*unchecked(console))
        answer = ask_daemon(config, "fence_enforce", seconds=seconds, force=force)
        try:
            start_trial_end(f"{__package__}.firewall", config, answer["end"])
        except StartError as error:  # the trial runs: only the daemon ends it now
            echo_stderr(str(error))
        echo_stderr(*_cut(ask_daemon(config, "fence", quietly=True)))
        echo(
            f"the fence drops packets until {short_time(answer['until'])} {output.zone()}; "
            "to keep it: ringfence fence confirm"
        )
        if answer["mode"] != "enforce":
            echo_stderr("it only counts until the friends are known")


@fence.command("confirm")
def confirm(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Keep the fence after its trial."""
    with errors_reported():
        running = ask_daemon(config, "fence_confirm")
    echo("confirmed: the fence stays" if running else "no trial is running: nothing to confirm")
    if not running:
        raise typer.Exit(Exit.PROBLEM)


@fence.command("admit")
def admit(
    what: Annotated[
        str,
        typer.Argument(metavar="ADDRESS|NAME", help="An address, a network, or a host name such as a DDNS."),
    ],
    time: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 8h.")] = "8h",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Admit an address or a host name for a time. It can still be banned."""
    with errors_reported():
        until = ask_daemon(config, "fence_admit", what=what, seconds=duration_from("--for", time))
    echo(f"{what} is admitted until {short_time(until)} {output.zone()}")


@fence.command("link")
def link(
    time: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long it admits the address, such as 8h.")
    ] = "8h",
    valid: Annotated[
        str, typer.Option("--valid", metavar="TIME", help="How long a link for one use works, at most 1d.")
    ] = "1h",
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="With --lasting: the account of the person.")
    ] = "",
    lasting: Annotated[
        bool, typer.Option("--lasting", help="The link works until `ringfence fence unlink` revokes it.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    login_socket: LoginsOption = DEFAULT_LOGINS,
) -> None:
    """Print a link that admits the address that it is opened from, once or --lasting. It needs no login."""
    if lasting is not bool(account):
        raise typer.BadParameter("use --account and --lasting together: a lasting link is that of one person")
    with errors_reported():
        seconds, usable = duration_from("--for", time), duration_from("--valid", valid)
        site = ask_page(login_socket, "site")
        if not site["sees_clients"]:
            raise WebError(
                f"the live page at {site['url']} does not see where people come from; fix: serve it by a "
                "proxy, with ringfence web --url and --client-header (docs/web.md), or: ringfence fence admit"
            )
        if lasting:
            token = ask_daemon(config, "fence_link_lasting", account=account, seconds=seconds)
            how = f"an address for {time}, each time, until: {_unlink_command(account)}"
        else:
            token = ask_daemon(config, "fence_link", seconds=seconds, valid=usable)
            how = f"one address for {time}, once, within {valid}"
        echo(f"{site['url']}/admit#{token}")
        if (port := _port_of(site["url"])) in ask_daemon(config, "fence", quietly=True)["also"]:
            echo_stderr(
                f"the page is at {port}, which is in `also` of [fence]: nobody outside can open the link"
            )
        echo_stderr(f"It admits {how}. Send it to one person only.")


@fence.command("links")
def links(
    config: ConfigOption = DEFAULT_CONFIG,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the lasting links: whose they are, when each was last opened, and what each admits now."""
    output.choose(local=local)
    with errors_reported():
        found = ask_daemon(config, "fence")
        rows = [one | {"admits": _admitted_by(one["account"], found["admitted"])} for one in found["links"]]
        if as_json:
            echo_json(rows)
        elif not rows:
            echo("no lasting links; to make one: ringfence fence link --account ACCOUNT --lasting")
        else:
            columns = {
                "ACCOUNT": [row["account"] for row in rows],
                "FOR": [format_duration(row["seconds"]) for row in rows],
                "MADE": [short_time(row["made"]) for row in rows],
                "OPENED": [short_time(row["opened"]) if row["opened"] else "never" for row in rows],
                "ADMITS NOW": [", ".join(row["admits"]) or "-" for row in rows],
            }
            show_list(columns, ("MADE",), Screen(), wrapped=["ADMITS NOW"])


@fence.command("unlink")
def unlink(
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="The account, as `fence links` shows it.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Revoke the lasting link of an account. What it admits now is admitted no longer."""
    with errors_reported():
        ended = ask_daemon(config, "fence_unlink", account=account)
        echo(*(f"{address} is not admitted by the link any more" for address in ended), "revoked")
        if ended:
            known = ask_daemon(config, "friends", quietly=True, networks=ended)
            print_friends(known, "the fence still admits it; fix: ringfence friends forget")


def _port_of(url: str) -> str:
    """Return the port of a URL as ``also`` of ``[fence]`` names it."""
    parts = urlsplit(url)
    return f"{parts.port or (443 if parts.scheme == 'https' else 80)}/tcp"


def _unlink_command(account: str) -> str:
    return shlex.join(["ringfence", "fence", "unlink", printable(account)])


def _admitted_by(account: str, admitted: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the lasting link of ``account`` admits, of the entries that are ``admitted`` now."""
    return [one["what"] for one in admitted if one["link"] == account]


def _trunks_outside(config: Path, console: Console) -> Iterator[str]:
    """Yield a line for each trunk that Asterisk knows by its address alone, and that is not allowed.

    No event shows the address of such a trunk, so it is no friend, and no mode of the fence can find it.
    """
    trunks = [one for one in trunks_from(console) if one.network.prefixlen]
    names = {format_network(one.network): one.name for one in trunks}
    for found in ask_about(config, "fence", [*names]):
        for network in found["left_out"]:
            words = ["ringfence", "allow", "add", network, "--note", printable(names[network])]
            yield f"trunk {printable(names[network])} is outside: {network}; to allow it: {shlex.join(words)}"


def _cut(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each present connection to another service that no list of the fence admits."""
    for one in found["connected"]:
        cuts = "is cut" if one["port"] in found["closed"] else "would be cut"
        state = f"outside, so it {cuts}; to admit it: ringfence fence admit {one['address']}"
        if one["needed"] is not None:
            state = f"inside only as {one['needed']}"
        yield f"{one['address']} is connected to {one['port']}: {state}"


def _print(found: Mapping[str, Any], trunks: list[str]) -> None:
    screen = Screen()
    if found["configured"] == "off":
        screen.show("mode      off: everybody reaches the SIP ports")
        for line in _OFF:
            screen.show(line)
        return
    for row in rows(found, short_time):
        screen.show(f"{row.label:10}{row.text}", style="" if row.good else "bold red", indent=_LABEL)
    countries = {"COUNTRY (LAST HOUR)": "country", "SOURCES": "sources", "PACKETS": "packets"}
    _show_table(screen, found["countries"], countries)
    outside = [row | {"since": short_time(row["since"])} for row in found["outside"]]
    visitors = {"AT OTHER SERVICES (LAST HOUR)": "address", "COUNTRY": "country", "PACKETS": "packets"}
    _show_table(screen, found["visitors"], visitors)
    for line in _cut(found):
        screen.show(line)
    columns = {"CAME FROM OUTSIDE": "account", "ADDRESS": "address", "BY": "reason", "SINCE": "since"}
    _show_table(screen, outside, columns)
    for line in trunks:
        screen.show(line)


def _show_table(screen: Screen, rows: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> None:
    """Show a table after an empty line, unless it has no rows. ``keys`` has the key of each column."""
    if rows:
        screen.show("")
        columns = {title: [str(row[key]) for row in rows] for title, key in keys.items()}
        show_list(columns, (), screen, right=["SOURCES", "PACKETS"], wrapped=["CAME FROM OUTSIDE"])
