"""A Debian with systemd on which an Asterisk of the laboratory is installed and runs, as on a PBX.

    with Network() as network, pbx_machine(folder, network) as pbx:
        pbx.must("ringfence", "setup", "--yes")

The Asterisk is of another Debian release, so it has a root folder of its own, /opt/asterisk. Its
configuration and log folders are those of the machine, and so is the program ``asterisk``, by a wrapper.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.asterisk import tree_of
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.machine import Machine
from tests.support.network import PBX_IPV4, Network
from tests.support.overlay import overlaid

ROOT = "opt/asterisk"
USER = 101
"""The user and the group of Asterisk in the trees of the laboratory."""

_UNIT = """\
[Unit]
Description=Asterisk
[Service]
RootDirectory=/{root}
BindPaths={conf} /var/log
MountAPIVFS=yes
ExecStart=/usr/sbin/asterisk -f -U asterisk -G asterisk {options}
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


class PbxMachine(Machine):
    """One running Debian with an Asterisk."""

    @property
    def etc(self) -> Path:
        """The configuration folder of Asterisk, as seen from the test."""
        return self.root / "etc/asterisk"

    def cli(self, command: str) -> str:
        """Run a command in the console of Asterisk."""
        return self.must("asterisk", "-rx", command)

    def install(self, package: Path) -> str:
        """Install ringfence, and return what was printed."""
        shutil.copy(package, self.root / "root")
        return self.must("apt-get", "install", "--yes", "--no-install-recommends", f"/root/{package.name}")

    def start_asterisk(self) -> None:
        """Start Asterisk, and wait until it is booted."""
        self.must("systemctl", "start", "asterisk")
        wait = ("asterisk", "-rx", "core waitfullybooted")
        until(lambda: "fully booted" in self.run(*wait).stdout, "Asterisk")


@contextmanager
def pbx_machine(
    folder: Path,
    network: Network,
    *,
    release: str = "22",
    debian: str = "debian-12",
    files: Mapping[str, str] | None = None,
    conf: str = "/etc/asterisk",
    start: bool = True,
) -> Iterator[PbxMachine]:
    """Yield a booted machine with a default installation of Asterisk.

    ``files`` replace those of the package, and ``conf`` is their folder. ``start`` is whether it is
    started.
    """
    outer, inner = folder / "machine", folder / "asterisk"
    outer.mkdir()
    inner.mkdir()
    with overlaid(tree_of(debian), outer) as tree, overlaid(tree_of(release), inner) as own:
        _install(tree, own, release, files or {}, conf)
        point = tree / ROOT
        point.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(own), str(point)], check=True)
        try:
            with PbxMachine(tree, network.pbx) as machine:
                if start:
                    machine.start_asterisk()
                yield machine
        finally:
            subprocess.run(["umount", "--lazy", str(point)], check=True)


def digest_of(root: Path, *below: str) -> dict[str, tuple[object, ...]]:
    """Return content, mode and owners of every file and folder below these folders of a machine."""
    found: dict[str, tuple[object, ...]] = {}
    for top in below:
        there = [root / top] if (root / top).exists() else []
        for path in [*there, *(root / top).rglob("*")]:
            status = path.lstat()
            content: object = None
            if path.is_symlink():
                content = path.readlink()
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            found[str(path.relative_to(root))] = (content, status.st_mode, status.st_uid, status.st_gid)
    return found


def _install(tree: Path, own: Path, release: str, files: Mapping[str, str], conf: str) -> None:
    """Write what the package of Asterisk would have installed in the machine."""
    etc = tree / conf.lstrip("/")
    shutil.copytree(own / "etc/asterisk", etc)
    options = ""
    if conf != "/etc/asterisk":
        (own / conf.lstrip("/")).mkdir(parents=True)
        options = f"-C {conf}/asterisk.conf"
        main = etc / "asterisk.conf"
        text = main.read_text("utf-8").replace("[directories](!)", "[directories]")
        main.write_text(text.replace("astetcdir => /etc/asterisk", f"astetcdir => {conf}"), "utf-8")
    texts = {"pjsip.conf": PJSIP} if release == "22" else {"sip.conf": CHAN_SIP}
    for name, text in {**texts, **files}.items():
        (etc / name).parent.mkdir(exist_ok=True, parents=True)
        (etc / name).write_text(text, "utf-8")
    logs = tree / "var/log/asterisk"
    logs.mkdir()
    run = own / "run/asterisk"
    run.mkdir(parents=True, exist_ok=True)
    for path in (etc, *etc.rglob("*"), logs, run):
        os.chown(path, USER, USER)
    (tree / "etc/systemd/system/asterisk.service").write_text(
        _UNIT.format(root=ROOT, conf=conf, options=options), "utf-8"
    )
    wrapper = tree / "usr/sbin/asterisk"
    wrapper.write_text(_WRAPPER.format(options=options), "utf-8")
    wrapper.chmod(0o755)
    for name, line in (
        ("passwd", f"asterisk:x:{USER}:{USER}::/var/lib/asterisk:/usr/sbin/nologin\n"),
        ("group", f"asterisk:x:{USER}:\n"),
    ):
        with (tree / "etc" / name).open("a", encoding="utf-8") as file:
            file.write(line)
