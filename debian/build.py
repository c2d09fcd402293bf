"""``make deb``: build the Debian package, with the same bytes from the same commit.

    python -m debian.build FOLDER

Writes FOLDER/ringfence_VERSION_all.deb with the version of pyproject.toml. README.source explains the parts.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from zipfile import ZipFile

from debian.lock import COMPILED, LOCK, OPTIONAL_EXTENSION, ROOT, name_of
from debian.manual import completions, manual_page

HERE = Path(__file__).parent

LIBRARY = "usr/lib/ringfence"
DOCS = "usr/share/doc/ringfence"
SHARED = "usr/share/ringfence"
UNITS = "usr/lib/systemd/system"

FILES = {
    "debian/launcher": "usr/sbin/ringfence",
    "debian/ringfence.tmpfiles": "usr/lib/tmpfiles.d/ringfence.conf",
    "debian/ringfence.rtupdate": "usr/share/python3/runtime.d/ringfence.rtupdate",
    "contrib/systemd/ringfence.service": f"{UNITS}/ringfence.service",
    "contrib/systemd/ringfence-early.service": f"{UNITS}/ringfence-early.service",
    "contrib/systemd/ringfence-web.service": f"{UNITS}/ringfence-web.service",
    "contrib/systemd/ringfence-notify.socket": f"{UNITS}/ringfence-notify.socket",
    "contrib/systemd/ringfence-notify@.service": f"{UNITS}/ringfence-notify@.service",
    "contrib/systemd/ringfence.sysusers": "usr/lib/sysusers.d/ringfence.conf",
    "contrib/systemd/ringfence-web.sysusers": "usr/lib/sysusers.d/ringfence-web.conf",
    "contrib/systemd/iptables.conf": f"{SHARED}/contrib/systemd/iptables.conf",
    "contrib/asterisk/ringfence.manager.conf": f"{SHARED}/contrib/asterisk/ringfence.manager.conf",
    "contrib/asterisk/ringfence.logger.conf": f"{SHARED}/contrib/asterisk/ringfence.logger.conf",
    "contrib/prometheus/ringfence.rules.yml": f"{SHARED}/contrib/prometheus/ringfence.rules.yml",
    "contrib/grafana/ringfence.json": f"{SHARED}/contrib/grafana/ringfence.json",
    "contrib/asterisk/ringfence.logrotate": "etc/logrotate.d/ringfence",
    "examples/minimal.toml": "etc/ringfence/ringfence.toml",
    "README.md": f"{DOCS}/README.md",
    "CHANGELOG.md": f"{DOCS}/CHANGELOG.md",
}
"""Each file that is taken from the project as it is, and its place in the package."""

LINKS = {f"{DOCS}/contrib": "../../ringfence/contrib"}
"""Symbolic links: the pages of docs/ find the files that they link."""

MODES = {
    "etc/ringfence": 0o750,
    "etc/ringfence/ringfence.toml": 0o640,
    "usr/sbin/ringfence": 0o755,
    "usr/share/python3/runtime.d/ringfence.rtupdate": 0o755,
    **{f"DEBIAN/{script}": 0o755 for script in ("postinst", "prerm", "postrm")},
}
"""The modes that are not 0755 for a folder and 0644 for a file."""

PLACES = {
    "/opt/ringfence/bin/ringfence": "/usr/sbin/ringfence",
    "/opt/ringfence": f"/{LIBRARY}",
    "file:///usr/local/src/ringfence": f"man:ringfence(8) file:///{DOCS}",
}
"""Paths in the units for a venv, and the same in the package."""

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/ringfence",
    "zsh": "usr/share/zsh/vendor-completions/_ringfence",
    "fish": "usr/share/fish/vendor_completions.d/ringfence.fish",
}
"""Where each shell finds the completion of a program."""

_ELF = b"\x7fELF"


class BuildError(Exception):
    """The package cannot be built as it must be."""


def version_of_project() -> str:
    """Return the version in pyproject.toml."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return version


def build(folder: Path) -> Path:
    """Build the package into ``folder``, and return its path."""
    version = version_of_project()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _time_of_commit())
    package = folder / f"ringfence_{version}_all.deb"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ringfence-deb-") as name:
        wheels, tree = Path(name, "wheels"), Path(name, "tree")
        download(wheels)
        add_libraries(wheels, tree / LIBRARY)
        add_program(tree / LIBRARY, version)
        add_files(tree)
        add_documents(tree, version, datetime.fromtimestamp(epoch, UTC))
        add_control(tree, version)
        normalise(tree, epoch)
        pack(tree, package, epoch)
    return package


def _time_of_commit() -> str:
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout


def download(folder: Path) -> None:
    """Download the wheels of the lock file; pip refuses every other one."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    kinds = ["--only-binary=:all:", "--platform=any", "--python-version=3.11", *COMPILED]
    subprocess.run([*pip, *kinds, f"--requirement={LOCK}", f"--dest={folder}"], check=True)


def add_libraries(wheels: Path, library: Path) -> None:
    """Unpack the wheels, without the optional extensions; raise BuildError if anything compiled is left."""
    for wheel in sorted(wheels.iterdir()):
        with ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".so") and name_of(wheel.name) in OPTIONAL_EXTENSION:
                    continue
                archive.extract(name, library)
    for file in _files(library):
        if file.read_bytes().startswith(_ELF):
            raise BuildError(
                f"{file.relative_to(library)} is compiled; the package is for every architecture"
            )


def add_program(library: Path, version: str) -> None:
    """Copy ringfence itself, with the metadata from which it reads its version."""
    shutil.copytree(
        ROOT / "src/ringfence", library / "ringfence", ignore=shutil.ignore_patterns("__pycache__")
    )
    metadata = library / f"ringfence-{version}.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: ringfence\nVersion: {version}\n", "utf-8")


def add_files(tree: Path) -> None:
    """Copy the files that the project has, and write the package's paths into the units."""
    for source, place in FILES.items():
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, tree / place)
    for unit in (tree / UNITS).iterdir():
        text = unit.read_text("utf-8")
        for venv, place in PLACES.items():
            text = text.replace(venv, place)
        unit.write_text(text, "utf-8")
    for link, target in LINKS.items():
        (tree / link).symlink_to(target)


def add_documents(tree: Path, version: str, time: datetime) -> None:
    """Write the manual pages, the completion, the pages of docs/, the changelog and the licences."""
    shutil.copytree(ROOT / "docs", tree / DOCS / "docs")
    shutil.copytree(ROOT / "examples", tree / DOCS / "examples")
    commands, settings = (
        (ROOT / "docs" / name).read_text("utf-8") for name in ("cli.md", "configuration.md")
    )
    date = f"{time:%Y-%m-%d}"
    summary = "guard an Asterisk PBX: ban password guessers and extension scanners"
    page = manual_page("ringfence", 8, summary, commands, date, version)
    _write(tree / "usr/share/man/man8/ringfence.8.gz", _compressed(page))
    page = manual_page("ringfence.toml", 5, "configuration of ringfence", settings, date, version)
    _write(tree / "usr/share/man/man5/ringfence.toml.5.gz", _compressed(page))
    for shell, text in completions(commands).items():
        _write(tree / COMPLETIONS[shell], text.encode())
    changelog = (
        f"ringfence ({version}) unstable; urgency=medium\n\n"
        f"  * /{DOCS}/CHANGELOG.md lists what changes for users.\n\n"
        f" -- ringfence maintainers <ringfence@localhost>  {time:%a, %d %b %Y %H:%M:%S %z}\n"
    )
    _write(tree / DOCS / "changelog.gz", _compressed(changelog))
    _write(tree / DOCS / "copyright", _licences(tree / LIBRARY).encode())


def _licences(library: Path) -> str:
    """Return the licence of ringfence, and the text of each library's licence."""
    parts = [(HERE / "copyright").read_text("utf-8")]
    for folder in sorted(library.glob("*.dist-info")):
        texts = [
            file for file in _files(folder) if file.name.upper().startswith(("LICEN", "COPYING", "NOTICE"))
        ]
        if not texts and not folder.name.startswith("ringfence-"):
            raise BuildError(f"{folder.name} has no licence")
        for text in texts:
            parts += [
                f"\n==== {folder.name.removesuffix('.dist-info')}: {text.name}\n\n",
                text.read_text("utf-8"),
            ]
    return "".join(parts)


def add_control(tree: Path, version: str) -> None:
    """Write what dpkg reads: the control file, the scripts, the checksums and the list of conffiles."""
    files = [file.relative_to(tree) for file in _files(tree)]
    size = sum((tree / file).stat().st_size // 1024 + 1 for file in files)
    folder = tree / "DEBIAN"
    folder.mkdir()
    control = Template((HERE / "control").read_text("utf-8"))
    (folder / "control").write_text(control.substitute(version=version, kibibytes=size), "utf-8")
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / script, folder / script)
    conffiles = [file for file in files if file.parts[0] == "etc"]
    (folder / "conffiles").write_text("".join(f"/{file}\n" for file in conffiles), "utf-8")
    sums = (
        f"{hashlib.md5((tree / file).read_bytes(), usedforsecurity=False).hexdigest()}  {file}\n"
        for file in files
        if file not in conffiles
    )
    (folder / "md5sums").write_text("".join(sums), "utf-8")


def normalise(tree: Path, epoch: int) -> None:
    """Set mode and time of every file and folder, which otherwise depend on who builds, and when."""
    for path in sorted(tree.rglob("*"), reverse=True):  # a folder after its contents
        if not path.is_symlink():
            path.chmod(MODES.get(str(path.relative_to(tree)), 0o755 if path.is_dir() else 0o644))
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    tree.chmod(0o755)
    os.utime(tree, (epoch, epoch))


def pack(tree: Path, package: Path, epoch: int) -> None:
    """Write the package. One thread, because the number of threads changes what xz writes.

    xz's default level takes eight times as long, and makes the package smaller by a fifth.
    """
    command = [
        "dpkg-deb",
        "--root-owner-group",
        "-Zxz",
        "-z1",
        "--threads-max=1",
        "--build",
        str(tree),
        str(package),
    ]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def _files(folder: Path) -> Iterator[Path]:
    """Yield every regular file below a folder, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _compressed(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def main() -> None:
    """Build the package, and print its path."""
    parser = argparse.ArgumentParser(prog="debian.build", description="Build the Debian package.")
    parser.add_argument("folder", type=Path, help="the folder that gets the package")
    print(build(parser.parse_args().folder))


if __name__ == "__main__":
    main()
