"""Fixtures: the package, built once, and a package of an earlier version."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.package import earlier_package, require_package, unpack


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package of this commit, built once for the whole run."""
    return require_package(tmp_path_factory)


@pytest.fixture(scope="session")
def contents(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the package and its control files (in DEBIAN/)."""
    return unpack(package, tmp_path_factory.mktemp("contents") / "tree")


@pytest.fixture(scope="session")
def earlier(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a package of an earlier version, with a module that this commit no longer has."""
    folder = tmp_path_factory.mktemp("earlier")
    yield earlier_package(package, folder)
    shutil.rmtree(folder)
