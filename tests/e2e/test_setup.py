"""``ringfence setup`` on machines with systemd and a real Asterisk, for each layout of its files."""

import shutil
from pathlib import Path

import pytest
from debian import lock
from tests.support.daemon import until
from tests.support.network import Network
from tests.support.pbx_layouts import LAYOUTS, LaidOut
from tests.support.pbx_machine import Installation, PbxMachine, differing, digest_of, pbx_machine
from tests.support.setup_commands import ATTACKER, SOURCES, WATCHED, guess, proven, setup, undo

pytestmark = [pytest.mark.asterisk, pytest.mark.kernel]

# `make test` tries FreePBX, and Debian by the tests of autopkgtest and Ansible; `make test-all` every layout.
ALWAYS = ("freepbx",)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layout, id=name, marks=() if name in ALWAYS else pytest.mark.long)
        for name, layout in LAYOUTS.items()
    ],
)
def test_two_commands_protect_a_pbx_and_undo_leaves_no_trace(
    layout: LaidOut, package: Path, tmp_path: Path
) -> None:
    """After setup every source is proven and a guesser is banned; undo restores each file."""
    installed = Installation(layout.release, layout.files, layout.conf)
    with Network() as network, pbx_machine(tmp_path, network, installed) as machine:
        machine.install(package)
        before = digest_of(machine.root, *WATCHED)
        done = setup(machine)

        conf = layout.conf.lstrip("/")
        changed = differing(before, digest_of(machine.root, conf))
        files = sorted(name.removeprefix(f"{conf}/") for name in changed if not _is_folder(machine, name))
        assert f"layout    {layout.name}, {layout.conf}" in done.split("\n")
        assert set(layout.changed) <= set(files)
        assert proven(done) == SOURCES
        allowed = (machine.root / "etc/ringfence/ringfence.toml").read_text("utf-8")
        assert (f'    "{layout.trunk}/32",  # trunk trunk\n' in allowed) == bool(layout.trunk)
        assert machine.banned() == set()
        guess(network)
        until(lambda: machine.banned() == {ATTACKER}, "the ban", pause=0.2)

        undo(machine)
        assert differing(before, digest_of(machine.root, *WATCHED)) == []
        assert machine.must("nft", "list", "tables") == ""
        assert machine.run("systemctl", "is-enabled", "ringfence").stdout == "disabled\n"
        assert "no manager called ringfence" in machine.cli("manager show user ringfence")
        assert "/var/log/ringfence/ringfence" not in machine.cli("logger show channels")


@pytest.mark.long
def test_setup_works_on_debian_13(package: Path, tmp_path: Path) -> None:
    """The newer Debian has another systemd and another Python."""
    with Network() as network, pbx_machine(tmp_path, network, debian="debian-13") as machine:
        machine.install(package)
        before = digest_of(machine.root, *WATCHED)
        assert proven(setup(machine)) == SOURCES

        undo(machine)
        assert differing(before, digest_of(machine.root, *WATCHED)) == []


def test_the_test_of_autopkgtest_sets_up(package: Path, tmp_path: Path) -> None:
    """The installed package connects to Asterisk and back, as the source package's test demands."""
    with Network() as network, pbx_machine(tmp_path, network) as machine:
        machine.install(package)
        shutil.copy(lock.LOCK.parent / "tests/setup", machine.root / "root")

        machine.must("/root/setup")
        assert machine.must("nft", "list", "tables") == ""


def _is_folder(machine: PbxMachine, name: str) -> bool:
    return (machine.root / name).is_dir()
