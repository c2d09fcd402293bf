"""The Ansible role: with a program that stands for ``ringfence`` and records its calls, and on a real PBX."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.network import Network
from tests.support.package import require_package
from tests.support.pbx_machine import PbxMachine, pbx_machine
from tests.support.setup_commands import ATTACKER, guess

FOLDER = Path(__file__).parents[2] / "contrib/ansible"
needs_ansible = pytest.mark.skipif(
    shutil.which("ansible-playbook") is None, reason="ansible-playbook is in the package ansible-core"
)

PROGRAM = """\
#!/bin/sh
# Stands for ringfence: setup is needed until it has run once.
cd "$(dirname "$0")"
echo "$1 $2" >>calls
case "$1 $2" in
    "setup --dry-run") if [ -e done ]; then echo "No file has to be changed."; else echo "1. a file"; fi ;;
    "setup --yes") touch done ;;
    "status --json") test -e done ;;
    "config check") grep -q right "$4" ;;
    "check --config") test ! -e broken ;;
esac
"""


def play(folder: Path, variables: dict[str, object], *options: str, **environment: str) -> dict[str, int]:
    """Run the role on one host, and return its numbers of changed, failed and other tasks."""
    playbook = folder / "playbook.json"
    playbook.write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["ringfence"]}]), "utf-8"
    )
    own = {
        "ANSIBLE_ROLES_PATH": str(FOLDER),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",  # no file is copied for each task
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "tmp"),
    }
    done = subprocess.run(
        ["ansible-playbook", "-i", "host,", *options, "-e", json.dumps(variables), str(playbook)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | own | environment,
    )
    (folder / "output").write_text(done.stdout + done.stderr, "utf-8")
    recap = re.search(r"^host +: (.*)$", done.stdout, re.MULTILINE)
    assert recap is not None, done.stdout + done.stderr
    numbers = (entry.partition("=") for entry in recap[1].split())
    return {name: int(number) for name, _, number in numbers}


class Host:
    """A host with the program, on which the role runs without a connection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "ringfence"
        self.program.write_text(PROGRAM, "utf-8")
        self.program.chmod(0o755)
        self.config = folder / "ringfence.toml"

    def play(self, *options: str, **variables: object) -> dict[str, int]:
        """Run the role, and return its numbers of changed, failed and other tasks."""
        given = {
            "ringfence_command": str(self.program),
            "ringfence_config_file": str(self.config),
            "ringfence_config_group": "root",
            "ansible_python_interpreter": sys.executable,
            **variables,
        }
        return play(self.folder, given, "-c", "local", *options)

    def calls(self) -> list[str]:
        """Return how the program was called since the last time."""
        file = self.folder / "calls"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    """Return a host on which setup has not run."""
    return Host(tmp_path)


LOOKS = ["setup --dry-run", "status --json"]


@needs_ansible
def test_the_role_sets_up_once(host: Host) -> None:
    """The first run sets up, writes the configuration and checks; the second one changes nothing.

    A configuration is checked before it is written, and reloaded once if it differs. Check mode only reads.
    """
    text = "# right\n"
    shown = host.play("--check")
    assert (shown["changed"] > 0, shown["failed"]) == (True, 0)
    assert host.calls() == [*LOOKS]

    assert host.play(ringfence_config=text)["failed"] == 0
    assert host.config.read_text("utf-8") == text
    assert host.calls() == ["config check", *LOOKS, "setup --yes", "reload --config", "check --config"]

    second = host.play(ringfence_config=text)
    assert (second["changed"], second["failed"]) == (0, 0)
    assert host.calls()[-3:] == [*LOOKS, "check --config"]

    assert host.play(ringfence_config="# wrong\n")["failed"] == 1
    assert host.config.read_text("utf-8") == text


@needs_ansible
def test_check_mode_works_before_the_installation(host: Host) -> None:
    """On a host without ringfence, check mode reports the change and does not fail."""
    host.program.unlink()
    stats = host.play("--check")

    assert (stats["changed"] > 0, stats["failed"]) == (True, 0)


@needs_ansible
def test_no_output_shows_the_configuration(host: Host) -> None:
    """Not even the differences are shown, because the configuration may have secrets."""
    host.config.write_text("# right\ntoken = 'c2VjcmV0'\n", "utf-8")
    for options in ("--check", "-vvv"):
        given = host.play("--diff", options, ringfence_config="# right\ntoken = 'c2VjcmV1'\n")
        assert (given["changed"] > 0, given["failed"]) == (True, 0)
        assert "c2VjcmV" not in (host.folder / "output").read_text("utf-8").partition("TASK [")[2]


@needs_ansible
def test_a_problem_at_the_end_fails_the_play(host: Host) -> None:
    """If ``ringfence check`` finds a problem, the play fails, unless this is not wanted."""
    (host.folder / "broken").touch()

    assert host.play()["failed"] == 1
    assert host.play(ringfence_verify=False)["failed"] == 0


# Ansible calls it as ssh; its last argument is the command for the other host.
CONNECTION = """\
#!/bin/sh
for command; do :; done
exec {entry} sh -c "$command"
"""


def play_there(folder: Path, machine: PbxMachine, *options: str, **variables: object) -> dict[str, int]:
    """Run the role on a machine, as over SSH; return its numbers of changed, failed and other tasks."""
    program = folder / "connection"
    program.write_text(CONNECTION.format(entry=shlex.join(machine.entry())), "utf-8")
    program.chmod(0o755)
    given = {"ansible_python_interpreter": "/usr/bin/python3", **variables}
    own = {"ANSIBLE_SSH_EXECUTABLE": str(program), "ANSIBLE_SSH_TRANSFER_METHOD": "piped"}
    return play(folder, given, "-c", "ssh", *options, **own, ANSIBLE_REMOTE_TEMP="/root/ansible")


@needs_ansible
@pytest.mark.asterisk
@pytest.mark.kernel
def test_the_role_protects_a_real_pbx(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The role sets up an installed package once, takes over a configuration, and the PBX bans a guesser."""
    with Network() as network, pbx_machine(tmp_path, network) as machine:
        machine.install(require_package(tmp_path_factory))
        shown = play_there(tmp_path, machine, "--check")
        assert (shown["changed"], shown["failed"]) == (1, 0)
        assert machine.run("systemctl", "is-active", "ringfence").stdout == "inactive\n"

        first = play_there(tmp_path, machine)
        assert (first["changed"], first["failed"]) == (1, 0)

        config = machine.must("cat", "/etc/ringfence/ringfence.toml") + "# By the role.\n"
        taken = play_there(tmp_path, machine, ringfence_config=config)
        assert (taken["changed"], taken["failed"]) == (2, 0)  # the file and the reload, and no setup
        guess(network)
        until(lambda: machine.banned() == {ATTACKER}, "the ban", pause=0.2)
