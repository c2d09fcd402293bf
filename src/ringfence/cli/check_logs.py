"""Findings of ``ringfence check`` about Asterisk's logs: which are read, their levels, what hides attempts.

A running daemon reports which files it reads. Without a daemon, the command searches for them as the daemon
does. If root runs the command, it searches with the rights of the daemon's user. The levels of a log (such as
NOTICE) come from Asterisk's logger.conf if this can be read, otherwise from the last lines of the log.
"""

import os
import pwd
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from ringfence.config.schema import AsteriskSettings, CustomSettings
from ringfence.file_rights import as_user, user_number
from ringfence.findings import Finding
from ringfence.guard.process import USER
from ringfence.host.asterisk_logging import DUMPING, Asterisk
from ringfence.host.conf_reader import Unread
from ringfence.host.console import Console
from ringfence.host.console_tables import settings_from
from ringfence.host.owned_files import open_file
from ringfence.parse.prefix import parse_prefix
from ringfence.sources.journal import PROGRAM, UNITS
from ringfence.sources.logs import LOG_PATHS, OWN, check_paths, choose
from ringfence.sources.state import CHAN_SIP_TLS, WITHOUT_LOG

TAIL = 256 * 1024
"""The number of bytes at the end of a log in which levels are searched."""

_CHANNEL = "contrib/asterisk/ringfence.logger.conf"
"""The file with the log channel that ringfence recommends; a channel is a line of Asterisk's logger.conf."""


@frozen
class _Log:
    """A log that is read, and the levels of its messages.

    ``sure`` is True if the levels come from Asterisk's logger.conf, and False if they come from lines of the
    log.
    """

    path: Path
    levels: frozenset[str]
    sure: bool


def log_findings(
    pbx: AsteriskSettings,
    report: Mapping[str, Any] | None,
    asterisk: Asterisk | None,
    *,
    alone: bool,
    places: Sequence[Path] | None = None,
) -> Iterator[Finding]:
    """Yield findings: which logs of ``pbx`` are read, and what is wrong with them.

    ``report`` is the daemon's status, None without a daemon. ``asterisk`` has the contents of Asterisk's
    files, None if they are not on this host. ``alone``: no other PBX is configured. ``places`` are the paths
    at which a log is searched; None for the usual ones.
    """
    what = f"{pbx.name}: logs"
    if pbx.logs.paths is None and not alone:
        fix = "fix: set paths in [asterisk.logs], or paths = [] for none"
        yield Finding(False, what, f"with several [[asterisk]] sections no log is found automatically; {fix}")
    elif not pbx.logs.paths and pbx.logs.paths is not None and not pbx.logs.journal:
        yield Finding(None, what, f"no log is configured: {WITHOUT_LOG}")
    if pbx.logs.journal:
        yield _journal(pbx)
    channels = _channels(asterisk)
    logs = []
    for path, lack in _files(pbx, report, alone=alone, places=places):
        if path is None or lack:
            yield Finding(False, f"{pbx.name}: log {path}" if path else what, lack)
            continue
        log = _levels_of(path, channels)
        if channels is None or log.sure:
            yield _read_finding(pbx.name, log)
        else:
            yield _unwritten_finding(pbx.name, log)
        logs.append(log)
    if logs and asterisk is not None and all(log.sure for log in logs) and not pbx.logs.journal:
        seen = frozenset(level for log in logs for level in log.levels)
        yield from _missing_levels(pbx.name, seen, pbx.logs.custom, security=asterisk.security)


def _files(
    pbx: AsteriskSettings, report: Mapping[str, Any] | None, *, alone: bool, places: Sequence[Path] | None
) -> Iterator[tuple[Path | None, str]]:
    """Yield each log that is or should be read, with its problem; "" if it has none.

    If a log is needed and none is found, yield None as the log, and the reason as its problem. The parameters
    are those of :func:`log_findings`.
    """
    if report is not None:  # logs that are not being read appear in the findings about the daemon
        prefix = f"{pbx.name}/log:"
        sources = [source for source in report["sources"] if source["name"].startswith(prefix)]
        yield from ((Path(s["name"].removeprefix(prefix)), "") for s in sources if s["state"] == "listening")
    elif pbx.logs.paths is None and alone:
        yield from _found(places or LOG_PATHS, needed=not pbx.logs.journal)
    else:
        yield from _named(pbx.logs.paths or ())


def _named(paths: Sequence[Path]) -> Iterator[tuple[Path | None, str]]:
    with _as_daemon() as user:
        look = check_paths(paths)
    for path in paths:
        denied = f"may not be read by {user}" if path in look.forbidden else ""
        yield path, "does not exist" if path in look.absent else denied


def _found(places: Sequence[Path], *, needed: bool) -> Iterator[tuple[Path | None, str]]:
    with _as_daemon() as user:
        look = check_paths(places)
    denied = f"may not be read by {user}"
    if look.readable:
        # Only ringfence's own log must be readable for its user. Other logs may keep their permissions, so
        # it is no problem if they cannot be read.
        shut = [path for path in places[: len(OWN)] if path in look.forbidden]
        yield from ((path, denied) for path in shut if os.path.exists(path))  # noqa: PTH110 - raises nothing
        yield from ((path, "") for path in choose(look.readable, places))
    elif needed:
        why = f"{look.forbidden[0].parent} {denied}" if look.forbidden else "no log is found"
        yield (
            None,
            f"{why}; fix: add the channel of {_CHANNEL}, or set paths in [asterisk.logs] ([] for none)",
        )


@contextmanager
def _as_daemon() -> Iterator[str]:
    """Run the block with the rights of the daemon's user. Yield the name of this user.

    Only root can do this. For others, run the block with their own rights, and yield "this user".
    """
    with ExitStack() as rights:
        try:
            user = pwd.getpwnam(USER)
            groups = os.getgrouplist(USER, user.pw_gid)
            rights.enter_context(as_user(user.pw_uid, user.pw_gid, groups))
        except (KeyError, PermissionError):  # there is no such user, or this is not root
            yield "this user"
            return
        yield USER


def _journal(pbx: AsteriskSettings) -> Finding:
    what, users = f"{pbx.name}: journal", pbx.logs.journal_users
    if shutil.which(PROGRAM[0]) is None:
        return Finding(False, what, f"{PROGRAM[0]} is not installed; it is part of systemd")
    for user in users:
        if user_number(user) is None:
            fix = "fix: correct journal_users in [asterisk.logs], or make the user and restart ringfence"
            return Finding(False, what, f"this host has no user {user}; {fix}")
    own = f"; of users' units, those of {', '.join(users) or 'nobody (see journal_users)'}"
    return Finding(True, what, f"messages of {' and '.join(UNITS)}, and of such containers, are read{own}")


def _channels(asterisk: Asterisk | None) -> Mapping[str, frozenset[str]] | None:
    """Return the levels of each log file that Asterisk writes, by path (links are resolved, except a loop).

    Return None if Asterisk's files do not show this completely.
    """
    if (
        asterisk is None
        or not asterisk.channels
        or {"logger.conf", "asterisk.conf"} & {one.file for one in asterisk.unread}
    ):
        return None
    return {os.path.realpath(path): levels for path, levels in asterisk.channels.items()}


def _levels_of(path: Path, channels: Mapping[str, frozenset[str]] | None) -> _Log:
    levels = (channels or {}).get(os.path.realpath(path))
    return _Log(path, _levels_in(path), sure=False) if levels is None else _Log(path, levels, sure=True)


def _levels_in(path: Path) -> frozenset[str]:
    """Return the levels of the last lines of a log, in lower case; empty if the log cannot be read.

    A FIFO is not read: what is read of it is lost for its reader. In a folder of Asterisk's user, the log is
    opened with this user's rights, because it may be a link to a file that only root may read.
    """
    try:
        with os.fdopen(open_file(path), "rb", buffering=0) as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
            data = log.read(TAIL) or b""
    except OSError:
        return frozenset()
    prefixes = [parse_prefix(line) for line in data.split(b"\n")]
    return frozenset(prefix.level.decode().lower() for prefix in prefixes if prefix is not None)


def _read_finding(name: str, log: _Log) -> Finding:
    """Return the finding that a log is read, with its levels. ``name`` is the name of the PBX.

    Some levels (DUMPING) are reported as a weakness. Their lines may contain text of callers unchanged, so
    callers can forge lines.
    """
    what, levels = f"{name}: log {log.path}", ", ".join(sorted(log.levels))
    if not levels:
        return Finding(True, what, "is read; it does not show its levels yet")
    raw = ", ".join(sorted(log.levels & DUMPING))
    if not raw:
        return Finding(True, what, f"is read ({levels})")
    return Finding(
        None,
        what,
        f"is read ({levels}); {raw} adds raw packets: this is slower, and callers can forge "
        f"lines; fix: read the channel of {_CHANNEL} instead",
    )


def _unwritten_finding(name: str, log: _Log) -> Finding:
    """Return the finding about a log that Asterisk no longer writes: no channel of logger.conf names it.

    For ringfence's own log this is an error, because ringfence reads no other log if this one exists.
    """
    lack = (
        f"no channel of Asterisk's logger.conf writes to it; fix: add that of {_CHANNEL}, or remove the file"
    )
    return Finding(False if log.path in OWN else None, f"{name}: log {log.path}", lack)


def _missing_levels(
    name: str, seen: frozenset[str], customs: Sequence[CustomSettings], *, security: bool
) -> Iterator[Finding]:
    """Yield findings about needed levels in no log: SECURITY, NOTICE, and those of the own patterns.

    ``seen`` are the levels of all logs that are read. ``customs`` are the administrator's own patterns.
    ``security``: Asterisk loads the module that logs security events.
    """
    if "security" not in seen or not security:
        why = (
            "no log that is read contains them"
            if security
            else "res_security_log, which writes them, is not loaded"
        )
        yield Finding(
            None,
            f"{name}: security lines",
            f"{why}: guesses are not counted while AMI is disconnected",
        )
    if "notice" not in seen:
        why = "no log that is read contains them: attempts hidden from AMI are not seen"
        yield Finding(None, f"{name}: notices", why)
    for custom in customs:
        if custom.level.lower() not in seen:
            why = f"no log that is read contains the level {custom.level}"
            yield Finding(False, f"{name}: lines of your own ({custom.name})", why)


# -- findings of ``check`` about settings of Asterisk that hide attempts from all its logs


ELSEWHERE = (
    'asterisk -rx "logger show channels", asterisk -rx "pjsip show settings", and authdebug in iax.conf'
)
"""Where an administrator finds the settings that ``check`` could not read: commands and a file."""


def asterisk_findings(asterisk: Asterisk | None, console: Console) -> Iterator[Finding]:
    """Yield a finding for each setting that hides attempts; if there is none, a finding that says so.

    ``asterisk`` is None if Asterisk's files cannot be read here. In this case, and if only a part of the
    files can be read, yield a finding with the commands that show such settings to the administrator.
    """
    what = "asterisk's settings"
    if asterisk is None:
        yield Finding(None, what, f"cannot be read from here; on its host, see: {ELSEWHERE}")
        return
    if closed := ", ".join(one.text for one in asterisk.unread if one.closed):
        fix = f"fix: run this as root, or see: {ELSEWHERE}"
        yield Finding(None, what, f"not all files can be read ({closed}); {fix}")
    yield from unknown_findings(what, asterisk.unread)
    if asterisk.iax_silent:
        yield Finding(
            None,
            f"{what}: IAX2",
            "failed logins are logged nowhere; fix: authdebug = yes in iax.conf [general]",
        )
    if (gate := asterisk.gate) is not None:
        yield Finding(
            None,
            f"{what}: PJSIP",
            f"unknown callers are reported only from request {gate.count} within {gate.period} s on, "
            f"and then not at all for up to {gate.mute} s (unidentified_request_count, _period, "
            "_prune_interval); fix: remove auth_username from endpoint_identifier_order, unless needed",
        )
    if chan_sip_tls := _chan_sip_tls(asterisk, console):
        yield Finding(None, f"{what}: chan_sip", CHAN_SIP_TLS)
    if not asterisk.unread and not asterisk.iax_silent and gate is None and not chan_sip_tls:
        yield Finding(True, what, "no setting hides attempts from its logs")


def unknown_findings(what: str, unread: Iterable[Unread]) -> Iterator[Finding]:
    """Yield a finding for each part of Asterisk's files that is not understood, though it may be read.

    Asterisk refuses most of these parts too. But it may still have other settings from before, and it refuses
    the file at its next start.
    """
    for one in dict.fromkeys(unread):
        if not one.closed:
            yield Finding(False, f"{what}: {one.file}", f"{one.text}; fix: correct this, then check again")


def _chan_sip_tls(asterisk: Asterisk, console: Console) -> bool:
    """Whether chan_sip serves TLS: the console's answer, or else what sip.conf configures.

    The file decides only if the console cannot be used. A new Asterisk has no chan_sip, but often still a
    sip.conf. Its console does not know the command; then the result is False.
    """
    shown = settings_from(console.show("sip show settings") or "").get("tls sip bindaddress")
    return shown != "Disabled" if shown else bool(console.problem) and asterisk.chan_sip_tls
