"""What pybuild installs: the program, its libraries, the units, the documents and the completion.

    python -m debian.tree FOLDER

debian/rules runs it. The rest is debhelper's: the scripts, the compressed pages and the package itself.
"""

import argparse
import os
import shutil
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

from debian.lock import OPTIONAL_EXTENSION, ROOT, name_of
from debian.manual import completions, manual_page

WHEELS = ROOT / "wheels"
"""The wheels of wheels.lock: a part of the source package."""

LIBRARY = "usr/share/ringfence/python"
DOCS = "usr/share/doc/ringfence"
SHARED = "usr/share/ringfence"
UNITS = "lib/systemd/system"
"""Where debhelper looks for units. debian/rules then moves them to /usr/lib."""

FILES = {
    "debian/launcher": "usr/sbin/ringfence",
    "contrib/systemd/ringfence.service": f"{UNITS}/ringfence.service",
    "contrib/systemd/ringfence-early.service": f"{UNITS}/ringfence-early.service",
    "contrib/systemd/ringfence-web.service": f"{UNITS}/ringfence-web.service",
    "contrib/systemd/ringfence-feeds.service": f"{UNITS}/ringfence-feeds.service",
    "contrib/systemd/ringfence-notify.socket": f"{UNITS}/ringfence-notify.socket",
    "contrib/systemd/ringfence-notify@.service": f"{UNITS}/ringfence-notify@.service",
    "contrib/systemd/ringfence.sysusers": "usr/lib/sysusers.d/ringfence.conf",
    "contrib/systemd/ringfence-web.sysusers": "usr/lib/sysusers.d/ringfence-web.conf",
    "contrib/systemd/ringfence-feeds.sysusers": "usr/lib/sysusers.d/ringfence-feeds.conf",
    "contrib/systemd/iptables.conf": f"{SHARED}/contrib/systemd/iptables.conf",
    "contrib/asterisk/ringfence.manager.conf": f"{SHARED}/contrib/asterisk/ringfence.manager.conf",
    "contrib/asterisk/ringfence.logger.conf": f"{SHARED}/contrib/asterisk/ringfence.logger.conf",
    "contrib/asterisk/ringfence.logrotate": f"{SHARED}/contrib/asterisk/ringfence.logrotate",
    "contrib/prometheus/ringfence.rules.yml": f"{SHARED}/contrib/prometheus/ringfence.rules.yml",
    "contrib/grafana/ringfence.json": f"{SHARED}/contrib/grafana/ringfence.json",
    "examples/minimal.toml": "etc/ringfence/ringfence.toml",
    "README.md": f"{DOCS}/README.md",
    "CHANGELOG.md": f"{DOCS}/CHANGELOG.md",
}
"""Each file that is taken from the project as it is, and its place in the package."""

LINKS = {f"{DOCS}/contrib": "../../ringfence/contrib"}
"""Symbolic links: the pages of docs/ find the files that they link."""

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
    (tree / "usr/sbin/ringfence").chmod(0o755)
    for unit in (tree / UNITS).iterdir():
        text = unit.read_text("utf-8")
        for venv, place in PLACES.items():
            text = text.replace(venv, place)
        unit.write_text(text, "utf-8")
    for link, target in LINKS.items():
        (tree / link).symlink_to(target)


def add_documents(tree: Path, version: str, time: datetime) -> None:
    """Write the manual pages, the completion, and the pages of docs/."""
    shutil.copytree(ROOT / "docs", tree / DOCS / "docs")
    shutil.copytree(ROOT / "examples", tree / DOCS / "examples")
    commands, settings = (
        (ROOT / "docs" / name).read_text("utf-8") for name in ("cli.md", "configuration.md")
    )
    date = f"{time:%Y-%m-%d}"
    summary = "guard an Asterisk PBX: ban password guessers and extension scanners"
    page = manual_page("ringfence", 8, summary, commands, date, version)
    _write(tree / "usr/share/man/man8/ringfence.8", page)
    page = manual_page("ringfence.toml", 5, "configuration of ringfence", settings, date, version)
    _write(tree / "usr/share/man/man5/ringfence.toml.5", page)
    for shell, text in completions(commands).items():
        _write(tree / COMPLETIONS[shell], text)


def _files(folder: Path) -> Iterator[Path]:
    """Yield every regular file below a folder, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def main() -> None:
    """Install everything below a folder."""
    parser = argparse.ArgumentParser(prog="debian.tree", description="Install what the package contains.")
    parser.add_argument("folder", type=Path, help="the folder that stands for /")
    tree = parser.parse_args().folder
    version = version_of_project()
    add_libraries(WHEELS, tree / LIBRARY)
    add_program(tree / LIBRARY, version)
    add_files(tree)
    add_documents(tree, version, datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC))


if __name__ == "__main__":
    main()
