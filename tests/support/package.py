"""The Debian package of this commit, built at most once in a run."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import pytest
from debian import build


@functools.cache
def built_package() -> Path:
    """Build the package, and return its path."""
    folder = Path(tempfile.mkdtemp(prefix="rf-deb-"))
    atexit.register(shutil.rmtree, folder)
    return build.build(folder)


def require_package() -> Path:
    """Return the package; skip the test if it cannot be built here."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is in the package dpkg")
    return built_package()
