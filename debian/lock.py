"""``make lock``: pin the Python dependencies of the Debian package, each by version and hash.

pip resolves the dependencies of pyproject.toml and reports what it would install. Only wheels for every
platform are accepted, because the package is for every architecture. Run it with Python 3.11, the oldest
version that the package supports: newer versions of Python need a part of these wheels only.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCK = Path(__file__).with_name("wheels.lock")

PURE = ("--platform=any", "--implementation=py", "--abi=none")
"""pip's options for wheels without compiled parts."""
COMPILED = ("--platform=manylinux2014_x86_64", "--implementation=cp", "--abi=cp311")
"""pip's options for the wheel of one platform."""
OPTIONAL_EXTENSION = ("markupsafe",)
"""Dependencies without a pure wheel. Their compiled part is optional, and the package leaves it out."""
NEED_EXTENSION = ("jinja2",)
"""Dependencies that need nothing but one of these, which pip cannot find among the pure wheels."""
EXTRA = "web"
"""The optional dependencies that the package contains too."""

_HEAD = """\
# Written by `make lock`. The wheels in the Debian package: pip installs nothing else (--require-hashes).
"""


def name_of(requirement: str) -> str:
    """Return the name in a requirement or in a file name of a wheel, as package indexes compare names."""
    name, *_ = re.split(r"-(?=\d)|[<>=~! ]", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[str]:
    """Return the dependencies in pyproject.toml, also those of the live page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found: list[str] = [*project["dependencies"], *project["optional-dependencies"][EXTRA]]
    return found


def resolve(wanted: list[str], *options: str) -> list[str]:
    """Return a line of the lock file for each wheel that pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--target=unused", "--only-binary=:all:", "--python-version=3.11", "--report=-", *options]
    done = subprocess.run([*command, *wanted], stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return [_line(entry) for entry in report["install"]]


def _line(entry: dict[str, Any]) -> str:
    name, version = entry["metadata"]["name"], entry["metadata"]["version"]
    hashes = entry["download_info"]["archive_info"]["hashes"]
    return f"{name_of(name)}=={version} --hash=sha256:{hashes['sha256']}"


def download(folder: Path) -> None:
    """Download the wheels of the lock file; pip refuses every other one."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    kinds = ["--only-binary=:all:", "--platform=any", "--python-version=3.11", *COMPILED]
    subprocess.run([*pip, *kinds, f"--requirement={LOCK}", f"--dest={folder}"], check=True)


def main() -> None:
    """Write the lock file."""
    everything = requirements()
    compiled = [one for one in everything if name_of(one) in OPTIONAL_EXTENSION]
    alone = [one for one in everything if name_of(one) in NEED_EXTENSION]
    lines = resolve([one for one in everything if one not in [*compiled, *alone]], *PURE)
    lines += resolve(alone, "--no-deps", *PURE)
    lines += resolve(compiled, "--no-deps", *COMPILED)
    LOCK.write_text(_HEAD + "".join(f"{line}\n" for line in sorted(lines)), "utf-8")


if __name__ == "__main__":
    main()
