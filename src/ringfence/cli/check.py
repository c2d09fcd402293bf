"""``ringfence check``: print one line for each thing checked, with the fix. It changes nothing."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from ringfence import control, street
from ringfence.alarm_codes import is_about_setup
from ringfence.cli.check_friends import allowed_of, trunk_findings
from ringfence.cli.check_logs import asterisk_findings, log_findings, unknown_findings
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, alarm_text, ask, settings_from
from ringfence.cli.options import read_options, with_options
from ringfence.cli.output import JsonOption, echo_findings, echo_json, echo_stderr, errors_reported
from ringfence.config.schema import AsteriskSettings, Settings
from ringfence.errors import ControlError, DaemonUnreachableError, Exit, FirewallError, HostError
from ringfence.findings import Finding
from ringfence.firewall import make_backend
from ringfence.firewall.ports import Ports
from ringfence.guard.process import USER, closed_to_user, configure_logging
from ringfence.guard.source_manager import target_of
from ringfence.host.asterisk_conf import FOLDER, AsteriskFiles
from ringfence.host.asterisk_logging import read_asterisk
from ringfence.host.closed import ClosedSockets
from ringfence.host.console import Console, NoConsole, local_console
from ringfence.host.hosts_file import HOSTS
from ringfence.host.listening import (
    find_foreign_proxies,
    find_named_users,
    find_proxy_sockets,
    foreign_user,
    is_here,
    read_rtp,
)
from ringfence.host.mounts import local_files
from ringfence.host.protected import why_no_logins
from ringfence.sources.ami import AmiSource
from ringfence.sources.state import WITHOUT_CLIENTS, WITHOUT_WIRE, State
from ringfence.sources.wire import WireSink, WireSource
from ringfence.values.network import format_network

_UNREACHED = "is Asterisk running, and does its manager.conf have enabled = yes in [general]?"
AMI_TIMEOUT = 15.0
"""Seconds that the check waits until it is logged in to the manager interface and gets security events."""
_NOT_HERE = "Asterisk is remote, or one of several; fix: run this command on the host of its files"
UNPROVEN = (
    "guesses over UDP at PJSIP then prove no address, so their bans are short and block only SIP over UDP"
)
"""What follows if outgoing challenges are not captured (the source "wire"), as text for a finding."""

FilesOption = Annotated[
    Path, typer.Option("--asterisk-files", metavar="FOLDER", help="Folder of Asterisk's configuration.")
]
HostsOption = Annotated[
    Path, typer.Option("--hosts", metavar="FILE", help="Names of hosts that Asterisk knows without DNS.")
]


class Checked(NamedTuple):
    """The input of the checks of features.

    ``files`` are the configuration files of the Asterisk on this host, and ``console`` is its console. With
    several Asterisks, or a remote one, ``files`` is None: it is unknown to which of them the files belong. It
    is None too if the files are only in a container, or if Asterisk reports a folder that cannot be its own.
    ``hosts`` is the file with the names of hosts. ``wishes`` are what the options of features ask for.
    ``report`` is the daemon's status; None if it does not answer.
    """

    settings: Settings
    files: AsteriskFiles | None
    console: Console
    hosts: Path
    wishes: frozenset[str] = frozenset()
    report: Mapping[str, Any] | None = None


@with_options
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    files: FilesOption = FOLDER,
    hosts: HostsOption = HOSTS,
    **options: Any,  # noqa: ANN401 - the values of options that features add
) -> None:
    """Check this installation, and suggest fixes. Changes nothing."""
    with errors_reported():
        settings = settings_from(config, secrets=True)
    here = len(settings.asterisk) == 1 and is_here(settings.asterisk[0].ami.host)
    users = [user for pbx in settings.asterisk for user in pbx.ami.server_users]
    console = local_console(files, users=users) if here else NoConsole(_NOT_HERE)
    checked = Checked(
        settings,
        local_files(console, files) if here else None,
        console,
        hosts,
        frozenset(read_options("check", options)),
    )
    findings = []
    for finding in _findings(config, checked):
        findings.append(finding)
        if not as_json:
            echo_findings(finding)
    wrong = sum(finding.right is False for finding in findings)
    if as_json:
        echo_json([finding.as_json for finding in findings])
    if wrong:
        echo_stderr(f"{wrong} to fix")
        raise typer.Exit(Exit.PROBLEM)


def _findings(path: Path, checked: Checked) -> Iterator[Finding]:
    """Yield all findings; ``path`` is the configuration."""
    settings = checked.settings
    configure_logging(logging.CRITICAL)  # errors are printed as findings: do not log them too
    yield Finding(True, "configuration", str(path))
    yield from _secret_findings(path)
    report, daemon = _daemon_findings(settings)
    for pbx in settings.asterisk:
        if pbx.ami.enabled:
            yield from asyncio.run(_ami_findings(pbx))
        else:
            what = f"{pbx.name}: manager interface"
            unused = (
                "is not used (enabled = false): attempts are seen only in the logs, and later, and no failed"
            )
            yield Finding(None, what, f"{unused} manager login can be confirmed; fix: enabled = true")
    yield from _asterisk_findings(checked, report)
    wire = asyncio.run(_wire_finding(settings, report))
    yield wire
    yield from _proxy_findings(settings, wire)
    yield from _firewall_findings(settings, report)
    yield _closed_connections()
    yield _logins()
    for feature in street.modules("check"):
        yield from feature.findings(checked._replace(report=report))
    yield from daemon


def _firewall_findings(settings: Settings, report: Mapping[str, Any] | None) -> Iterator[Finding]:
    name = report["firewall"]["backend"] if report else settings.firewall.backend
    try:
        backend = make_backend(name, settings.plan(None))
    except FirewallError as error:
        yield Finding(False, "firewall", str(error))
    else:
        requirements = backend.requirements()
        backend.close()
        for one in requirements:
            yield Finding(one.problem is None, one.name, one.problem or one.note)
    if report and not report["firewall"]["ports_known"]:
        guarded = f"UDP {', '.join(map(str, Ports().udp))} and TCP {', '.join(map(str, Ports().tcp))}"
        fix = "fix: if it has others, name all in sip_ports of [firewall]"
        yield Finding(None, "firewall", f"Asterisk's ports are not known, so {guarded} are guarded; {fix}")


def _closed_connections() -> Finding:
    """Check whether the kernel reports closed TCP connections to ringfence.

    The check opens the same netlink socket as the daemon.
    """
    closed = ClosedSockets()
    try:
        closed.open()
    except HostError as error:
        lost = "a guess that only the log reports counts only while its TCP connection is open"
        return Finding(False, "connections", f"{error}; {lost}")
    closed.close()
    what = "the kernel reports closed TCP connections of this network namespace (not of containers)"
    return Finding(True, "connections", what)


def _logins() -> Finding:
    """Check whether ringfence can read from which addresses people are logged in to this host.

    The daemon never bans these addresses.
    """
    why = why_no_logins()
    unknown = f"{why}; your own address could be banned; fix: put it on the allow list"
    return (
        Finding(None, "logins", unknown)
        if why
        else Finding(True, "logins", "addresses logged in to this host are known, and never banned")
    )


def _secret_findings(path: Path) -> Iterator[Finding]:
    """Yield a finding for each file whose mode is wrong: the configuration, and the files with secrets.

    The daemon's user must be able to read all of them. Other users must not be able to read secrets.
    """
    # settings_from() reads no secret files here. So a secret is set only if the configuration itself has it.
    settings = settings_from(path)
    secrets = [(pbx.ami.secret, pbx.ami.secret_file) for pbx in settings.asterisk]
    for table in street.settings():
        secrets += getattr(getattr(settings, table), "secrets", [])
    files = [path] if any(secret is not None for secret, _ in secrets) else []
    files += [file for _, file in secrets if file is not None]
    for file in dict.fromkeys([path, *files]):
        closed = closed_to_user(file)
        if closed is not None:
            why = f"the service cannot start: its user {USER} may not read {file}"
            fix = f"chgrp {USER} {file}; chmod g+r {file}"
            if closed != file:
                why, fix = f"{why}, because the folder {closed} is closed to it", "move it to /etc/ringfence"
            yield Finding(False, "secret", f"{why}; fix: {fix}")
    for file in dict.fromkeys(files):
        if _is_open(file):
            yield Finding(False, "secret", f"every user may read {file}; fix: chmod o= {file}")


def _is_open(file: Path) -> bool:
    """Whether every user may read a file; False for a missing one."""
    try:
        return bool(file.stat().st_mode & 0o007)
    except OSError:
        return False


async def _ami_findings(pbx: AsteriskSettings) -> list[Finding]:
    """Connect to the manager interface as the daemon does, and report the state that the connection reaches.

    If it can log in, also report the weaknesses of this connection that the daemon would find.
    """
    foreign = partial(foreign_user, users=pbx.ami.server_users)
    source = AmiSource(target_of(pbx), lambda _events, _now: None, foreign_user=foreign)
    what = f"{pbx.name}: manager interface at {pbx.ami.host}:{pbx.ami.port}"
    try:
        async with asyncio.timeout(AMI_TIMEOUT), asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await source.settled.wait()
            if source.condition.state is State.LISTENING:
                await source.http_checked.wait()
            task.cancel()
    except TimeoutError:
        detail = f"got no further than {source.condition.state} in {AMI_TIMEOUT:.0f} s"
        return [Finding(False, what, detail)]
    if source.condition.state is State.LISTENING:
        weak = [Finding(None, what, weakness) for weakness in source.weaknesses]
        return [Finding(True, what, "logged in, security events are granted"), *weak]
    hint = "; " + _UNREACHED if source.condition.state is State.UNREACHABLE else ""
    return [Finding(False, what, f"{source.condition.state}: {source.condition.detail}{hint}")]


async def _wire_finding(settings: Settings, report: Mapping[str, Any] | None) -> Finding:
    """Check whether the outgoing challenges are captured (the source "wire").

    ``report`` is the daemon's status, which contains the state of the capture. If it is None (no daemon
    answers), try to open the capture here.
    """
    if not settings.wire:
        why = f"is switched off ([asterisk.wire] enabled): {UNPROVEN}; {WITHOUT_WIRE}"
        return Finding(None, "wire", why)
    if report is None:
        state, detail = await _open_wire()
    else:
        seen = next((source for source in report["sources"] if source["name"] == "wire"), None)
        state = seen["state"] if seen else "not captured"
        detail = seen["detail"] if seen else "the daemon was started without it; fix: restart ringfence"
    if state == "listening":
        return Finding(True, "wire", detail)
    return Finding(False, "wire", f"{state}: {detail}; {UNPROVEN}; {WITHOUT_WIRE}")


def _proxy_findings(settings: Settings, wire: Finding) -> Iterator[Finding]:
    """Check for each PBX with SIP proxies whether ringfence can know the addresses of their clients.

    Only the source "wire" shows these addresses. ``wire`` is the finding about this source. There is also a
    finding for each user whose programs are named like a proxy (kamailio, opensips), but do not count.
    """
    named = find_named_users(user for pbx in settings.asterisk for user in pbx.ami.server_users)
    for user in find_foreign_proxies(named):
        why = f"a program of {user} is named so, and does not count: any user can start such a program"
        fix = "run it as the user kamailio or opensips, or name its user in server_users of [asterisk.ami]"
        yield Finding(None, "Kamailio, OpenSIPS", f"{why}; fix: {fix}; if it is not yours, stop it")
    for pbx in settings.asterisk:
        if pbx.proxies:
            what = f"{pbx.name}: proxies {', '.join(map(format_network, pbx.proxies))}"
            if not (wire.right is True and pbx.ami.enabled):
                yield Finding(False, what, WITHOUT_CLIENTS)
            elif find_proxy_sockets(named):
                yield Finding(True, what, "the wire names their clients; they are never banned themselves")
            else:
                yield Finding(False, what, "no Kamailio or OpenSIPS listens here, so no client is known")


async def _open_wire() -> tuple[str, str]:
    """Try to open the capture of outgoing challenges as the daemon does. Return its state, and the details.

    If it cannot be opened, the details are the error.
    """
    source = WireSource(WireSink())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await source.settled.wait()
        task.cancel()
    return str(source.condition.state), source.condition.detail


def _asterisk_findings(checked: Checked, report: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Check the logs of each Asterisk, and the settings and trunks of the one on this host.

    ``report`` is the daemon's status; None if the daemon does not answer.
    """
    settings = checked.settings
    asterisk = read_asterisk(checked.files) if checked.files else None
    for pbx in settings.asterisk:
        yield from log_findings(pbx, report, asterisk, alone=len(settings.asterisk) == 1)
    yield from asterisk_findings(asterisk, checked.console)
    rtp = read_rtp(checked.files) if checked.files else None
    if rtp is not None:
        yield from unknown_findings("asterisk's settings", rtp.unread)
    if checked.files or not checked.console.problem:
        known = allowed_of(
            settings,
            _list_from_daemon(settings, "lists", side="allow") if report else None,
            _list_from_daemon(settings, "friends") if report else None,
        )
        yield from trunk_findings(checked.console, known)


def _list_from_daemon(
    settings: Settings,
    do: str,
    **arguments: Any,  # noqa: ANN401 - the fields of the request
) -> list[Mapping[str, Any]] | None:
    """Send the request ``do`` to the daemon, and return its answer, a list; None if the request fails."""
    try:
        rows: list[Mapping[str, Any]] = ask(settings, do, **arguments)
    except ControlError:
        return None
    return rows


def _daemon_findings(settings: Settings) -> tuple[Mapping[str, Any] | None, list[Finding]]:
    """Ask the daemon for its status. Return the status, and the findings about the daemon.

    The status is None if the daemon does not answer, or answers with an error.
    """
    try:
        report: Mapping[str, Any] = control.ask(settings.control.socket, "status")
    except DaemonUnreachableError as error:
        return None, [
            Finding(False, "daemon", f"{error}; if it stops unexpectedly, see: journalctl -u ringfence")
        ]
    except ControlError as error:
        return None, [Finding(False, "daemon", f"answers with an error: {error}")]
    disconnected = [
        ": ".join(filter(None, [f"{s['name']} is {s['state']}", s["detail"]]))
        for s in report["sources"]
        if s["state"] != "listening"
    ]
    alarms = [alarm_text(alarm) for alarm in report["alarms"] if is_about_setup(alarm["code"])]
    found = [Finding(False, "daemon", text) for text in (*alarms, *disconnected)]
    hosts = [*report.get("pinging", ()), *report.get("guests", ())]
    named = [Finding(None, one["address"], one["text"]) for one in hosts]
    return report, [*(found or [Finding(True, "daemon", "running, and every source is connected")]), *named]
