"""A host in a folder: Asterisk's files in a layout, ringfence's own files, and a console that answers."""

import subprocess
from contextlib import nullcontext
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve, frozen
from tests.support.console import ScriptedConsole
from tests.support.pbx_layouts import LAYOUTS
from tests.support.pbx_machine import Digest, digest_of

from ringfence.features.fail2ban.other_guard import OtherGuard
from ringfence.features.setup.find import Found, FoundAsterisk, Owner
from ringfence.features.setup.manager import read_manager, text_of
from ringfence.features.setup.texts import HostPaths, layout_of
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.console import Console, Server
from ringfence.host.file_changes import file_state
from ringfence.host.owned_files import may_change
from ringfence.values.network import Network

UID, GID = 4242, 4243
"""Asterisk's user and group."""
SERVICE = Owner(4244, 4245)
SECRET = "0123456789abcdef"
EXEMPT: dict[Network, str] = {ip_network("192.168.7.0/24"): "the network of eth0"}


@frozen
class Host:
    """The host. ``folder`` has everything that setup may change."""

    folder: Path

    @property
    def etc(self) -> Path:
        """The configuration folder of Asterisk."""
        return self.folder / "etc/asterisk"

    @property
    def fail2ban(self) -> Path:
        """The folder of fail2ban's configuration."""
        return self.folder / "etc/fail2ban"

    @property
    def paths(self) -> HostPaths:
        """The paths of ringfence on this host."""
        return HostPaths(
            config=self.folder / "etc/ringfence/ringfence.toml",
            secret=self.folder / "etc/ringfence/asterisk.secret",
            logs=self.folder / "var/log/ringfence",
            logrotate=self.folder / "etc/logrotate.d/ringfence",
            state=self.folder / "var/lib/ringfence-setup",
            data=self.folder / "var/lib/ringfence",
            etc=self.folder / "etc",
            systemd=self.folder / "run/systemd/system",
            hosts=self.folder / "etc/hosts",
        )

    @property
    def console(self) -> Console:
        """The console of its Asterisk, which knows the manager user as soon as a file has it."""
        return ScriptedConsole(self._answer)

    def _answer(self, command: str) -> str | None:
        if command == "manager show user ringfence":
            texts = [path.read_text("utf-8") for path in self.etc.rglob("*.conf") if path.is_file()]
            known = any(line == "[ringfence]" for text in texts for line in text.split("\n"))
            return "\n  username: ringfence\n" if known else "There is no manager called ringfence\n"
        return "reloaded\n" if command.endswith("reload") else None

    def asterisk(self) -> FoundAsterisk:
        """Return the running Asterisk."""
        server = Server(
            1, UID, GID, (), ("asterisk",), "/usr/sbin/asterisk", same_root=True, same_network=True
        )
        logs = self.folder / "var/log/asterisk"
        return FoundAsterisk(
            server, "22.1.0", AsteriskFiles(self.etc), logs, logs, ("PJSIP",), None, self.console
        )

    def found(self) -> Found:
        """Return what setup finds here, read from the files as they are now."""
        manager = read_manager(AsteriskFiles(self.etc))
        logger = file_state(self.etc / "logger.conf")
        texts = {"manager.conf": manager.text, "logger.conf": text_of(logger)}
        layout = layout_of(self.etc, lambda path: texts[path.name], may_change)
        return Found(self.asterisk(), layout, manager, logger, SERVICE, (), "memory", EXEMPT)

    def found_with_a_jail(self) -> Found:
        """Return what setup finds here if fail2ban's jail for Asterisk is enabled."""
        other = OtherGuard(self.paths.etc)
        other.jails = ("asterisk",)
        return evolve(self.found(), others=(other,))

    def digest(self) -> Digest:
        """Return content, mode and owners of every file."""
        return digest_of(self.folder, "etc", "var")


def make_host(folder: Path, layout: str = "compiled", *, packaged: bool = True) -> Host:
    """Make a host with Asterisk; ``packaged`` is whether ringfence's package is installed, else a venv."""
    host = Host(folder / "host")
    for path in (host.etc, host.folder / "var/lib", host.folder / "etc/logrotate.d"):
        path.mkdir(parents=True)
    (host.folder / "var/log/asterisk").mkdir(parents=True)
    for name, text in LAYOUTS[layout].files.items():
        (host.etc / name).parent.mkdir(exist_ok=True)
        (host.etc / name).write_text(text, "utf-8")
    (host.etc / "asterisk.conf").write_text("[directories]\nastlogdir => /var/log/asterisk\n", "utf-8")
    subprocess.run(["chown", "-R", f"{UID}:{GID}", str(host.etc)], check=True)
    if packaged:
        for path in (host.paths.config.parent, host.paths.logs, host.paths.data):
            path.mkdir(mode=0o750)
        host.paths.config.write_text(
            "# minimal\n[[asterisk]]\n[asterisk.ami]\n[allow]\nnetworks = []\n", "utf-8"
        )
        host.paths.secret.write_text(SECRET, "utf-8")
    return host


def allow_any_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read Asterisk's files as this user: pytest closes its folders to all others."""
    monkeypatch.setattr("ringfence.features.setup.manager._acting_as", lambda _user: nullcontext())


def with_exempt(found: Found, *networks: str) -> Found:
    """Return what was found, with these networks to exempt."""
    return evolve(found, exempt={ip_network(network): "a test" for network in networks})
