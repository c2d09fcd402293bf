"""The systemd unit: valid, as closed as docs/install.md states, and open enough for the daemon's work."""

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
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from packaging.requirements import Requirement
from tests.bench.forged import MOST_MEMORY
from tests.contrib import unit
from tests.support.asterisk import SECRET, tree_of
from tests.support.captures import FOLDER
from tests.support.daemon import PATIENCE, ami_server, toml, until
from tests.support.peers import Mailbox, mail_server

from ringfence import control
from ringfence.config.schema import Settings

ROOT = Path(__file__).parents[2]
UNUSED_ID = 61_900
"""An id in place of the unit's user, if this machine does not have it."""
ASTERISK_ID = 61_901
"""An id in place of Asterisk's user and group."""

ATTACK = (FOLDER / "hostile-22" / "parallel-one-call-id.ami").read_bytes()
LOGGED = (FOLDER / "asterisk-22" / "wrong-password-register.security.log").read_bytes()  # 3 by 198.18.1.101
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEBIANS_PYTHON = Path("/usr/bin/python3")
_PAUSE = 0.05
"""Seconds between two questions to a daemon."""

# ProtectSystem=strict, ProcSubset=pid and ProtectProc=invisible, in a separate mount namespace.
_CONFINED = """\
set -eu
mount -t proc -o subset=pid,hidepid=invisible proc /proc
for folder in "$1" "$2"; do mount --bind "$folder" "$folder"; done
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
    """systemd-analyze accepts every directive and value; only the program is not installed yet."""
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


@pytest.mark.kernel
@pytest.mark.parametrize(("release", "version"), [("debian-12", 252), ("debian-13", 257)])
def test_systemd_of_each_debian_finds_nothing_wrong(release: str, version: int) -> None:
    """The systemd of Debian 12 and 13 knows every directive of both units, with the drop-in too."""
    tree = tree_of(release)
    if not tree.is_dir():
        pytest.skip(f"`make lab` makes {tree}")
    with tempfile.TemporaryDirectory(prefix="units-", dir=tree / "tmp") as name:
        folder = Path(name)
        for file in (unit.FILE, unit.EARLY):
            text = file.read_text("utf-8").replace(f"{unit.PREFIX}/bin/ringfence", "/bin/true")
            (folder / file.name).write_text(text, "utf-8")
        inside = Path("/", folder.relative_to(tree))
        systemd = ["chroot", str(tree), "systemd-analyze"]
        verify = [
            *systemd,
            "verify",
            "--man=no",
            *(str(inside / file.name) for file in (unit.FILE, unit.EARLY)),
        ]
        answers = []
        for _ in range(2):
            answers.append(subprocess.run(verify, capture_output=True, text=True, check=False))
            for file in (unit.FILE, unit.EARLY):
                dropped_in = folder / f"{file.name}.d"
                dropped_in.mkdir(exist_ok=True)
                shutil.copy(unit.IPTABLES, dropped_in)
        found = subprocess.run([*systemd, "--version"], capture_output=True, text=True, check=True).stdout

    assert [(done.stdout + done.stderr, done.returncode) for done in answers] == [("", 0)] * 2
    assert found.startswith(f"systemd {version} ")


def test_memory_has_a_bound_with_room_for_a_flood() -> None:
    """The limit is at least twice that of the benchmark of forged senders; nothing throttles the daemon."""
    limits = unit.read()
    [limit] = limits["MemoryMax"]

    assert limit.endswith("M")
    assert int(limit.removesuffix("M")) * 2**20 >= 2 * MOST_MEMORY * 10**6
    assert "MemoryHigh" not in limits


def test_the_unit_of_the_boot_is_as_closed_as_the_daemons() -> None:
    """Every directive that restricts the daemon's unit is in the unit of the boot, with the same value."""
    early, daemon = unit.read(unit.EARLY), unit.read()
    different = {"Description", "After", "Before", "Wants", "Type", "ExecStart", "WantedBy"}
    different |= {"StartLimitIntervalSec"}
    living = {"NotifyAccess", "ExecReload", "TimeoutStopSec", "WatchdogSec", "Restart", "RestartSec"}
    living |= {
        "RestartPreventExitStatus",
        "LimitNOFILE",
        "OOMScoreAdjust",
        "OOMPolicy",
        "Nice",
        "CPUWeight",
        "MemoryMax",
    }

    for name in daemon.keys() - different - living:
        assert early[name] == daemon[name], name


@needs_systemd
def test_the_unit_is_as_closed_as_the_page_states() -> None:
    """The exposure level is that of docs/install.md for the systemd it names, and never above 1.7."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit.FILE)],
        capture_output=True,
        text=True,
        check=True,
    )
    level = re.search(r"Overall exposure level for ringfence\.service: ([0-9.]+)", done.stdout)
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    quoted = re.search(
        r"exposure level ([0-9.]+) \(systemd (\d+)\)", (ROOT / "docs/install.md").read_text("utf-8")
    )

    assert level is not None
    assert quoted is not None
    assert float(level[1]) <= 1.7
    if version.stdout.split()[1] == quoted[2]:
        assert level[1] == quoted[1]


def test_the_unit_restarts_whatever_ended_the_daemon() -> None:
    """An exit without an error causes a restart too; a failed start removes no lock of another process."""
    directives = unit.read()

    assert directives["Restart"] == ["always"]
    assert directives["RuntimeDirectoryPreserve"] == ["yes"]


def test_the_unit_names_the_user_that_is_made() -> None:
    """The unit has the user and group of the sysusers file, whose home is the unit's state folder."""
    sysusers = (unit.FILE.parent / "ringfence.sysusers").read_text("utf-8").splitlines()
    kind, name, _, _, home = re.findall(r'"[^"]*"|\S+', sysusers[-1])
    directives = unit.read()

    assert (kind, [name], [name]) == ("u", directives["User"], directives["Group"])
    assert home == f"/var/lib/{directives['StateDirectory'][0]}"


def test_folders_of_the_unit_hold_the_default_paths() -> None:
    """The database and the socket are in folders that systemd makes for the daemon."""
    directives = unit.read()

    assert Settings().store.path.parent == Path("/var/lib", directives["StateDirectory"][0])
    assert Settings().control.socket.parent == Path("/run", directives["RuntimeDirectory"][0])


@frozen
class Installed:
    """A venv with ringfence in a folder that all users may read, as docs/install.md makes it."""

    folder: Path

    @property
    def prefix(self) -> Path:
        """The folder that is /opt/ringfence on a PBX."""
        return self.folder / "opt"


@pytest.fixture(scope="session")
def installed(pytestconfig: pytest.Config) -> Iterator[Installed]:
    """Install the checkout with the commands of docs/install.md, once for the whole run.

    Except in the long run, the libraries are copies of those that the tests use: pip needs long for them.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"rf-{os.getpid()}-unit-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        prefix = folder / "opt"
        # python3 in docs/install.md is Debian's. The unit's user cannot run one in a home folder.
        python = str(_DEBIANS_PYTHON) if _DEBIANS_PYTHON.exists() else sys.executable
        version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout
        same = version.startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}.")
        if pytestconfig.getoption("--long") or not same:
            subprocess.run([python, "-m", "venv", str(prefix)], check=True)
            subprocess.run([str(prefix / "bin/pip"), "install", "--quiet", str(ROOT)], check=True)
        else:
            subprocess.run([python, "-m", "venv", "--without-pip", str(prefix)], check=True)
            _copy_libraries(next(prefix.glob("lib/python3*/site-packages")))
            install = [sys.executable, "-m", "pip", "--python", str(prefix / "bin/python"), "install"]
            subprocess.run([*install, "--quiet", "--no-deps", str(ROOT)], check=True)
        yield Installed(folder)
    finally:
        shutil.rmtree(folder)


def _copy_libraries(target: Path) -> None:
    """Copy the libraries that ringfence needs, and their own ones, with their compiled files."""
    names, known = ["ringfence"], {"ringfence"}
    while names:
        library = distribution(names.pop())
        needed = [Requirement(line) for line in library.requires or ()]
        found = {one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})}
        names += found - known
        known |= found
        files = [] if library.name == "ringfence" else library.files or []
        for file in files:
            if ".." not in file.parts:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file.locate(), target / file)


class Confined:
    """The unit's command, run as systemd runs it, as far as that is possible without systemd."""

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
        for private in (self._state, self._runtime):
            private.mkdir(mode=0o750)
            os.chown(private, self.user, self.group)
        self._etc.mkdir()
        os.chown(self._etc, 0, self.group)
        self._etc.chmod(0o750)
        self._logs = folder / "var-log"
        for name, group, mode in (("ringfence", self.group, 0o2750), ("asterisk", ASTERISK_ID, 0o750)):
            (self._logs / name).mkdir(parents=True)
            os.chown(self._logs / name, ASTERISK_ID, group)
            (self._logs / name).chmod(mode)

    def configure(self, port: int, **tables: Mapping[str, object]) -> None:
        """Write configuration and secret with the owners and modes of docs/install.md."""
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

    @property
    def state_folder(self) -> Path:
        """The folder in which the daemon may write."""
        return self._state

    def command_line(self) -> list[str]:
        """Return a command that applies most restrictions of the unit and then runs the unit's command."""
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
        """Run the daemon while the block runs, which begins at READY."""
        notified = self._runtime / "notify"
        log = self._folder / "log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, log.open("wb") as output:
            listener.bind(str(notified))
            notified.chmod(0o666)
            listener.settimeout(0.1)
            process = subprocess.Popen(self.command_line(), stdout=output, stderr=output)
            try:
                until(lambda: _received(listener) == "READY=1" or process.poll() is not None, "READY")
                assert process.poll() is None, log.read_text("utf-8", "replace")
                yield process
            finally:
                process.terminate()
                process.wait(PATIENCE)

    def ask(self, *arguments: str, code: int = 0) -> str:
        """Run a command like an administrator, and return its output; the command must end with ``code``."""
        done = subprocess.run(
            [str(self._program), *arguments],
            env={"PATH": self._path, "RINGFENCE_CONFIG": str(self._config), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def log(self, name: str, text: bytes) -> None:
        """Append to a log below /var/log, as Asterisk does."""
        become = ["setpriv", f"--reuid={ASTERISK_ID}", f"--regid={ASTERISK_ID}", "--clear-groups"]
        append = ["sh", "-c", 'umask 0027; cat >> "$0"', str(self._logs / name)]
        subprocess.run([*become, *append], input=text, check=True)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints: the daemon's answer."""
        report: dict[str, Any] = control.ask(self._runtime / "control.sock", "status")
        return report

    def states(self) -> dict[str, str]:
        """Return the state of each source by its name."""
        sources = self.status()["sources"]
        return {source["name"]: source["state"] for source in sources}

    def is_listening(self) -> bool:
        """Whether the daemon is connected to Asterisk and reads the wire; there is no log."""
        return self.states() == {
            "asterisk/ami": "listening",
            "asterisk/log": "waiting",
            "wire": "listening",
        }

    def bans(self) -> list[dict[str, object]]:
        """Return the daemon's bans."""
        rows: list[dict[str, object]] = control.ask(self._runtime / "control.sock", "bans", most=10)
        return rows


def _received(listener: socket.socket) -> str:
    try:
        return listener.recv(4096).decode()
    except TimeoutError:
        return ""


@pytest.fixture
def confined(
    request: pytest.FixtureRequest, netns: None, installed: Installed, tmp_path: Path
) -> Iterator[Confined]:
    """Yield the unit's command with nftables or the firewall of the test, in a network namespace.

    For iptables it has the drop-in, with which ``auto`` selects iptables.
    """
    firewall: str = getattr(request, "param", "nftables")
    with tempfile.TemporaryDirectory(prefix="unit-", dir=installed.folder) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if firewall == "nftables":
            yield Confined(installed, folder, _PATH)
            return
        tools = folder / "tools"
        tools.mkdir()
        flavour = firewall.removeprefix("iptables-")
        for family in ("iptables", "ip6tables"):
            for verb in ("save", "restore"):
                (tools / f"{family}-{verb}").symlink_to(f"/usr/sbin/{family}-{flavour}-{verb}")
        yield Confined(installed, folder, f"{tools}:{_PATH}", unit.IPTABLES)


@pytest.mark.kernel
@pytest.mark.parametrize(
    "confined",
    ["nftables", "iptables-legacy", pytest.param("iptables-nft", marks=pytest.mark.long)],
    indirect=True,
)
def test_the_daemon_guards_with_what_the_unit_leaves_it(confined: Confined) -> None:
    """With only the unit's user, capabilities and folders: READY, a ban, its listing, and a reload work."""
    with ami_server() as pbx:
        confined.configure(pbx.port)
        with confined.running() as process:
            status = Path(f"/proc/{process.pid}/status").read_text("ascii")
            firewall = confined.status()["firewall"]["backend"]
            until(confined.is_listening, "the manager interface and the wire", pause=_PAUSE)
            pbx.send(ATTACK)
            until(lambda: confined.status()["bans"], "a ban", pause=_PAUSE)
            (row,) = confined.bans()
            listing = confined.ask("bans")
            confined.configure(pbx.port, allow={"networks": [row["address"]]})
            assert unit.read()["ExecReload"] == [f"{unit.PREFIX}/bin/ringfence reload"]
            confined.ask("reload")
            until(lambda: not confined.status()["bans"], "the reload to end the ban", pause=_PAUSE)
            assert confined.bans() == []

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
    """Its user may read only the log in a separate folder: that log is found, its attempts are listed."""
    confined.configure(1)
    confined.log("asterisk/full", LOGGED)
    confined.log("asterisk/ringfence", LOGGED)
    with confined.running():
        until(lambda: confined.states().get("asterisk/log") == "waiting", "the want of a log", pause=_PAUSE)
        confined.log("ringfence/ringfence", b"Asterisk 22.10.1 built by root\n")
        found = "asterisk/log:/var/log/ringfence/ringfence"
        until(lambda: confined.states().get(found) == "listening", "the log", pause=_PAUSE)
        confined.log("ringfence/ringfence", LOGGED * 2)
        until(lambda: confined.status()["unconfirmed"] > 0, "what nothing else confirms", pause=_PAUSE)

        assert set(confined.states()) == {"asterisk/ami", found, "wire"}
        assert [row["address"] for row in confined.status()["watched"]] == ["198.18.1.101"]
        assert confined.bans() == []


@pytest.mark.kernel
def test_channels_work_with_what_the_unit_leaves_them(confined: Confined) -> None:
    """Mail works. No program runs as the daemon's user: without the service it fails with the reason."""
    ran = confined.state_folder / "ran"
    with ami_server() as pbx, mail_server(Mailbox()) as box:
        hook = {"command": ["/bin/touch", str(ran)], "socket": "/nonexistent"}
        confined.configure(pbx.port, notify={"mail": [{"to": ["root"], "port": box.port}], "hook": [hook]})
        with confined.running():
            answer = confined.ask("notify", "test", code=1)

    mailed, hooked = answer.split("\n", 1)
    assert mailed == f"ok  mail: 127.0.0.1:{box.port} accepted it"
    assert hooked.startswith(
        "failed  hook: /bin/touch cannot be run: /nonexistent: No such file or directory"
    )
    assert [mail for mail in box.mails if mail["Subject"].endswith("] test")]
    assert not ran.exists()


def test_the_unit_closes_no_way_to_the_internet() -> None:
    """Messages need IPv4 and IPv6; names need the C library's netlink and sockets of resolvers."""
    directives = unit.read()

    assert directives["RestrictAddressFamilies"] == ["AF_UNIX AF_NETLINK AF_INET AF_INET6"]
    assert not directives.keys() & {"PrivateNetwork", "IPAddressDeny", "IPAddressAllow", "SocketBindDeny"}
