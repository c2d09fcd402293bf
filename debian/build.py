"""``make deb``: build the Debian package and its source package, with the same bytes from the same commit.

    python -m debian.build [--source] FOLDER

Writes FOLDER/ringfence_VERSION_all.deb with the version of debian/changelog, or the files of the source
package. README.source explains the parts.
"""

import argparse
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from debian.lock import ROOT, download
from debian.tree import BuildError, version_of_project

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Debian's programs only: the Python of a venv must not run the build."""

CHANGELOG = Path(__file__).with_name("changelog")


def version_of_package() -> str:
    """Return the latest version in debian/changelog: that of the project, and the number of the package."""
    head = CHANGELOG.read_text("utf-8").partition("\n")[0]
    return head.partition("(")[2].partition(")")[0]


def build(folder: Path) -> Path:
    """Build the package into ``folder``, and return its path."""
    package = f"ringfence_{version_of_package()}_all.deb"
    for program in ("dh", "dh_python3"):
        if shutil.which(program, path=PATH) is None:
            fix = "apt-get install --no-install-recommends debhelper dh-python"
            raise BuildError(f"{program} is missing; fix: {fix}")
    with _source_tree() as tree:
        # Nothing is compiled, so the compiler that dpkg expects (build-essential) need not be there.
        _run(["dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps"], tree)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree.parent / package, folder)
    return folder / package


def build_source(folder: Path) -> None:
    """Build the source package into ``folder``: the project, the wheels, and debian/."""
    with _source_tree() as tree:
        name = f"ringfence_{version_of_project()}"
        parts = [path for path in sorted(tree.iterdir()) if path.name not in {"debian", "wheels"}]
        _archive(tree.parent / f"{name}.orig.tar.xz", parts, tree.parent)
        _archive(tree.parent / f"{name}.orig-wheels.tar.xz", [tree / "wheels"], tree)
        _run(["dpkg-source", "--build", str(tree)], tree.parent)
        folder.mkdir(parents=True, exist_ok=True)
        for file in tree.parent.glob("ringfence_*"):
            shutil.copy(file, folder)


@contextmanager
def _source_tree() -> Iterator[Path]:
    """Yield a copy of the project, without what git ignores, and with the wheels."""
    with tempfile.TemporaryDirectory(prefix="ringfence-deb-") as name:
        tree = Path(name, f"ringfence-{version_of_project()}")
        listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        for file in listed.rstrip("\0").split("\0"):
            if (ROOT / file).exists():
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, tree / file)
        download(tree / "wheels")
        yield tree


def _archive(file: Path, parts: Iterable[Path], root: Path) -> None:
    """Write an archive whose bytes depend on the names and the contents of its files only."""
    with lzma.open(file, "wb", preset=1) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for part in parts:
            archive.add(part, str(part.relative_to(root)), filter=_normalised)


def _normalised(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = _epoch()
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _epoch() -> int:
    """Return the time of the latest entry of debian/changelog, or the one that the environment demands."""
    command = ["dpkg-parsechangelog", f"--file={CHANGELOG}", "--show-field=Timestamp"]
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _run(command: list[str], folder: Path) -> None:
    """Run a program that builds; print what it wrote only if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["PATH"] = PATH
    environment["SOURCE_DATE_EPOCH"] = str(_epoch())
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        sys.stderr.buffer.write(done.stdout)
        done.check_returncode()


def main() -> None:
    """Build the package or its source package."""
    parser = argparse.ArgumentParser(prog="debian.build", description="Build the Debian package.")
    parser.add_argument("folder", type=Path, help="the folder that gets the package")
    parser.add_argument("--source", action="store_true", help="build the source package")
    given = parser.parse_args()
    try:
        if given.source:
            build_source(given.folder)
        else:
            print(build(given.folder))
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
