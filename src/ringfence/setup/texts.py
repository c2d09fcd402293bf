"""The texts that setup writes into Asterisk's and the host's configuration.

They set the same options as the files in ``contrib/asterisk``, where long comments explain them. A test
compares both.
"""

import shlex
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from ringfence.model import Network, Secret
from ringfence.setup.conf_text import MARK

# contrib/asterisk/ringfence.manager.conf has the same filter, and explains it.
_FILTER = (
    "eventfilter = !^Event: [A-Za-z]+..Privilege: security,all..((Timestamp|SequenceNumber|File|Line|Func|"
    "SystemName): [^[:cntrl:]]*..)*EventTV: [-+:.0-9T]+..Severity: Error..Service: AMI"
)
_LOOPBACK = (ip_network("127.0.0.1"), ip_network("::1"))


def manager_user(secret: Secret, permit: Sequence[Network] = (), *, web: bool = False) -> str:
    """Return the section of manager.conf for ringfence's manager user.

    The user may log in from loopback and from the networks ``permit``. ``web``: AMI is also served over HTTP.
    """
    permits = [f"permit = {_with_mask(network)}" for network in (*_LOOPBACK, *permit)]
    lines = [
        MARK,
        "[ringfence]",
        f"secret = {secret.reveal()}",
        "deny = 0.0.0.0/0.0.0.0",
        "deny = ::/0",
        *permits,
        "; security: the security events. system: which phones come and go, and when Asterisk has started.",
        "read = security,system",
        "; To ask which phones and trunks are registered. This class can read the passwords of trunks.",
        "write = reporting",
        *(["; AMI over HTTP is on: its clients could write forged events into a user name.", _FILTER] * web),
        "; Milliseconds. The default of 100 is too short for a host that is busy for a moment.",
        "writetimeout = 10000",
    ]
    return "\n".join(lines) + "\n"


def log_channel(file: Path) -> str:
    """Return the log channel that writes to ``file``, a path in Asterisk's own root folder."""
    lines = [
        MARK,
        "[general](+)",
        "; The year and milliseconds, in all of Asterisk's logs.",
        "dateformat = %F %T.%3q",
        "",
        "[logfiles](+)",
        "; Neither warning nor error: with these levels callers can write whole lines of this log.",
        f"{file} => notice,security",
    ]
    return "\n".join(lines) + "\n"


def logrotate(file: Path, user: str, command: Sequence[str]) -> str:
    """Return logrotate's configuration for the log ``file``, which Asterisk's user ``user`` writes.

    ``command`` makes Asterisk open the log again; without it, nothing does. It may contain any characters.
    """
    lines = [
        "# Made by `ringfence setup`. contrib/asterisk/ringfence.logrotate has the reasons.",
        f"{file} {{",
        f"    su {user} ringfence",
        "    daily",
        "    maxsize 100M",
        "    rotate 7",
        "    missingok",
        "    notifempty",
        "    nocreate",
        "    compress",
        "    delaycompress",
    ]
    if command:
        script = f"        {shlex.join(command)} > /dev/null 2>&1 || true"
        lines += ["    postrotate", script, "    endscript"]
    lines.append("}")
    return "\n".join(lines) + "\n"


def jails_disabled(names: Sequence[str]) -> str:
    """Return a configuration file for fail2ban that disables these jails."""
    sections = [f"[{name}]\nenabled = false\n" for name in names]
    return "\n".join(["# Made by `ringfence setup`; `ringfence setup --undo` removes it.", *sections])


def _with_mask(network: Network) -> str:
    """Return a network as Asterisk's samples write it: IPv4 with a mask, IPv6 with a length."""
    return network.with_netmask if network.version == 4 else str(network)  # noqa: PLR2004 - the IP version
