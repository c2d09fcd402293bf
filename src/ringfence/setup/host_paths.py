"""The files and folders of the host that setup reads and writes, except those of Asterisk."""

from pathlib import Path

from attrs import frozen


@frozen
class HostPaths:
    """The paths of ringfence's own files, and of files and folders of other programs that setup uses.

    ``state`` has setup's journal, and the originals of all changed files. It belongs to root alone. It is not
    in ``data``, the folder of the service's user: that user could write a false journal there, and
    ``setup --undo``, which runs as root, would then overwrite any file.
    """

    config: Path = Path("/etc/ringfence/ringfence.toml")
    secret: Path = Path("/etc/ringfence/asterisk.secret")
    logs: Path = Path("/var/log/ringfence")
    logrotate: Path = Path("/etc/logrotate.d/ringfence")
    state: Path = Path("/var/lib/ringfence-setup")
    data: Path = Path("/var/lib/ringfence")
    fail2ban: Path = Path("/etc/fail2ban")
    systemd: Path = Path("/run/systemd/system")
