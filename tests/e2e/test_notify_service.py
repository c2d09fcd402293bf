"""A channel's program on a Debian with systemd and the package: it can do nothing to ringfence."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk import tree_of
from tests.support.daemon import until
from tests.support.machine import Machine
from tests.support.network import Network
from tests.support.overlay import overlaid

pytestmark = pytest.mark.kernel

SECRET = "correct-horse-battery"
HOOK = "/usr/local/bin/on-ringfence"
CONFIG = f"""\
[[asterisk]]
[asterisk.ami]
secret_file = "/etc/ringfence/asterisk.secret"

[[notify.hook]]
command = ["{HOOK}"]
events = ["unban"]
timeout = "60s"
"""
NOT_MINE = ("/run/ringfence/control.sock", "/etc/ringfence/asterisk.secret", "/etc/ringfence/ringfence.toml")

# Each line of the output is an attempt that succeeded. Processes that are left behind have the mark 4711.
_ATTACK = f"""\
#!/usr/bin/python3 -I
import os, pathlib, socket, subprocess, sqlite3

def succeeds(name, attack):
    try:
        attack()
    except (OSError, sqlite3.Error, subprocess.CalledProcessError):
        return
    print(name)

def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)

def command(*words):
    subprocess.run(words, check=True, capture_output=True)

def others():
    own = {{line.split()[1] for line in open("/proc/self/status") if line.startswith("Uid")}}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if str(os.stat(f"/proc/{{pid}}").st_uid) not in own:
            return
    raise OSError

succeeds("off", lambda: command("/usr/sbin/ringfence", "off"))
succeeds("allow", lambda: command("/usr/sbin/ringfence", "allow", "add", "198.18.0.7"))
for path in {NOT_MINE}:
    succeeds(path, lambda: open(path, "rb"))
    succeeds("connect " + path, lambda: connect(path))
succeeds("service", lambda: connect("/run/ringfence-notify.socket"))
database = "file:/var/lib/ringfence/ringfence.db?mode=ro"
succeeds("database", lambda: sqlite3.connect(database, uri=True).execute("select 1"))
for folder in ("/run/ringfence", "/etc/ringfence", "/var/lib/ringfence", "/var/log/ringfence", "/root"):
    succeeds("list " + folder, lambda: os.listdir(folder))
for file in ("/etc/x", "/var/lib/x", "/run/x", "/usr/local/bin/on-ringfence"):
    succeeds("write " + file, lambda: open(file, "a"))
succeeds("kill", lambda: os.kill(1, 0))
succeeds("others", others)
succeeds("root", lambda: os.setuid(0))
succeeds("systemctl", lambda: command("systemctl", "stop", "ringfence"))
succeeds("run", lambda: command("systemd-run", "true"))
for _ in range(3):
    subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; sleep 4711"], stdin=subprocess.DEVNULL)
print("user", os.getuid(), *os.getgroups())
raise SystemExit(1)
"""


@pytest.fixture(scope="module", params=["debian-12", pytest.param("debian-13", marks=pytest.mark.long)])
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, package: Path
) -> Iterator[Machine]:
    """Yield each Debian with the package; the daemon guards, and its channel runs a hook.

    All tests share it. The last one removes the package.
    """
    clean = tree_of(request.param)
    if not (clean / "usr/sbin/nft").exists():
        pytest.skip(f"`make lab` makes {clean}")
    with (
        overlaid(clean, tmp_path_factory.mktemp("tree")) as tree,
        Network() as network,
        Machine(tree, network.pbx) as machine,
    ):
        shutil.copy(package, tree / "root")
        machine.must("dpkg", "--install", f"/root/{package.name}")
        # The contents change, and owner and mode stay those of the package.
        for name, text in (("ringfence.toml", CONFIG), ("asterisk.secret", SECRET + "\n")):
            (tree / "etc/ringfence" / name).write_text(text, "utf-8")
        machine.must("systemctl", "start", "ringfence")
        yield machine


def hook(machine: Machine, text: str) -> None:
    """Write the program of the channel."""
    file = machine.root / HOOK.removeprefix("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    file.chmod(0o755)


def sleeps(machine: Machine, seconds: int) -> bool:
    """Whether a process ``sleep SECONDS`` runs."""
    text = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q '[s]leep {seconds} '"
    return machine.run("sh", "-c", text).returncode == 0


def left_behind(machine: Machine) -> bool:
    """Whether a process of the hook, or an instance of the service, still runs."""
    units = machine.must("systemctl", "list-units", "--no-legend", "--all", "ringfence-notify@*")
    return sleeps(machine, 4711) or bool(units.strip())


def test_a_program_can_neither_switch_off_nor_read_nor_stay(machine: Machine) -> None:
    """A hook tries what the daemon's user could do; nothing succeeds, and nothing of it is left."""
    hook(machine, _ATTACK)
    done = machine.run("ringfence", "notify", "test")
    output = done.stdout.partition("ended with 1: ")[2]

    assert output.startswith("user "), done.stdout
    user, *groups = output.strip().split()[1:]
    assert int(user) > 61_000
    assert groups in ([], [user])
    until(lambda: not left_behind(machine), "the end of what the hook left behind", 20.0, pause=0.5)
    status = json.loads(machine.must("ringfence", "status", "--json"))
    assert status["firewall"]["backend"] == "nftables"
    assert machine.must("systemctl", "is-active", "ringfence") == "active\n"


def test_no_other_user_runs_programs_by_the_service(machine: Machine) -> None:
    """The socket belongs to the daemon's user, in a folder of root."""
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/ringfence-notify.socket')"
    for user, group in (("nobody", "nogroup"), ("nobody", "ringfence"), ("ringfence-web", "ringfence")):
        become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        done = machine.run(*become, "/usr/bin/python3", "-c", connect)
        assert "PermissionError" in done.stderr
    stat = machine.must("stat", "--format=%a %U", "/run/ringfence-notify.socket", "/run").split()
    assert stat == ["600", "ringfence", "755", "root"]


def test_a_program_that_hangs_is_killed_and_others_continue(machine: Machine) -> None:
    """The program of one message cannot see or kill that of another, which runs at the same time."""
    slow = "#!/bin/sh\ntrap '' TERM\nsleep 12; id -u; exit 1\n"
    fast = "#!/bin/sh\nkill -9 -1\nexit 1\n"
    hook(machine, "#!/bin/sh\nexec /usr/local/bin/$(test -e /run/fast && echo fast || echo slow)\n")
    for name, text in (("slow", slow), ("fast", fast)):
        (machine.root / "usr/local/bin" / name).write_text(text, "utf-8")
        (machine.root / "usr/local/bin" / name).chmod(0o755)
    machine.must("sh", "-c", "ringfence notify test >/root/slow 2>&1 &")
    until(lambda: sleeps(machine, 12), "the slow program", 30.0, pause=0.3)
    machine.must("touch", "/run/fast")
    machine.run("ringfence", "notify", "test")
    until(lambda: "ended with" in (machine.root / "root/slow").read_text("utf-8"), "its end", 30.0)

    assert "ended with 1: 6" in (machine.root / "root/slow").read_text("utf-8")


def test_the_socket_starts_and_stops_with_the_daemon(machine: Machine) -> None:
    """A stop, a purge and a start need no command for the socket; without it the channel has an alarm."""
    assert machine.must("systemctl", "is-active", "ringfence-notify.socket") == "active\n"
    machine.must("systemctl", "stop", "ringfence-notify.socket")
    failed = machine.run("ringfence", "notify", "test").stdout
    assert "ringfence-notify.socket must run" in failed
    machine.must("systemctl", "restart", "ringfence")
    assert machine.must("systemctl", "is-active", "ringfence-notify.socket") == "active\n"
    machine.must("systemctl", "stop", "ringfence")
    until(lambda: _socket_state(machine) == "inactive\n", "the end of the socket", pause=0.2)
    machine.must("systemctl", "start", "ringfence")
    machine.must("dpkg", "--purge", "ringfence")
    until(lambda: _socket_state(machine) == "inactive\n", "the end of the socket", pause=0.2)
    assert not (machine.root / "run/ringfence-notify.socket").exists()


def _socket_state(machine: Machine) -> str:
    """Return the state of the socket. systemd stops it after the daemon, and the command does not wait."""
    return machine.run("systemctl", "is-active", "ringfence-notify.socket").stdout
