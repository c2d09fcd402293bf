"""``ringfence check``: line by line what is right and what is not, with the mend. It changes nothing."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, ask, errors_told, settings_from
from ringfence.cli.findings import Finding
from ringfence.errors import ControlError, DaemonUnreachableError, FirewallError
from ringfence.exits import Exit

if TYPE_CHECKING:
    from ringfence.config import AsteriskSettings, Settings

_UNREACHED = "does Asterisk run, and has its manager.conf enabled = yes in [general]?"
LISTEN_FOR = 15.0
"""How long an Asterisk has to answer, log us in and show that it tells security events (seconds)."""
UNPROVEN = "who guesses over UDP at PJSIP proves no address, so his bans are of SIP over UDP alone, and short"
"""What is lost of the judgement where outgoing challenges are not seen."""

HardeningOption = Annotated[
    bool, typer.Option("--hardening", help="Say also what in this Asterisk invites attacks.")
]
FilesOption = Annotated[
    Path, typer.Option("--asterisk-files", metavar="FOLDER", help="Where Asterisk's configuration is.")
]
FILES = Path("/etc/asterisk")


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(check)


def check(
    config: ConfigOption = DEFAULT_CONFIG,
    hardening: HardeningOption = False,
    as_json: JsonOption = False,
    files: FilesOption = FILES,
) -> None:
    """Say what is right and what is not, and what mends it. Changes nothing."""
    with errors_told():
        settings = settings_from(config, secrets=True)
    findings = []
    for finding in _findings(config, settings, files, hardening=hardening):
        findings.append(finding)
        if not as_json:
            typer.echo(finding.line)
    wrong = sum(finding.right is False for finding in findings)
    if as_json:
        typer.echo(json.dumps([finding.as_json for finding in findings], indent=2))
    if wrong:
        typer.echo(f"{wrong} to mend", err=True)
        raise typer.Exit(Exit.PROBLEM)


def _findings(path: Path, settings: "Settings", files: Path, *, hardening: bool) -> Iterator[Finding]:
    import asyncio  # noqa: PLC0415 - loaded when the command runs
    import logging  # noqa: PLC0415 - loaded when the command runs

    from ringfence import log  # noqa: PLC0415 - loaded when the command runs

    log.configure(logging.CRITICAL)  # what a connection logs is what the findings say
    yield Finding(True, "configuration", str(path))
    yield from _secrecy(path)
    report, daemon = _daemon(settings)
    for pbx in settings.asterisk:
        if pbx.ami.enabled:
            yield asyncio.run(_hear(pbx))
        else:
            what = f"{pbx.name}: manager interface"
            yield Finding(None, what, "is not heard (enabled = false): the log alone tells, and later")
    yield from _asterisk(settings, report, files, hardening=hardening)
    yield asyncio.run(_wire(settings, report))
    yield from _firewall(settings, report)
    yield _logins()
    for database in settings.geo.database or ():
        if not Path(database).is_file():
            yield Finding(False, "geo", f"{database} is not there; see [geo] database")
    yield from daemon


def _firewall(settings: "Settings", report: Mapping[str, Any] | None) -> Iterator[Finding]:
    from ringfence.firewall import make_backend  # noqa: PLC0415 - loaded when the command runs

    try:
        backend = make_backend(report["firewall"]["backend"] if report else settings.firewall.backend)
    except FirewallError as error:
        yield Finding(False, "firewall", str(error))
    else:
        parts = backend.look()
        backend.close()
        for part in parts:
            yield Finding(part.lack is None, part.what, part.lack or part.note)


def _logins() -> Finding:
    """Say whether it is known who is logged in to this host, and so is never banned."""
    from ringfence.host.logins import why_no_logins  # noqa: PLC0415 - loaded when the command runs

    why = why_no_logins()
    unknown = f"{why}; whoever is logged in from elsewhere could be banned: put your own address on `allow`"
    return Finding(None, "logins", unknown) if why else Finding(True, "logins", "are known, and never banned")


def _secrecy(path: Path) -> Iterator[Finding]:
    """See who may read the secrets, where they are files: not everybody, but the unit's user."""
    from ringfence.folders import USER, may_read  # noqa: PLC0415 - loaded when the command runs

    written = [pbx.ami for pbx in settings_from(path).asterisk]  # without what was read from elsewhere
    files = [path] if any(ami.secret is not None for ami in written) else []
    files += [ami.secret_file for ami in written if ami.secret_file is not None]
    for file in dict.fromkeys([path, *files]):
        if not may_read(file):
            why = f"the unit's user, {USER}, may not read {file}, so it does not start"
            yield Finding(False, "secret", f"{why}; mend: chgrp {USER} {file}; chmod g+r {file}")
    for file in dict.fromkeys(files):
        if file.stat().st_mode & 0o007:
            yield Finding(False, "secret", f"everybody may read {file}; mend: chmod o= {file}")


async def _hear(pbx: "AsteriskSettings") -> Finding:
    """Connect as the daemon does, and see how far it comes."""
    import asyncio  # noqa: PLC0415 - loaded when the command runs

    from ringfence.sources.ami import AmiSource  # noqa: PLC0415 - loaded when the command runs
    from ringfence.sources.state import State  # noqa: PLC0415 - loaded when the command runs
    from ringfence.targets import target_of  # noqa: PLC0415 - loaded when the command runs

    source = AmiSource(target_of(pbx), lambda _events, _now: None)
    what = f"{pbx.name}: manager interface at {pbx.ami.host}:{pbx.ami.port}"
    try:
        async with asyncio.timeout(LISTEN_FOR), asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await source.settled.wait()
            task.cancel()
    except TimeoutError:
        return Finding(
            False, what, f"did not come further than {source.condition.state} in {LISTEN_FOR:.0f} s"
        )
    if source.condition.state is State.LISTENING:
        return Finding(True, what, "logged in, security events are granted")
    mend = "; " + _UNREACHED if source.condition.state is State.UNREACHABLE else ""
    return Finding(False, what, f"{source.condition.state}: {source.condition.detail}{mend}")


async def _wire(settings: "Settings", report: Mapping[str, Any] | None) -> Finding:
    """Ask the daemon whether it sees the wire; where there is none, try as it would."""
    from ringfence.report import WITHOUT_WIRE  # noqa: PLC0415 - loaded when the command runs

    if not settings.wire:
        why = f"is not looked at ([asterisk.wire] enabled): {UNPROVEN}; {WITHOUT_WIRE}"
        return Finding(None, "wire", why)
    if report is None:
        state, detail = await _bound()
    else:
        seen = next((source for source in report["sources"] if source["name"] == "wire"), None)
        state = seen["state"] if seen else "not looked at"
        detail = seen["detail"] if seen else "the daemon was started without it; mend: restart ringfence"
    if state == "listening":
        return Finding(True, "wire", detail)
    return Finding(False, "wire", f"{state}: {detail}; {UNPROVEN}; {WITHOUT_WIRE}")


async def _bound() -> tuple[str, str]:
    """Bind to the packet log as the daemon does; give how far it comes, and why no further."""
    import asyncio  # noqa: PLC0415 - loaded when the command runs

    from ringfence.sources.wire import WireSource  # noqa: PLC0415 - loaded when the command runs

    source = WireSource(lambda _challenges, _now: None, lambda _now: None)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await source.settled.wait()
        task.cancel()
    return str(source.condition.state), source.condition.detail


def _asterisk(
    settings: "Settings", report: Mapping[str, Any] | None, files: Path, *, hardening: bool
) -> Iterator[Finding]:
    """See what the logs tell, what Asterisk is set to, and whom it knows."""
    from ringfence.cli.check_asterisk import asterisk_findings  # noqa: PLC0415 - loaded when the command runs
    from ringfence.cli.check_logs import log_findings  # noqa: PLC0415 - loaded when the command runs
    from ringfence.host.asterisk import read_asterisk  # noqa: PLC0415 - loaded when the command runs

    alone = len(settings.asterisk) == 1
    # Whose files are in /etc/asterisk is not known where there are several PBXs, or this one is elsewhere.
    here = alone and _is_here(settings.asterisk[0].ami.host)
    asterisk = read_asterisk(files) if here else None
    for pbx in settings.asterisk:
        yield from log_findings(pbx, report, asterisk, alone=alone)
    yield from asterisk_findings(asterisk)
    if here:
        yield from _known(settings, report, files, hardening=hardening)
    elif hardening:
        why = "Asterisk does not run here, or is one of several: run this where its files are"
        yield Finding(None, "hardening", f"not seen: {why}")


def _known(
    settings: "Settings", report: Mapping[str, Any] | None, files: Path, *, hardening: bool
) -> Iterator[Finding]:
    """See whom this host's Asterisk knows, and what in it invites attacks."""
    from ringfence.cli.check_friends import (  # noqa: PLC0415 - loaded when the command runs
        allowed_of,
        decoy_findings,
        rights_findings,
        trunk_findings,
    )
    from ringfence.cli.check_hardening import (  # noqa: PLC0415 - loaded when the command runs
        accounts_in_force,
        hardening_findings,
    )
    from ringfence.host.console import AsteriskConsole  # noqa: PLC0415 - loaded when the command runs

    console = AsteriskConsole()
    user = str(settings.asterisk[0].ami.username)
    yield from rights_findings(files, user)
    known = allowed_of(
        settings,
        _asked(settings, "lists", side="allow") if report else None,
        _asked(settings, "friends") if report else None,
    )
    yield from trunk_findings(console, known)
    decoys = settings.rules["decoy"]
    if decoys.enabled and decoys.accounts:
        accounts = accounts_in_force(files, console).accounts
        yield from decoy_findings(decoys.accounts, (account.name for account in accounts))
    if hardening:
        yield from hardening_findings(files, console, user)


def _asked(settings: "Settings", do: str, side: str = "") -> list[Mapping[str, Any]] | None:
    """Ask the daemon for a list; None where it does not give it."""
    try:
        rows: list[Mapping[str, Any]] = ask(settings, do, side=side)
    except ControlError:
        return None
    return rows


def _is_here(host: str) -> bool:
    """Say whether an address is this host's own; no name is asked for."""
    from ipaddress import ip_address  # noqa: PLC0415 - loaded when the command runs

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _daemon(settings: "Settings") -> tuple[Mapping[str, Any] | None, list[Finding]]:
    """Ask the daemon how it is; give its report, if it gives one, and what to say of it."""
    from ringfence import control  # noqa: PLC0415 - loaded when the command runs

    try:
        report: Mapping[str, Any] = control.ask(settings.control.socket, "status")
    except DaemonUnreachableError as error:
        return None, [Finding(False, "daemon", f"{error}; where it ends by itself: journalctl -u ringfence")]
    except ControlError as error:
        return None, [Finding(False, "daemon", f"answers with an error: {error}")]
    deaf = [
        ": ".join(filter(None, [f"{s['name']} is {s['state']}", s["detail"]]))
        for s in report["sources"]
        if s["state"] != "listening"
    ]
    problems = [*report["problems"], *deaf]
    found = [Finding(False, "daemon", problem) for problem in problems]
    return report, found or [Finding(True, "daemon", "running, and hears every source")]
