"""What ``check`` says of the logs: which are read, what they carry, and what is in none of them.

Which files are read is the daemon's word where it runs. Where it does not, they are looked for as it would,
with the rights of the user that the unit runs as, if this is root. Which levels a log has is told by
Asterisk's logger.conf where that may be read, else by what is in the log.
"""

import os
import pwd
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ringfence.cli.findings import Finding

if TYPE_CHECKING:
    from ringfence.config import AsteriskSettings, CustomSettings
    from ringfence.host.asterisk import Asterisk

USER = "ringfence"
"""The user that the unit runs as."""
TAIL = 256 * 1024
"""So much of a log's end is looked at for its levels."""

_CHANNEL = "contrib/asterisk/ringfence.logger.conf"


@frozen
class _Log:
    """A log that is read, and its levels; ``sure``: by Asterisk's own files."""

    path: Path
    levels: frozenset[str]
    sure: bool


def log_findings(
    pbx: "AsteriskSettings",
    report: Mapping[str, Any] | None,
    asterisk: "Asterisk | None",
    *,
    alone: bool,
    places: Sequence[Path] | None = None,
) -> Iterator[Finding]:
    """Say what is read of ``pbx``'s logs.

    ``report`` is the daemon's status, where it runs; ``alone``: there is no other PBX.
    """
    what = f"{pbx.name}: logs"
    if pbx.logs.paths is None and not alone:
        mend = "name its paths in [asterisk.logs], or paths = [] for none"
        yield Finding(False, what, f"with several [[asterisk]] none is found by itself; {mend}")
    elif not pbx.logs.paths and pbx.logs.paths is not None and not pbx.logs.journal:
        yield Finding(None, what, "none is to be read: who hides from AMI is not seen")
    if pbx.logs.journal:
        yield _journal(pbx.name)
    channels = _channels(asterisk)
    logs = []
    for path, lack in _files(pbx, report, alone=alone, places=places):
        if path is None or lack:
            yield Finding(False, f"{pbx.name}: log {path}" if path else what, lack)
            continue
        log = _levels_of(path, channels)
        if channels is None or log.sure:
            yield _one(pbx.name, log)
        else:
            yield _orphan(pbx.name, log)
        logs.append(log)
    if logs and asterisk is not None and all(log.sure for log in logs) and not pbx.logs.journal:
        seen = frozenset(level for log in logs for level in log.levels)
        yield from _in_none(pbx.name, seen, pbx.logs.custom, security=asterisk.security)


def _files(
    pbx: "AsteriskSettings", report: Mapping[str, Any] | None, *, alone: bool, places: Sequence[Path] | None
) -> Iterator[tuple[Path | None, str]]:
    """Give each log that is to be read, with what is wrong with it; None where none is found."""
    from ringfence.sources.logs import PLACES  # noqa: PLC0415 - loaded when the command runs

    if report is not None:  # what is wrong with one stands among the daemon's problems
        prefix = f"{pbx.name}/log:"
        sources = [source for source in report["sources"] if source["name"].startswith(prefix)]
        yield from ((Path(s["name"].removeprefix(prefix)), "") for s in sources if s["state"] == "listening")
    elif pbx.logs.paths is None and alone:
        yield from _found(places or PLACES, needed=not pbx.logs.journal)
    else:
        yield from _named(pbx.logs.paths or ())


def _named(paths: Sequence[Path]) -> Iterator[tuple[Path | None, str]]:
    from ringfence.sources.logs import look_at  # noqa: PLC0415 - loaded when the command runs

    with _as_daemon() as user:
        look = look_at(paths)
    for path in paths:
        there = f"may not be read by {user}" if path in look.forbidden else ""
        yield path, "is not there" if path in look.absent else there


def _found(places: Sequence[Path], *, needed: bool) -> Iterator[tuple[Path | None, str]]:
    from ringfence.sources.logs import OWN, choose, look_at  # noqa: PLC0415 - loaded when the command runs

    with _as_daemon() as user:
        look = look_at(places)
    denied = f"may not be read by {user}"
    if look.readable:
        # The channel is there for ringfence's user; the other logs never were.
        shut = [path for path in places[: len(OWN)] if path in look.forbidden]
        yield from ((path, denied) for path in shut if os.path.exists(path))  # noqa: PTH110 - raises nothing
        yield from ((path, "") for path in choose(look.readable, places))
    elif needed:
        why = f"what is in {look.forbidden[0].parent} {denied}" if look.forbidden else "none is found"
        yield None, f"{why}; mend: the channel of {_CHANNEL}, or paths in [asterisk.logs] ([] for none)"


@contextmanager
def _as_daemon() -> Iterator[str]:
    """Have the rights of the unit's user while the block runs, where that can be; give the user's name."""
    try:
        user = pwd.getpwnam(USER)
        before, group = os.getgroups(), os.getegid()
        os.setgroups(os.getgrouplist(USER, user.pw_gid))
    except (KeyError, PermissionError):  # there is no such user, or this is not root
        yield "this user"
        return
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield USER
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(before)


def _journal(name: str) -> Finding:
    from ringfence.sources.journal import PROGRAM, UNITS  # noqa: PLC0415 - loaded when the command runs

    if shutil.which(PROGRAM[0]) is None:
        return Finding(False, f"{name}: journal", f"there is no {PROGRAM[0]}; it is part of systemd")
    return Finding(True, f"{name}: journal", f"what {' and '.join(UNITS)} say")


def _channels(asterisk: "Asterisk | None") -> Mapping[Path, frozenset[str]] | None:
    """Give what Asterisk logs to, by the files' true names; None where that is not known."""
    if asterisk is None or not asterisk.channels or {"logger.conf", "asterisk.conf"} & {*asterisk.unread}:
        return None
    return {path.resolve(): levels for path, levels in asterisk.channels.items()}


def _levels_of(path: Path, channels: Mapping[Path, frozenset[str]] | None) -> _Log:
    levels = (channels or {}).get(path.resolve())
    return _Log(path, _levels_in(path), sure=False) if levels is None else _Log(path, levels, sure=True)


def _levels_in(path: Path) -> frozenset[str]:
    """Give the levels of the lines at a log's end, in small letters; none where it may not be read."""
    from ringfence.parse.prefix import read_prefix  # noqa: PLC0415 - loaded when the command runs

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return frozenset()
    try:
        data = os.pread(descriptor, TAIL, max(0, os.fstat(descriptor).st_size - TAIL))
    except OSError:  # a FIFO has no end
        return frozenset()
    finally:
        os.close(descriptor)
    prefixes = [read_prefix(line) for line in data.split(b"\n")]
    return frozenset(prefix.level.decode().lower() for prefix in prefixes if prefix is not None)


def _one(name: str, log: _Log) -> Finding:
    """Say what a log carries."""
    from ringfence.host.asterisk import DUMPING  # noqa: PLC0415 - loaded when the command runs

    what, told = f"{name}: log {log.path}", ", ".join(sorted(log.levels))
    if not told:
        return Finding(True, what, "is read; nothing in it tells its levels yet")
    raw = ", ".join(sorted(log.levels & DUMPING))
    if not raw:
        return Finding(True, what, f"is read ({told})")
    return Finding(
        None,
        what,
        f"is read ({told}); with {raw} come packets as they were sent: that is slower, and callers can write "
        f"lines; mend: the channel of {_CHANNEL}",
    )


def _orphan(name: str, log: _Log) -> Finding:
    """Say that nobody writes to a log, by Asterisk's files; in ringfence's own place it keeps others away."""
    from ringfence.sources.logs import OWN  # noqa: PLC0415 - loaded when the command runs

    told = f"no channel of Asterisk's logger.conf writes to it; mend: that of {_CHANNEL}, or remove the file"
    return Finding(False if log.path in OWN else None, f"{name}: log {log.path}", told)


def _in_none(
    name: str, seen: frozenset[str], customs: "Sequence[CustomSettings]", *, security: bool
) -> Iterator[Finding]:
    """Say what is in no log that is read, where Asterisk's files tell for sure."""
    if "security" not in seen or not security:
        why = (
            "no log that is read has them"
            if security
            else "res_security_log is not loaded, which writes them"
        )
        yield Finding(
            None,
            f"{name}: security lines",
            f"{why}: where AMI is away, guesses go uncounted",
        )
    if "notice" not in seen:
        why = "no log that is read has them: who hides from AMI is not seen"
        yield Finding(None, f"{name}: notices", why)
    for custom in customs:
        if custom.level.lower() not in seen:
            why = f"no log that is read has the level {custom.level}"
            yield Finding(False, f"{name}: lines of your own ({custom.name})", why)
