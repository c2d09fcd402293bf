"""A Debian with systemd on which an Asterisk of the laboratory is installed and runs, as on a PBX.

    with Network() as network, pbx_machine(folder, network) as pbx:
        pbx.must("ringfence", "setup", "--yes")

The Asterisk is of another Debian release, so it has a root folder of its own, /opt/asterisk. Its
configuration and log folders are those of the machine, and so is the program ``asterisk``, by a wrapper.
"""

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen
from tests.support.asterisk import tree_of
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.machine import Machine
from tests.support.network import PBX_IPV4, Network
from tests.support.overlay import overlaid

ROOT = "opt/asterisk"
NAMESPACE = "opt/network"
"""The file by which the machine knows the network namespace of a container."""
USER = 101
"""The user and the group of Asterisk in the trees of the laboratory."""

_UNIT = """\
[Unit]
Description=Asterisk
[Service]
RootDirectory=/{root}
BindPaths={binds}
MountAPIVFS=yes
ExecStart=/usr/sbin/asterisk -f -U asterisk -G asterisk {options}
{more}
[Install]
WantedBy=multi-user.target
"""
_WRAPPER = """\
#!/bin/sh
main=$(systemctl show --property=MainPID --value asterisk)
exec nsenter --target="$main" --mount --root --wd /usr/sbin/asterisk {options} "$@"
"""
PJSIP = f"""\
[udp]
type = transport
protocol = udp
bind = 0.0.0.0:5060

[alice]
type = endpoint
context = internal
auth = alice
aors = alice

[alice]
type = auth
auth_type = userpass
username = alice
password = {PASSWORD}

[alice]
type = aor
max_contacts = 10
"""
CHAN_SIP = f"""\
[general]
udpbindaddr = {PBX_IPV4}:5060

[trunk]
type = peer
host = 198.18.77.9
"""


Digest = dict[str, tuple[object, ...]]
"""Content (its hash), mode and owners of files, by their path."""


@frozen
class Installation:
    """How Asterisk is installed: its release, files that replace those of the package, and their folder.

    ``volume`` makes it a container: a folder of the machine that has its configuration and its logs.
    ``namespace`` is then the name of its network namespace.
    """

    release: str = "22"
    files: Mapping[str, str] = {}
    conf: str = "/etc/asterisk"
    volume: str = ""
    namespace: str = ""

    @property
    def folder(self) -> str:
        """The configuration folder in the machine, without the first slash."""
        return (f"{self.volume}/etc" if self.volume else self.conf).lstrip("/")

    @property
    def logs(self) -> str:
        """The log folder in the machine, without the first slash."""
        return (f"{self.volume}/log" if self.volume else "/var/log/asterisk").lstrip("/")

    @property
    def unit(self) -> str:
        """The unit that runs it."""
        volumes = f"/{self.folder}:{self.conf} /{self.logs}:/var/log/asterisk"
        return _UNIT.format(
            root=ROOT,
            binds=volumes if self.volume else f"{self.conf} /var/log",
            options=self.options,
            more=f"NetworkNamespacePath=/{NAMESPACE}" if self.namespace else "",
        )

    @property
    def options(self) -> str:
        """The options of the program."""
        return "" if self.conf == "/etc/asterisk" else f"-C {self.conf}/asterisk.conf"


class PbxMachine(Machine):
    """One running Debian with an Asterisk."""

    def banned(self) -> set[str]:
        """Return the banned addresses."""
        return {row["address"] for row in json.loads(self.must("ringfence", "bans", "--json"))}

    def cli(self, command: str) -> str:
        """Run a command in the console of Asterisk."""
        return self.must("asterisk", "-rx", command)

    def start_asterisk(self) -> None:
        """Start Asterisk, and wait until it is booted."""
        self.must("systemctl", "start", "asterisk")
        wait = ("asterisk", "-rx", "core waitfullybooted")
        until(lambda: "fully booted" in self.run(*wait).stdout, "Asterisk", pause=0.1)


@contextmanager
def pbx_machine(
    folder: Path, network: Network, installation: Installation | None = None, *, debian: str = "debian-12"
) -> Iterator[PbxMachine]:
    """Yield a booted machine on which Asterisk runs, by default as Debian installs it."""
    installed = installation or Installation()
    outer, inner = folder / "machine", folder / "asterisk"
    outer.mkdir()
    inner.mkdir()
    with (
        overlaid(tree_of(debian), outer) as tree,
        overlaid(tree_of(installed.release), inner) as own,
        ExitStack() as stack,
    ):
        _install(tree, own, installed)
        (tree / ROOT).mkdir(parents=True)
        stack.enter_context(_mounted(own, tree / ROOT))
        if installed.namespace:
            (tree / NAMESPACE).touch()
            stack.enter_context(_mounted(Path("/run/netns", installed.namespace), tree / NAMESPACE))
        machine = stack.enter_context(PbxMachine(tree, network.pbx))
        machine.start_asterisk()
        yield machine


def digest_of(root: Path, *below: str) -> Digest:
    """Return content, mode and owners of every file and folder below these folders of a machine."""
    found: Digest = {}
    for top in below:
        there = [root / top] if (root / top).exists() else []
        for path in [*there, *(root / top).rglob("*")]:
            status = path.lstat()
            content: object = None
            if path.is_symlink():
                content = path.readlink()
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).digest()
            found[str(path.relative_to(root))] = (content, status.st_mode, status.st_uid, status.st_gid)
    return found


def differing(before: Digest, after: Digest) -> list[str]:
    """Return the paths that are not as they were."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@contextmanager
def _mounted(source: Path, target: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def _install(tree: Path, own: Path, installed: Installation) -> None:
    """Write what the package of Asterisk would have installed in the machine."""
    etc, logs, run = tree / installed.folder, tree / installed.logs, own / "run/asterisk"
    etc.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", str(own / "etc/asterisk"), str(etc)], check=True)  # with its owners
    (own / installed.conf.lstrip("/")).mkdir(parents=True, exist_ok=True)
    main = etc / "asterisk.conf"
    text = main.read_text("utf-8").replace("[directories](!)", "[directories]")
    main.write_text(text.replace("astetcdir => /etc/asterisk", f"astetcdir => {installed.conf}"), "utf-8")
    texts = {"pjsip.conf": PJSIP} if installed.release == "22" else {"sip.conf": CHAN_SIP}
    for name, text in {**texts, **installed.files}.items():
        written = etc / name
        written.parent.mkdir(exist_ok=True)
        written.write_text(text, "utf-8")
        for path in (written, written.parent):
            os.chown(path, USER, USER)
    for path in (logs, run):
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, USER, USER)
    (tree / "etc/systemd/system/asterisk.service").write_text(installed.unit, "utf-8")
    wrapper = tree / "usr/sbin/asterisk"
    wrapper.write_text(_WRAPPER.format(options=installed.options), "utf-8")
    wrapper.chmod(0o755)
    lines = {
        "passwd": f"asterisk:x:{USER}:{USER}::/var/lib/asterisk:/usr/sbin/nologin\n",
        "group": f"asterisk:x:{USER}:\n",
    }
    for name, line in lines.items():
        with (tree / "etc" / name).open("a", encoding="utf-8") as file:
            file.write(line)
