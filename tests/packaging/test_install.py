"""The package on clean Debians with systemd: installation, upgrade under traffic, removal and purge."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen
from debian import lock
from debian import tree as tree_of_package
from tests.support.amiserver import Script
from tests.support.asterisk import tree_of
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.daemon import GRANTED, ServedAmi, ami_server, until
from tests.support.machine import Machine
from tests.support.netns import inside
from tests.support.network import Network
from tests.support.overlay import overlaid
from tests.support.package import EARLIER
from tests.support.traffic import Traffic

pytestmark = pytest.mark.kernel

BANNED, OTHER = "198.18.1.7", "198.18.1.8"
MANY = [f"100.64.{high}.{low}" for high in range(40) for low in range(250)]
"""10 000 addresses of other senders that are banned as well."""
MOST_SILENCE = 2.0
"""Seconds that the sources may be without a reader during an upgrade."""

CONNECT = "ringfence setup"
"""The command that the installation prints."""
START = "systemctl enable --now ringfence-early ringfence"
WEB = "systemctl enable --now ringfence-web"
VISIT = """\
import sys, urllib.parse, urllib.request
site, _, token = sys.argv[1].partition("/login#")
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
browser.open(f"{site}/login", urllib.parse.urlencode({"token": token}).encode()).read()
print(browser.open(f"{site}/bans").read().decode())
"""
"""A program that logs in to the live page with a link, and prints its page of bans."""

# Files in which dpkg, systemd and the tools for users record everything that they do.
_NOT_OURS = re.compile(
    r"/(?:dev|proc|run|sys|tmp|root)/|/var/log/(?!ringfence).|/var/(?:tmp|cache)/.|/var/lib/(?:dpkg|apt)/.|/var/lib/systemd/(?!deb)"
    r"|/etc/(?:passwd|group|shadow|gshadow|subuid|subgid)-$|.*/__pycache__/"
)


@frozen
class Clean:
    """A Debian before the first installation: its paths, and its users and groups."""

    paths: set[str]
    users: str


@pytest.fixture(scope="module", params=["debian-12", pytest.param("debian-13", marks=pytest.mark.long)])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a writable copy of each Debian."""
    clean = tree_of(request.param)
    if not (clean / "usr/sbin/nft").exists():
        pytest.skip(f"`make lab` makes {clean}")
    with overlaid(clean, tmp_path_factory.mktemp("tree")) as copy:
        yield copy


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Yield the PBX's network and the attacker's."""
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def booted(tree: Path, network: Network) -> Iterator[Machine]:
    """Yield a Debian that has booted, the same for all tests."""
    with Machine(tree, network.pbx) as machine:
        yield machine


@pytest.fixture(scope="module")
def clean(booted: Machine) -> Clean:
    """Return what was on the Debian before the first installation."""
    return Clean(paths_of(booted), users_of(booted))


@pytest.fixture
def machine(booted: Machine, clean: Clean) -> Machine:
    """Return the Debian without ringfence, fail2ban's client, and their files."""
    if state_of_package(booted) not in {"", "not-installed"}:
        booted.must("apt-get", "purge", "--yes", "ringfence")
    left = ("/etc/fail2ban", "/usr/bin/fail2ban-client", "/root/fail2ban-fails", "/root/fail2ban-was-asked")
    backups = [f"/var/backups/{path.name}" for path in (booted.root / "var/backups").glob("ringfence.*")]
    booted.must("rm", "-rf", *left, "/var/lib/ringfence-setup", *backups)
    return booted


@pytest.fixture
def installed(request: pytest.FixtureRequest, booted: Machine, package: Path) -> Machine:
    """Return the Debian with ringfence, installed now or by an earlier test."""
    if state_of_package(booted) != "installed":
        request.getfixturevalue("machine").install(package)
    return booted


def state_of_package(machine: Machine) -> str:
    """Return dpkg's state of the package; empty if dpkg has never known it."""
    return machine.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", "ringfence").stdout


def is_active(machine: Machine) -> bool:
    """Whether the daemon runs."""
    return machine.run("systemctl", "is-active", "ringfence").stdout == "active\n"


@contextmanager
def asterisk(machine: Machine, network: Network) -> Iterator[ServedAmi]:
    """Run an AMI server that has the secret that the package made."""
    secret = machine.must("cat", "/etc/ringfence/asterisk.secret")
    with inside(network.pbx), ami_server(Script(play=[GRANTED], secret=secret), port=MANAGER_PORT) as ami:
        yield ami


def bans(machine: Machine) -> set[str]:
    """Return the banned addresses."""
    return {row["address"] for row in json.loads(machine.must("ringfence", "bans", "--json"))}


def paths_of(machine: Machine) -> set[str]:
    """Return the path of every file and folder, without those that belong to no package."""
    listed = machine.must("find", "/", "-xdev", "-type", "d", "-printf", "%p/\\n")
    listed += machine.must("find", "/", "-xdev", "-not", "-type", "d")
    return {path for path in listed.splitlines() if not _NOT_OURS.match(path)}


def users_of(machine: Machine) -> str:
    """Return the users and groups."""
    return machine.must("cat", "/etc/passwd", "/etc/group")


def test_installation_starts_nothing_and_prints_the_next_command(
    machine: Machine, network: Network, package: Path
) -> None:
    """After the installation nothing runs, and `ringfence setup` is printed; both units find Asterisk."""
    printed = machine.install(package)
    units = ("ringfence", "ringfence-early")

    assert [machine.run("systemctl", "is-active", unit).stdout for unit in units] == ["inactive\n"] * 2
    assert [machine.run("systemctl", "is-enabled", unit).stdout for unit in units] == ["disabled\n"] * 2
    assert machine.must("nft", "list", "tables") == ""
    assert f"    {CONNECT}\n" in printed
    assert machine.must("ringfence", "--version") == f"ringfence {tree_of_package.version_of_project()}\n"
    stat = ["stat", "--format=%a %U:%G %n", "/etc/ringfence", *(f"/etc/ringfence/{name}" for name in FILES)]
    assert machine.must(*stat).splitlines() == [
        "750 root:ringfence /etc/ringfence",
        *(f"640 root:ringfence /etc/ringfence/{name}" for name in FILES),
    ]
    verified = machine.run("systemd-analyze", "verify", "--man=no", *(f"{unit}.service" for unit in units))
    assert [line for line in verified.stderr.splitlines() if "ringfence" in line] == []

    with asterisk(machine, network):
        machine.must("sh", "-c", START)
        until(lambda: _listens(machine), "the daemon to log in to AMI", pause=0.2)
        assert [machine.run("systemctl", "is-enabled", unit).stdout for unit in units] == ["enabled\n"] * 2


FILES = ("asterisk.secret", "ringfence.toml")
"""The files in /etc/ringfence after the installation."""


def _listens(machine: Machine) -> bool:
    sources = json.loads(machine.must("ringfence", "status", "--json"))["sources"]
    return "listening" in {source["state"] for source in sources if source["name"] == "asterisk/ami"}


def test_the_test_of_autopkgtest_passes(installed: Machine) -> None:
    """The installed package bans without Asterisk, as the test in the source package demands."""
    shutil.copy(lock.LOCK.parent / "tests/bans", installed.root / "root")
    kept = installed.must("cat", "/etc/ringfence/ringfence.toml")
    try:
        assert installed.must("/root/bans").endswith("banned and unbanned\n")
    finally:
        (installed.root / "etc/ringfence/ringfence.toml").write_text(kept, "utf-8")
        installed.must("systemctl", "stop", "ringfence")
        installed.must("rm", "-r", "/var/log/ringfence/test", "/root/bans")


def test_the_live_page_runs_as_a_user_of_its_own(installed: Machine) -> None:
    """The page shows the bans. Its process has no capability, and no access to the configuration."""
    machine = installed
    assert machine.run("systemctl", "is-enabled", "ringfence-web").stdout == "disabled\n"
    machine.must("sh", "-c", START)
    machine.must("sh", "-c", WEB)
    machine.must("ringfence", "ban", BANNED)
    link = machine.must("ringfence", "web", "login", "--name", "alice").strip()
    page = machine.must("python3", "-c", VISIT, link)
    pid = machine.must("systemctl", "show", "--value", "--property=MainPID", "ringfence-web").strip()
    status, user = (
        machine.must("cat", f"/proc/{pid}/status"),
        machine.must("id", "-u", "ringfence-web").strip(),
    )

    assert BANNED in page
    assert "alice" in page
    assert re.search(rf"^Uid:(\t{user}){{4}}$", status, re.MULTILINE)
    assert len(re.findall(r"^Cap\w+:\t0+$", status, re.MULTILINE)) == 5
    assert machine.must("ls", f"/proc/{pid}/root/etc/ringfence") == ""
    machine.must("journalctl", "--sync")
    assert "event=web.login user=alice" in machine.must("journalctl", "--unit=ringfence-web", "--output=cat")


def test_removal_takes_the_rules_out_and_purge_leaves_nothing(
    installed: Machine, clean: Clean, package: Path
) -> None:
    """Removal keeps configuration and bans for a new installation; purge leaves no file and no user."""
    machine = installed
    machine.must("sh", "-c", START)
    machine.must("sh", "-c", WEB)
    machine.must("ringfence", "ban", BANNED)
    assert "ringfence" in machine.must("nft", "list", "tables")

    machine.must("apt-get", "remove", "--yes", "ringfence")
    assert machine.must("nft", "list", "tables") == ""
    assert machine.must("systemctl", "list-units", "--no-legend", "ringfence*") == ""
    kept = [
        "/etc/ringfence/ringfence.toml",
        "/etc/ringfence/asterisk.secret",
        "/var/lib/ringfence/ringfence.db",
    ]
    machine.must("ls", *kept)
    assert not (machine.root / "usr/share/ringfence").exists()

    machine.install(package)
    assert not is_active(machine)
    machine.must("sh", "-c", START)
    assert bans(machine) == {BANNED}

    rotation = "/usr/share/ringfence/contrib/asterisk/ringfence.logrotate"
    machine.must("cp", rotation, "/etc/logrotate.d/ringfence")  # as `ringfence setup` makes it
    purged = machine.run("apt-get", "purge", "--yes", "ringfence")
    assert purged.returncode == 0
    assert machine.must("nft", "list", "tables") == ""
    assert paths_of(machine) == clean.paths
    assert users_of(machine) == clean.users


def test_upgrade_keeps_bans_in_force_under_traffic(
    machine: Machine, network: Network, earlier: Path, package: Path
) -> None:
    """During an upgrade with 10 000 bans no packet of a banned sender arrives, and AMI is soon read again."""
    machine.install(earlier)
    machine.must("sh", "-c", START)
    with asterisk(machine, network) as ami:
        until(lambda: ami.server.logins, "the daemon to log in to AMI")
        machine.must("ringfence", "ban", BANNED, *MANY)
        machine.must("sh", "-c", "echo '# a change' >>/etc/ringfence/ringfence.toml")
        secret = machine.must("cat", "/etc/ringfence/asterisk.secret")
        assert machine.must("ringfence", "--version") == f"ringfence {EARLIER}\n"
        before = machine.must("systemctl", "show", "--property=MainPID", "ringfence")
        readers = {"AMI": lambda: bool(ami.server._listeners)}
        with Traffic(network, readers, BANNED, OTHER) as traffic:
            printed = machine.install(package)
            until(lambda: readers["AMI"]() and is_active(machine), "the new version to read AMI")
        after = machine.must("systemctl", "show", "--property=MainPID", "ringfence")
        restarts = []
        for _ in range(3):
            with Traffic(network, readers, BANNED) as restarted:
                machine.must("systemctl", "restart", "ringfence")
                until(lambda: readers["AMI"]() and is_active(machine), "the restarted daemon to read AMI")
            restarts.append(restarted.silences["AMI"])

        assert traffic.received[OTHER] > 100
        assert traffic.received[BANNED] == 0
        # A busy machine needs longer for both, and the package manager adds to the load.
        assert traffic.silences["AMI"] <= max(MOST_SILENCE, 4 * max(restarts))
        assert after != before
        assert CONNECT not in printed
        assert machine.must("ringfence", "--version") == f"ringfence {tree_of_package.version_of_project()}\n"
        assert bans(machine) == {BANNED, *MANY}
        assert machine.must("tail", "-n1", "/etc/ringfence/ringfence.toml") == "# a change\n"
        assert machine.must("cat", "/etc/ringfence/asterisk.secret") == secret
        assert not (machine.root / tree_of_package.LIBRARY / "ringfence/gone.py").exists()


JAIL = "/etc/fail2ban/jail.d/zz-ringfence.local"
CLIENT = """\
#!/bin/sh
[ ! -e /root/fail2ban-fails ] || { echo "Unable to contact server. Is it running?" >&2; exit 255; }
{ echo "$@"; systemctl is-active ringfence; ls /etc/fail2ban/jail.d; } >/root/fail2ban-was-asked
"""
"""fail2ban's client, as far as the package uses it: it records each request, and the state meanwhile."""
DISABLE = """\
from pathlib import Path
from ringfence.features.fail2ban.other_guard import OtherGuard
from ringfence.features.setup.journal import open_journal
other = OtherGuard(Path("/etc"))
other.jails = ("asterisk",)
change = other.disabling()
with open_journal(Path("/var/lib/ringfence-setup")) as journal:
    journal.begin((), ())
    journal.add(change)
    change.apply()
    journal.complete()
"""
"""A program that disables fail2ban's jail, with its journal, as `ringfence setup` does."""


def disable_jail(machine: Machine) -> None:
    """Install fail2ban's client, and let setup's own code disable the jail for Asterisk."""
    client = machine.root / "usr/bin/fail2ban-client"
    client.write_text(CLIENT, "utf-8")
    client.chmod(0o755)
    machine.must("mkdir", "-p", "/etc/fail2ban/jail.d")
    machine.must("env", "PYTHONPATH=/usr/share/ringfence/python", "python3", "-Ps", "-c", DISABLE)
    machine.must("ls", JAIL)


def test_removal_gives_the_jail_back_before_ringfence_stops(installed: Machine, package: Path) -> None:
    """fail2ban reads its jails again while ringfence still guards; a purge keeps what an undo needs."""
    machine = installed
    machine.must("sh", "-c", START)
    disable_jail(machine)
    removed = machine.run("apt-get", "remove", "--yes", "ringfence")

    assert removed.returncode == 0
    assert machine.must("cat", "/root/fail2ban-was-asked") == "reload\nactive\n"
    assert "nothing may guard Asterisk" not in removed.stdout + removed.stderr

    purged = machine.run("apt-get", "purge", "--yes", "ringfence")
    assert (purged.returncode, f"\n    {JAIL}\n" in purged.stdout + purged.stderr) == (0, True)
    [kept] = (machine.root / "var/backups").glob("ringfence.*")
    assert (kept.stat().st_mode & 0o777, kept.stat().st_uid) == (0o700, 0)
    assert {file.name for file in (kept / "ringfence-setup").iterdir()} >= {"journal.json", "0.after"}
    assert not (machine.root / "var/lib/ringfence-setup").exists()

    machine.install(package)
    machine.must("mv", f"/var/backups/{kept.name}/ringfence-setup", "/var/lib/")
    machine.must("ringfence", "setup", "--undo", "--yes")
    assert not (machine.root / "var/lib/ringfence-setup").exists()


def test_a_jail_that_cannot_be_given_back_is_reported(installed: Machine, package: Path) -> None:
    """If fail2ban does not reload, or setup's journal is missing, the removal succeeds and warns loudly."""
    machine = installed
    disable_jail(machine)
    machine.must("touch", "/root/fail2ban-fails")
    removed = machine.run("apt-get", "remove", "--yes", "ringfence")

    assert removed.returncode == 0
    printed = removed.stdout + removed.stderr
    assert "after the removal of ringfence, nothing may guard Asterisk:" in printed
    assert "fail2ban did not reload (Unable to contact server. Is it running?)" in printed
    assert "fail2ban's jails for Asterisk were not given back" in printed
    assert not (machine.root / JAIL.removeprefix("/")).exists()

    machine.install(package)
    machine.must("touch", JAIL)
    machine.must("rm", "-r", "/var/lib/ringfence-setup")
    removed = machine.run("apt-get", "remove", "--yes", "ringfence")
    assert removed.returncode == 0
    assert f"{JAIL} still disables fail2ban's jails; fix: remove it" in removed.stdout + removed.stderr
