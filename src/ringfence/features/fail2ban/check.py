"""Findings of ``ringfence check`` about fail2ban, which may ban senders by Asterisk's logs.

FreePBX's "Intrusion Detection" is fail2ban with configuration files that FreePBX writes.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ringfence.cli.check import Checked
from ringfence.errors import ConfigError, error_lines
from ringfence.features.fail2ban.jails import CLIENT, DISABLING, FOLDER, read_configuration, to_disable
from ringfence.findings import Finding
from ringfence.host.processes import PROC, network_of, processes
from ringfence.values.text import printable

FREEPBX = Path("/etc/freepbx.conf")
"""A file by which a host with FreePBX is recognized: every FreePBX has it."""
_PROGRAM = "fail2ban-server"
_UNLISTED = "`ringfence bans` does not list its bans"
_FREEPBX_FIX = (
    "in FreePBX, stop Intrusion Detection (Connectivity > Firewall, or Admin > System Admin); FreePBX may "
    "start it again after an upgrade"
)


def findings(
    checked: Checked, folder: Path = FOLDER, freepbx: Path = FREEPBX, proc: Path = PROC
) -> Iterator[Finding]:
    """Yield findings about whether fail2ban guards Asterisk on this host.

    Yield nothing if fail2ban neither runs nor is installed. ``folder`` has its configuration. The
    file ``freepbx`` exists only on a host with FreePBX. ``proc`` is the folder /proc.
    """
    runs = _runs(proc)
    if not runs and not (folder.is_dir() and shutil.which(CLIENT)):
        return
    try:
        jails = read_configuration(folder).jails
    except ConfigError as error:
        why = "; ".join(line.strip() for line in error_lines(error)[0])
        yield Finding(None, "fail2ban", f"its jails are not known: {why}")
        return
    names = [jail.name for jail in jails if jail.guards_asterisk]
    if not names:
        yield Finding(True, "fail2ban", "no jail of it bans for Asterisk")
        return
    jails_text = ", ".join(map(printable, names))
    whose = f"jail {jails_text} bans" if len(names) == 1 else f"jails {jails_text} ban"
    fix = _FREEPBX_FIX if freepbx.exists() else _fix(folder, names)
    if checked.report is not None and not checked.report["firewall"]["enforcing"]:
        yield Finding(None, "fail2ban", f"its {whose} for Asterisk: keep that while ringfence drops nothing")
    elif runs:
        yield Finding(False, "fail2ban", f"its {whose} for Asterisk too, and {_UNLISTED}; fix: {fix}")
    else:
        later = f"it does not run, but when it starts, its {whose} for Asterisk too"
        yield Finding(None, "fail2ban", f"{later}; fix: {fix}")


def _fix(folder: Path, names: list[str]) -> str:
    """Return a shell command that disables the jails ``names``, also after a restart of fail2ban."""
    present = ""
    with suppress(OSError, UnicodeDecodeError):
        present = (folder / DISABLING).read_text("utf-8")
    text = "".join(rf"[{printable(name)}]\nenabled = false\n" for name in to_disable(present, names))
    return f"printf '{text}' > {FOLDER / DISABLING}; fail2ban-client reload"


def _runs(proc: Path) -> bool:
    """Whether a fail2ban server runs in this network namespace.

    A server whose namespace this user may not read counts too.
    """
    here = network_of(proc=proc)
    return any(network_of(process, proc) in {"", here} for process in processes(_PROGRAM, proc))
