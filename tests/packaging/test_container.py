"""The container: its command, with the capabilities of the compose files, on a Debian without systemd."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from debian import lock
from debian.tree import version_of_project
from tests.support.asterisk import tree_of
from tests.support.network import Network
from tests.support.overlay import overlaid

from ringfence.config.loader import load
from ringfence.values.secret import Secret

FOLDER = lock.ROOT / "contrib/container"
FILE = (FOLDER / "Containerfile").read_text("utf-8")
COMPOSE = [(FOLDER / f"compose.{name}.yaml").read_text("utf-8") for name in ("host", "sidecar")]

_RUN = """\
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" sh -euxc "$2"
"""


def granted(compose: str) -> list[str]:
    """Return the capabilities of the container, in the form of setpriv(1)."""
    found = re.search(r"cap_drop: \[ALL\]\n +cap_add: \[(.*)\]", compose)
    assert found is not None
    return [f"+{name.lower()}" for name in found[1].split(", ")]


def test_both_compose_files_grant_the_same() -> None:
    """The files differ in the network and in the volume of the log only."""
    host, sidecar = (
        {*re.findall(r"^    (?:cap_drop|cap_add|read_only|tmpfs|restart|image): .*", text, re.MULTILINE)}
        for text in COMPOSE
    )

    assert sidecar - host == {"    image: asterisk"}
    assert "    network_mode: host\n" in COMPOSE[0]
    assert "    network_mode: service:asterisk\n" in COMPOSE[1]


@pytest.mark.parametrize("compose", COMPOSE)
def test_the_variables_of_the_compose_files_set_keys(compose: str, tmp_path: Path) -> None:
    """The configuration of the image, with the variables and the secret of a compose file, is complete."""
    environ = dict(re.findall(r"^      (RINGFENCE_\w+): (.*)$", compose, re.MULTILINE))
    secret = tmp_path / "secret"
    secret.write_text("kept-in-a-file\n", "utf-8")
    assert environ.pop("RINGFENCE_ASTERISK__AMI__SECRET_FILE") == "/run/secrets/asterisk"
    assert "\n    secrets: [asterisk]\n" in compose
    assert environ == {"RINGFENCE_ALLOW__NETWORKS": '""'}
    environ = {"RINGFENCE_ALLOW__NETWORKS": "", "RINGFENCE_ASTERISK__AMI__SECRET_FILE": str(secret)}

    settings = load(lock.ROOT / "examples/minimal.toml", environ)

    assert settings.asterisk[0].ami.secret == Secret("kept-in-a-file")


def test_the_image_installs_the_package_that_make_deb_builds(package: Path) -> None:
    """The name of the package matches the pattern in the Containerfile."""
    (pattern,) = re.findall(r"^COPY (\S+) /tmp/$", FILE, re.MULTILINE)

    assert package.match(pattern)


@pytest.mark.kernel
def test_the_command_of_the_image_guards_with_its_capabilities(package: Path, tmp_path: Path) -> None:
    """Installed without systemd, the entry point restores rules in the kernel, as its own user."""
    clean = tree_of("debian-13")
    if not (clean / "usr/sbin/nft").exists():
        pytest.skip(f"`make lab` makes {clean}")
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", FILE, re.MULTILINE)[0])
    limits = ["setpriv", "--inh-caps=-all", f"--bounding-set=-all,{','.join(granted(COMPOSE[0]))}"]
    command = " ".join([*limits, *entry])
    script = f"dpkg --install /root/{package.name}; {command} restore; {command} --version; nft list tables"
    with Network() as network, overlaid(clean, tmp_path) as tree:
        shutil.copy(package, tree / "root")
        run = ["unshare", "--mount", "--pid", "--fork", "sh", "-euc", _RUN, "sh", str(tree), script]
        done = subprocess.run(network.in_pbx(*run), capture_output=True, text=True, check=False, timeout=120)
        owner = (tree / "var/lib/ringfence/ringfence.db").stat().st_uid if done.returncode == 0 else 0

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ringfence {version_of_project()}\n" in done.stdout
    assert "table inet ringfence\n" in done.stdout
    assert owner != 0
