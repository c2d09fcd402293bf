"""Fixtures: the package, built once, and a package of an earlier version."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian import build
from tests.support.package import require_package

EARLIER = "0.0.1"
"""A version that is smaller than every version of ours."""


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the package of this commit, built once for the whole run."""
    return require_package()


@pytest.fixture(scope="session")
def contents(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the package and its control files (in DEBIAN/)."""
    folder = tmp_path_factory.mktemp("contents") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def earlier(contents: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a package of an earlier version, with a module that this commit no longer has."""
    tree = tmp_path_factory.mktemp("earlier") / "tree"
    shutil.copytree(contents, tree, symlinks=True)
    control = tree / "DEBIAN/control"
    version = f"Version: {build.version_of_project()}"
    control.write_text(control.read_text("utf-8").replace(version, f"Version: {EARLIER}"), "utf-8")
    (tree / build.LIBRARY / "ringfence/gone.py").write_text("", "utf-8")
    metadata = next((tree / build.LIBRARY).glob("ringfence-*.dist-info"))
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: ringfence\nVersion: {EARLIER}\n", "utf-8"
    )
    metadata.rename(metadata.with_name(f"ringfence-{EARLIER}.dist-info"))
    package = tree.with_name(f"ringfence_{EARLIER}_all.deb")
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(package)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    yield package
    shutil.rmtree(tree.parent)
