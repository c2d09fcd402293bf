"""The systemd unit: sound, as closed as the README says, and open enough for the daemon to do its work."""

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen
from tests.contrib import unit
from tests.support.asterisk import SECRET
from tests.support.captures import FOLDER
from tests.support.daemon import PATIENCE, ami_server, toml, until

from ringfence.config import Settings

ROOT = Path(__file__).parents[2]
UNUSED_ID = 61_900
"""Stands for the unit's user where this machine does not have it."""
ASTERISK_ID = 61_901
"""Stands for Asterisk's user and group."""

ATTACK = (FOLDER / "hostile-22" / "preemptive-unknown-new-call-ids.ami").read_bytes()
LOGGED = (FOLDER / "asterisk-22" / "wrong-password-register.security.log").read_bytes()  # 3 by 198.18.1.101
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEBIANS_PYTHON = Path("/usr/bin/python3")

# ProtectSystem=strict, ProcSubset=pid and ProtectProc=invisible, in a mount namespace of the daemon's own.
_CONFINED = """\
set -eu
mount -t proc -o subset=pid,hidepid=invisible proc /proc
for own in "$1" "$2"; do mount --bind "$own" "$own"; done
mount -o remount,bind,ro /
mount --bind "$3" /var/log
mount -o remount,bind,ro /var/log
umask "$4"
shift 4
exec "$@"
"""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is in the package systemd"
)


@needs_systemd
@pytest.mark.parametrize("file", [unit.FILE, unit.EARLY], ids=lambda file: file.stem)
@pytest.mark.parametrize("dropped_in", [False, True])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, file: Path, *, dropped_in: bool) -> None:
    """systemd-analyze knows every directive and value; only the program is not where it will be."""
    copy = tmp_path / file.name
    copy.write_text(file.read_text("utf-8").replace(f"{unit.PREFIX}/bin/ringfence", "/bin/true"), "utf-8")
    if dropped_in:
        folder = tmp_path / f"{file.name}.d"
        folder.mkdir()
        shutil.copy(unit.IPTABLES, folder)

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )

    assert [line for line in done.stderr.splitlines() if "ringfence" in line] == []


def test_the_unit_of_the_boot_is_as_closed_as_the_daemons() -> None:
    """Every directive that closes the daemon's unit stands in the early one too, with the same value."""
    early, daemon = unit.read(unit.EARLY), unit.read()
    own = {"Description", "After", "Before", "Type", "ExecStart", "WantedBy", "StartLimitIntervalSec"}
    living = {"NotifyAccess", "ExecReload", "TimeoutStopSec", "WatchdogSec", "Restart", "RestartSec"}
    living |= {"RestartPreventExitStatus", "OOMScoreAdjust", "Nice", "CPUWeight"}

    for name in daemon.keys() - own - living:
        assert early[name] == daemon[name], name


@needs_systemd
def test_the_unit_is_as_closed_as_the_readme_says() -> None:
    """The exposure level is the README's where systemd is the one it names, and never above 1.7."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit.FILE)],
        capture_output=True,
        text=True,
        check=True,
    )
    level = re.search(r"Overall exposure level for ringfence\.service: ([0-9.]+)", done.stdout)
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    quoted = re.search(r"exposure level ([0-9.]+) \(systemd (\d+)\)", (ROOT / "README.md").read_text("utf-8"))

    assert level is not None
    assert quoted is not None
    assert float(level[1]) <= 1.7
    if version.stdout.split()[1] == quoted[2]:
        assert level[1] == quoted[1]


def test_the_unit_names_the_user_that_is_made() -> None:
    """The unit's user and group are the ones of the sysusers file, whose home is the unit's state."""
    sysusers = (unit.FILE.parent / "ringfence.sysusers").read_text("utf-8").splitlines()
    kind, name, _, _, home = re.findall(r'"[^"]*"|\S+', sysusers[-1])
    directives = unit.read()

    assert (kind, [name], [name]) == ("u", directives["User"], directives["Group"])
    assert home == f"/var/lib/{directives['StateDirectory'][0]}"


def test_folders_of_the_unit_hold_the_default_paths() -> None:
    """The database and the socket lie in folders that systemd makes for the daemon."""
    directives = unit.read()

    assert Settings().store.path.parent == Path("/var/lib", directives["StateDirectory"][0])
    assert Settings().control.socket.parent == Path("/run", directives["RuntimeDirectory"][0])


@frozen
class Installed:
    """A venv with ringfence in a folder that everybody may read, as the README makes it."""

    folder: Path

    @property
    def prefix(self) -> Path:
        """What /opt/ringfence is on a PBX."""
        return self.folder / "opt"


@pytest.fixture(scope="session")
def installed() -> Iterator[Installed]:
    """Install the checkout with the README's commands, once for the whole run."""
    folder = Path(tempfile.mkdtemp(prefix=f"rf-{os.getpid()}-unit-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        prefix = folder / "opt"
        # The README's python3 is Debian's; one in somebody's home is not readable for the unit's user.
        python = str(_DEBIANS_PYTHON) if _DEBIANS_PYTHON.exists() else sys.executable
        subprocess.run([python, "-m", "venv", str(prefix)], check=True)
        subprocess.run([str(prefix / "bin/pip"), "install", "--quiet", str(ROOT)], check=True)
        yield Installed(folder)
    finally:
        shutil.rmtree(folder)


class Confined:
    """The unit's command, run as systemd would run it, as far as can be done without systemd."""

    def __init__(self, installed: Installed, folder: Path, path: str, *dropped_in: Path) -> None:
        self._files = (unit.FILE, *dropped_in)
        self._program = installed.prefix / "bin/ringfence"
        self._folder = folder
        self._state, self._runtime, self._etc = folder / "state", folder / "run", folder / "etc"
        self._config = self._etc / "ringfence.toml"
        self._path = path
        self._command = unit.command(installed.prefix)
        try:
            entry = pwd.getpwnam(unit.read()["User"][0])
            self.user, self.group = entry.pw_uid, entry.pw_gid
        except KeyError:
            self.user = self.group = UNUSED_ID
        for own in (self._state, self._runtime):
            own.mkdir(mode=0o750)
            os.chown(own, self.user, self.group)
        self._etc.mkdir()
        os.chown(self._etc, 0, self.group)
        self._etc.chmod(0o750)
        self._logs = folder / "var-log"
        for name, group, mode in (("ringfence", self.group, 0o2750), ("asterisk", ASTERISK_ID, 0o750)):
            (self._logs / name).mkdir(parents=True)
            os.chown(self._logs / name, ASTERISK_ID, group)
            (self._logs / name).chmod(mode)

    def configure(self, port: int, **tables: Mapping[str, object]) -> None:
        """Write configuration and secret with the owners and modes that the README gives them."""
        secret = self._etc / "asterisk.secret"
        settings: dict[str, object] = {
            "asterisk": [{"ami": {"port": port, "secret_file": str(secret)}}],
            "store": {"path": str(self._state / "ringfence.db")},
            "control": {"socket": str(self._runtime / "control.sock")},
            **tables,
        }
        for file, text in ((secret, SECRET + "\n"), (self._config, toml(settings))):
            file.write_text(text, "utf-8")
            os.chown(file, 0, self.group)
            file.chmod(0o640)

    def command_line(self) -> list[str]:
        """Give what puts as much of the unit in force as can be, and then the unit's own command."""
        directives = unit.read(*self._files)
        granted = {
            option: ",".join(["-all", *(f"+{name}" for name in unit.capabilities(directive, *self._files))])
            for option, directive in (
                ("--inh-caps", "AmbientCapabilities"),
                ("--ambient-caps", "AmbientCapabilities"),
                ("--bounding-set", "CapabilityBoundingSet"),
            )
        }
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", _CONFINED, "sh"),
            *(str(self._state), str(self._runtime), str(self._logs), directives["UMask"][0]),
            *("setpriv", "--reuid", str(self.user), "--regid", str(self.group), "--clear-groups"),
            *(f"{option}={value}" for option, value in granted.items()),
            *("--no-new-privs", "--reset-env"),
            *("env", *self._environment(directives)),
            *self._command,
        ]

    def _environment(self, directives: Mapping[str, list[str]]) -> list[str]:
        runtime = f"/run/{directives['RuntimeDirectory'][0]}"
        return [
            f"PATH={self._path}",
            f"RINGFENCE_CONFIG={self._config}",
            f"NOTIFY_SOCKET={self._runtime / 'notify'}",
            f"WATCHDOG_USEC={int(directives['WatchdogSec'][0].removesuffix('s')) * 1_000_000}",
            *(entry.replace(runtime, str(self._runtime)) for entry in directives.get("Environment", [])),
        ]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the daemon while the block does, from READY on."""
        notified = self._runtime / "notify"
        log = self._folder / "log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, log.open("wb") as output:
            listener.bind(str(notified))
            notified.chmod(0o666)
            listener.settimeout(0.1)
            process = subprocess.Popen(self.command_line(), stdout=output, stderr=output)
            try:
                until(lambda: _told(listener) == "READY=1" or process.poll() is not None, "READY")
                assert process.poll() is None, log.read_text("utf-8", "replace")
                yield process
            finally:
                process.terminate()
                process.wait(PATIENCE)

    def ask(self, *arguments: str) -> str:
        """Run a command as an administrator does."""
        done = subprocess.run(
            [str(self._program), *arguments],
            env={"PATH": self._path, "RINGFENCE_CONFIG": str(self._config), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        return done.stdout

    def log(self, name: str, text: bytes) -> None:
        """Write at the end of a log below /var/log, as Asterisk does."""
        become = ["setpriv", f"--reuid={ASTERISK_ID}", f"--regid={ASTERISK_ID}", "--clear-groups"]
        append = ["sh", "-c", 'umask 0027; cat >> "$0"', str(self._logs / name)]
        subprocess.run([*become, *append], input=text, check=True)

    def states(self) -> dict[str, str]:
        """Give the state of each source by its name."""
        sources = json.loads(self.ask("status", "--json"))["sources"]
        return {source["name"]: source["state"] for source in sources}

    def is_listening(self) -> bool:
        """Say whether the daemon hears its Asterisk and sees the wire; there is no log."""
        return self.states() == {
            "asterisk/ami": "listening",
            "asterisk/log": "waiting",
            "wire": "listening",
        }

    def bans(self) -> list[dict[str, object]]:
        """Give what is banned."""
        rows: list[dict[str, object]] = json.loads(self.ask("bans", "--json"))
        return rows


def _told(listener: socket.socket) -> str:
    try:
        return listener.recv(4096).decode()
    except TimeoutError:
        return ""


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def confined(
    request: pytest.FixtureRequest, netns: None, installed: Installed, tmp_path: Path
) -> Iterator[Confined]:
    """The unit's command with each firewall, in a network namespace of the test's own.

    With the drop-in for iptables where it is that; then ``auto`` takes it.
    """
    with tempfile.TemporaryDirectory(prefix="unit-", dir=installed.folder) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if request.param == "nftables":
            yield Confined(installed, folder, _PATH)
            return
        tools = folder / "tools"
        tools.mkdir()
        flavour = request.param.removeprefix("iptables-")
        for family in ("iptables", "ip6tables"):
            for verb in ("save", "restore"):
                (tools / f"{family}-{verb}").symlink_to(f"/usr/sbin/{family}-{flavour}-{verb}")
        yield Confined(installed, folder, f"{tools}:{_PATH}", unit.IPTABLES)


@pytest.mark.kernel
def test_the_daemon_guards_with_what_the_unit_leaves_it(confined: Confined) -> None:
    """As the unit's user, with its capabilities and folders alone: READY, a ban, its listing, a reload."""
    with ami_server() as pbx:
        confined.configure(pbx.port)
        with confined.running() as process:
            status = Path(f"/proc/{process.pid}/status").read_text("ascii")
            firewall = json.loads(confined.ask("status", "--json"))["firewall"]["backend"]
            until(confined.is_listening, "the manager interface to be heard")
            pbx.say(ATTACK)
            until(confined.bans, "a ban")
            (row,) = confined.bans()
            listing = confined.ask("bans")
            confined.configure(pbx.port, allow={"networks": [row["address"]]})
            assert unit.read()["ExecReload"] == [f"{unit.PREFIX}/bin/ringfence reload"]
            confined.ask("reload")
            until(lambda: not confined.bans(), "the reload to lift the ban")

        assert process.returncode == 0
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(confined.user)] * 4
    granted = {"nftables": 1 << 12, "ipset": 1 << 12 | 1 << 13}[firewall]
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == granted
    assert fields["NoNewPrivs"] == "1"
    assert str(row["address"]) in listing
    assert "guess" in listing


@pytest.mark.kernel
def test_the_daemon_finds_the_log_that_the_unit_may_read(confined: Confined) -> None:
    """Its user may read the log in the folder of its own and no other: it is found, and its lines ban."""
    confined.configure(1)
    confined.log("asterisk/full", LOGGED)
    confined.log("asterisk/ringfence", LOGGED)
    with confined.running():
        until(lambda: confined.states().get("asterisk/log") == "waiting", "the want of a log")
        confined.log("ringfence/ringfence", b"Asterisk 22.10.1 built by root\n")
        found = "asterisk/log:/var/log/ringfence/ringfence"
        until(lambda: confined.states().get(found) == "listening", "the log")
        confined.log("ringfence/ringfence", LOGGED * 2)
        until(confined.bans, "a ban")

        assert set(confined.states()) == {"asterisk/ami", found, "wire"}
        assert [row["address"] for row in confined.bans()] == ["198.18.1.101"]
