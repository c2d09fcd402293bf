"""The Debian package: the same bytes from the same commit, and what is in it."""

import gzip
import re
import subprocess
from pathlib import Path

import pytest
from debian import build, licences, lock, tree

UNITS = "usr/lib/systemd/system"
MOST_BYTES = 10 * 10**6


@pytest.mark.long
def test_the_same_commit_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    """A second build, at another time and in another folder, writes the same file."""
    assert build.build(tmp_path).read_bytes() == package.read_bytes()


def test_the_package_is_small_and_for_every_architecture(package: Path, contents: Path) -> None:
    """The package has at most 10 MB, the project's version, and no compiled file."""
    shown = ["dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", str(package)]
    found = subprocess.run(shown, capture_output=True, text=True, check=True).stdout

    assert package.stat().st_size <= MOST_BYTES
    assert found == f"ringfence {build.version_of_package()} all"
    assert package.name == f"{found.replace(' ', '_')}.deb"
    assert [path for path in contents.rglob("*") if path.suffix in {".so", ".pyc"}] == []


def test_every_wheel_is_pure_except_those_with_a_reason(contents: Path) -> None:
    """Only the dependencies that are listed with a reason came from a wheel for one platform."""
    compiled = set()
    for wheel in (contents / tree.LIBRARY).glob("*.dist-info/WHEEL"):
        tags = re.findall(r"^Tag: (.*)", wheel.read_text("utf-8"), re.MULTILINE)
        if not {*tags} <= {"py2-none-any", "py3-none-any"}:
            compiled.add(lock.name_of(wheel.parent.name))

    assert compiled == {*lock.OPTIONAL_EXTENSION}


def test_owners_and_modes_do_not_depend_on_the_builder(package: Path) -> None:
    """Everything belongs to root; programs can be run, the configuration is closed to others."""
    listing = subprocess.run(
        ["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=5) for line in listing.stdout.splitlines()]
    modes = {row[5].removeprefix("./"): row[0] for row in rows}

    assert {row[1] for row in rows} == {"root/root"}
    assert len({tuple(row[3:5]) for row in rows}) == 1  # the time of the commit
    assert modes["usr/sbin/ringfence"] == "-rwxr-xr-x"
    assert modes["etc/ringfence/"] == "drwxr-x---"
    assert modes["etc/ringfence/ringfence.toml"] == "-rw-r-----"


def test_configuration_files_are_conffiles(contents: Path) -> None:
    """Every file in /etc is a conffile, so dpkg never replaces a changed one without a question."""
    files = [f"/{path.relative_to(contents)}" for path in (contents / "etc").rglob("*") if path.is_file()]

    assert (contents / "DEBIAN/conffiles").read_text("utf-8").split() == sorted(files)
    assert files == ["/etc/ringfence/ringfence.toml"]


def test_dpkg_can_verify_the_files(contents: Path) -> None:
    """The checksums of the package match its files."""
    sums = contents / "DEBIAN/md5sums"
    done = subprocess.run(["md5sum", "--check", "--quiet", str(sums)], cwd=contents, check=False)

    assert done.returncode == 0
    assert len(sums.read_text("utf-8").splitlines()) > 500


def test_each_shell_finds_its_completion(contents: Path) -> None:
    """The completions are in the folders that bash, zsh and fish search, and name the program."""
    for place in tree.COMPLETIONS.values():
        assert " ringfence" in (contents / place).read_text("utf-8")


def test_units_name_only_paths_of_the_package(contents: Path) -> None:
    """The units run the package's program, and no path of a venv or a checkout is left."""
    for name in ("ringfence", "ringfence-early", "ringfence-web", "ringfence-feeds", "ringfence-notify@"):
        text = (contents / UNITS / f"{name}.service").read_text("utf-8")
        assert "/opt" not in text
        assert "/usr/local" not in text
        assert "ExecStart=/usr/sbin/ringfence " in text
        assert re.search(
            r"^Documentation=man:ringfence\(8\) file:///usr/share/doc/\S+\.md$", text, re.MULTILINE
        )


def test_the_scripts_are_shell() -> None:
    """dash, Debian's shell, parses the scripts of the package."""
    scripts = [lock.LOCK.with_name(f"ringfence.{name}") for name in ("postinst", "prerm", "postrm")]
    for script in (*scripts, *lock.LOCK.parent.glob("tests/[a-b]*"), lock.LOCK.with_name("tests") / "setup"):
        assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


def test_the_licence_of_every_library_is_in_the_package(contents: Path) -> None:
    """The copyright file has a paragraph for ringfence and for each library, with holder and licence."""
    text = (contents / tree.DOCS / "copyright").read_text("utf-8")
    names = [line.partition("==")[0] for line in lock.LOCK.read_text("utf-8").splitlines() if line[0] != "#"]
    found = [part.split("\n") for part in re.split(r"^Files: ", text, flags=re.MULTILINE)[1:]]

    assert text == licences.COPYRIGHT.read_text("utf-8")
    assert text.startswith("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n")
    files = [lines[0].removeprefix("wheels/").removesuffix("-*") for lines in found]
    assert [lock.name_of(name) for name in files] == ["*", *names]
    for lines in found:
        assert lines[1].startswith("Copyright: ")
        assert len([line for line in lines if re.match(r"License: \S", line)]) == 1
        assert all(re.match(r"(?:Copyright:|License:)? |$", line) for line in lines[1:])


def test_the_links_of_the_pages_work_in_the_package(contents: Path) -> None:
    """The folders that the pages of docs/ link are next to them."""
    folder = contents / tree.DOCS

    assert (folder / "examples/full.toml").is_file()
    assert (folder / "contrib/asterisk/ringfence.manager.conf").is_file()
    for page in ("8/ringfence.8", "5/ringfence.toml.5"):
        with gzip.open(contents / f"usr/share/man/man{page}.gz", "rt") as text:
            assert text.readline().startswith(".TH ")
