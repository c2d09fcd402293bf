"""The Debian package of this commit, built at most once in a run, and one of an earlier version."""

import atexit
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from debian import build, tree

EARLIER = "0.0.1"
"""A version that is smaller than every version of ours."""


@functools.cache
def built_package() -> Path:
    """Build the package, and return its path."""
    folder = Path(tempfile.mkdtemp(prefix="rf-deb-"))
    atexit.register(shutil.rmtree, folder)
    return build.build(folder)


def require_package(factory: pytest.TempPathFactory) -> Path:
    """Return the package, which all processes of a run share; skip the test if it cannot be built here."""
    for program, name in (("dpkg-deb", "dpkg"), ("dh", "debhelper"), ("dh_python3", "dh-python")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is in the package {name}")
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    folder = run / "deb"
    with (run / "deb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        return next(folder.glob("*.deb"), None) or build.build(folder)


def unpack(package: Path, folder: Path) -> Path:
    """Unpack a package and its control files (in DEBIAN/) into a new folder."""
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(folder)], check=True)
    return folder


def earlier_package(package: Path, folder: Path) -> Path:
    """Make a package of an earlier version, with a module that this commit no longer has."""
    root = unpack(package, folder / "tree")
    control = root / "DEBIAN/control"
    version = f"Version: {build.version_of_package()}"
    control.write_text(control.read_text("utf-8").replace(version, f"Version: {EARLIER}"), "utf-8")
    (root / tree.LIBRARY / "ringfence/gone.py").write_text("", "utf-8")
    metadata = next((root / tree.LIBRARY).glob("ringfence-*.dist-info"))
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: ringfence\nVersion: {EARLIER}\n", "utf-8"
    )
    metadata.rename(metadata.with_name(f"ringfence-{EARLIER}.dist-info"))
    earlier = folder / f"ringfence_{EARLIER}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(earlier)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return earlier
