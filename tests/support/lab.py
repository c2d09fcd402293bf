"""One laboratory: a network, a real Asterisk in it, and functions to attack and observe it.

    with Lab.made("22") as lab:
        result = lab.attack("guess", "--number", "100")

The default target is port 5060: chan_sip on Asterisk 16, PJSIP on Asterisk 22.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from attrs import frozen
from tests.support.asterisk import SECRET, Asterisk, is_tree, tree_of
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER, Kind
from tests.support.network import Network, socket_in
from tests.support.sip import Attack, Result

RELEASES = {"16": Kind.CHAN_SIP, "22": Kind.PJSIP}


@frozen
class Lab:
    """A running Asterisk, its network, and the attacker on the other side of the cable."""

    network: Network
    asterisk: Asterisk

    @classmethod
    @contextlib.contextmanager
    def made(cls, release: str, extra: Mapping[str, str] | None = None) -> Iterator[Self]:
        """Make a laboratory with a release of Asterisk (``16`` or ``22``), and remove it at the end."""
        with (
            Network() as network,
            Asterisk(tree_of(release), network.pbx, RELEASES[release], extra=extra) as asterisk,
        ):
            yield cls(network, asterisk)

    def attack(self, *arguments: str) -> Result:
        """Run the SIP client on the attacker's side to its end: ``lab.attack("guess", "--number", "9")``."""
        return self.start_attack(*arguments).result()

    def start_attack(self, *arguments: str) -> Attack:
        """Start the SIP client on the attacker's side; ``.result()`` waits for it."""
        return Attack(self.network.attacker, *arguments)

    def run(self, *command: str, seconds: float = 30.0) -> str:
        """Run a command in Asterisk's namespace, and return its output."""
        done = subprocess.run(
            self.network.in_pbx(*command), capture_output=True, text=True, check=True, timeout=seconds
        )
        return done.stdout

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in Asterisk's namespace; its output goes to ``log``.

        The process is the command itself. The caller must end it.
        """
        with log.open("ab") as output:
            return subprocess.Popen(self.network.in_pbx(*command), stdout=output, stderr=output)

    def hang_up(self, address: str) -> None:
        """End all TCP connections between Asterisk and an address, also those that a ban keeps open."""
        self.run("ss", "--kill", "--tcp", "dst", address)

    @contextlib.contextmanager
    def manager_conf(self, text: str) -> Iterator[None]:
        """Add text to manager.conf, and let Asterisk read it again, while the block runs."""
        config = self.asterisk.folder / "etc/manager.conf"
        before = config.read_text("utf-8")
        try:
            self._write_manager_conf(before + text)
            yield
        finally:
            self._write_manager_conf(before)

    def _write_manager_conf(self, text: str) -> None:
        config = self.asterisk.folder / "etc/manager.conf"
        # Asterisk reads a file again if its time, in seconds, is another one.
        other = max(time.time(), config.stat().st_mtime + 1.0)
        config.write_text(text, "utf-8")
        os.utime(config, (other, other))
        self.asterisk.cli("manager reload")

    def listen(self) -> "Listener":
        """Log in to AMI over a plain socket, from which a test reads bytes."""
        return Listener(self.network.pbx)


class Listener:
    """An AMI connection that returns the received bytes without parsing them."""

    def __init__(self, namespace: str) -> None:
        self._socket = socket_in(namespace)
        self._socket.settimeout(20.0)
        self._socket.connect(("127.0.0.1", MANAGER_PORT))
        self._socket.sendall(
            f"Action: Login\r\nUsername: {MANAGER_USER}\r\nSecret: {SECRET}\r\n\r\n".encode()
        )
        self.login = self.read(b"FullyBooted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read(self, until: bytes, count: int = 1, seconds: float = 60.0) -> bytes:
        """Return all bytes up to the packet with the ``count``-th ``until``, inclusive."""
        received = b""
        deadline = time.monotonic() + seconds
        while received.count(until) < count or not received.endswith(b"\r\n\r\n"):
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionError("AMI closed the connection")
            received += part
        return received


def why_no_kernel() -> str:
    """Return why tests of the kernel cannot run here; empty if they can."""
    if os.geteuid():
        return "they need root"
    missing = [name for name in ("ip", "ipset", "iptables") if shutil.which(name) is None]
    if missing:
        return f"`make system` installs {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--net", "ipset", "list", "-n"], capture_output=True, check=False)
    return "no network namespace with ipset can be made here" if tried.returncode else ""


def why_no_asterisk(*releases: str) -> str:
    """Return why nothing can run against these releases of Asterisk (default: all) here; empty if it can."""
    reason = why_no_kernel()
    missing = [str(tree_of(release)) for release in releases or RELEASES if not is_tree(tree_of(release))]
    if reason or not missing:
        return reason
    return f"`make lab` makes {', '.join(missing)}"


def must_run_everything() -> bool:
    """Whether every test must run: in continuous integration, as root, on Debian."""
    return os.environ.get("CI") == "true" and os.geteuid() == 0 and Path("/etc/debian_version").exists()
