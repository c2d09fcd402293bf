"""The metadata for package indexes."""

import tomllib

from debian.build import version_of_package
from debian.lock import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OLDEST, NEWEST = 11, 14
"""The minor versions of Python 3 that are supported."""


def test_each_supported_version_of_python_is_named() -> None:
    """The classifiers name every version from the oldest one that pip accepts, and no other."""
    prefix = "Programming Language :: Python :: 3."
    named = [name.removeprefix(prefix) for name in PROJECT["classifiers"] if name.startswith(prefix)]

    assert named == [str(minor) for minor in range(OLDEST, NEWEST + 1)]
    assert PROJECT["requires-python"] == f">=3.{OLDEST}"
    assert PROJECT["classifiers"] == sorted(PROJECT["classifiers"])


def test_the_changelog_of_the_package_has_the_version_of_the_project() -> None:
    """The latest entry of debian/changelog is for this version, and has the number of the package."""
    version, _, number = version_of_package().rpartition("-")

    assert version == PROJECT["version"]
    assert number.isdecimal()
