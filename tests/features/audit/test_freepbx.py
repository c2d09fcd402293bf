"""FreePBX's modules with known holes: ``check --hardening`` compares the versions in their files."""

from pathlib import Path

import pytest
from tests.support.console import ScriptedConsole

from ringfence.features.audit import freepbx
from ringfence.features.audit.freepbx import HOLES, freepbx_findings
from ringfence.features.audit.hardening import hardening_findings
from ringfence.findings import Finding
from ringfence.host.asterisk_conf import AsteriskFiles

XML = """\
<module>
\t<rawname>{name}</rawname>
\t<name>Some Module</name>
\t<supported>
\t\t<version>1.0</version>
\t</supported>
\t<version>{version}</version>
\t<changelog>*1.2* Packaging of ver 1.2</changelog>
\t<depends>
\t\t<version>14.0.1rc1.2</version>
\t\t<module>core ge 12.0.1alpha25</module>
\t</depends>
</module>
"""
"""The parts of a module.xml of FreePBX that contain versions."""


def installed(folder: Path, **versions: str) -> Path:
    """Write a file for each module; return the folder of the modules."""
    modules = folder / freepbx.MODULES
    modules.mkdir(parents=True, exist_ok=True)
    for name, version in versions.items():
        (modules / name).mkdir(exist_ok=True)
        (modules / name / "module.xml").write_text(XML.format(name=name, version=version), "utf-8")
    return modules


def found(folder: Path, **versions: str) -> list[Finding]:
    """Return the findings about these modules."""
    return list(freepbx_findings(installed(folder, **versions)))


def test_a_host_without_freepbx_has_no_line(tmp_path: Path) -> None:
    """Nothing is reported without the folder, and without a module of the table in it."""
    assert list(freepbx_findings(tmp_path / "modules")) == []
    assert found(tmp_path, core="16.0.1") == []


@pytest.mark.parametrize(
    ("module", "version", "fix"),
    [
        ("endpoint", "15.0.65", "fwconsole ma upgrade endpoint (15.0.66 or later)"),
        ("endpoint", "16.0.88.4", "fwconsole ma upgrade endpoint (16.0.92 or later)"),
        ("endpoint", "16.0.9", "fwconsole ma upgrade endpoint (16.0.92 or later)"),
        ("endpoint", "17.0.5alpha1", "fwconsole ma upgrade endpoint (17.0.6 or later)"),
        ("framework", "15.0.38", "a newer FreePBX; the fixed versions are 16.0.44, 17.0.23"),
        ("framework", "17.0.19.32", "fwconsole ma upgrade framework (17.0.23 or later)"),
        ("missedcall", "17.0.1.2", "fwconsole ma upgrade missedcall (17.0.4 or later)"),
        ("ucp", "16.0.40", "a newer FreePBX; the fixed versions are 17.0.9"),
    ],
)
def test_an_old_module_is_reported(tmp_path: Path, module: str, version: str, fix: str) -> None:
    """The line names the module, its version, the holes, and the fix."""
    [line] = found(tmp_path, **{module: version})
    [hole] = [one for one in HOLES if one.module == module]

    assert (line.right, line.what) == (False, f"hardening: FreePBX module {module}")
    assert line.detail.startswith(f"{version} has {', '.join(hole.names)}: {hole.what}; fix: {fix}; then ")


def test_new_modules_are_fine(tmp_path: Path) -> None:
    """A fixed version has none of the holes, nor has one of a later FreePBX."""
    [line] = found(tmp_path, endpoint="16.0.92", framework="17.0.23.1", ucp="18.0.1", missedcall="17.0.10")

    assert line.right
    assert line.detail.startswith(
        "endpoint 16.0.92, framework 17.0.23.1, missedcall 17.0.10, ucp 18.0.1 have none"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<module><version>17.0.1",
        *(
            f'<?xml version="1.0" encoding="{name}"?><module><version>latest</version></module>'
            for name in ("nonexistent", "shift_jis", "utf-7", "idna")
        ),
        "<module><name>x</name></module>",
        "<module><version>latest</version></module>",
        "<other><version>17.0.1</version></other>",
        f"<module><version>{'1.' * 9_999}1</version></module>",
        '<!DOCTYPE x [<!ENTITY a "17"><!ENTITY b "&a;&a;">]><module><version>&b;</version></module>',
        '<!DOCTYPE x SYSTEM "file:///etc/shadow"><module><version>17.0.1</version></module>',
    ],
)
def test_a_file_that_cannot_be_read_is_unknown(tmp_path: Path, text: str) -> None:
    """A damaged or hostile file is neither good nor bad, and stops nothing."""
    modules = installed(tmp_path, endpoint="17.0.7", ucp="17.0.9")
    (modules / "endpoint/module.xml").write_text(text, "utf-8")
    [line] = freepbx_findings(modules)

    assert (line.right, line.what) == (None, "hardening: FreePBX module endpoint")
    assert line.detail == f"{modules}/endpoint/module.xml names no version that can be read"


def test_a_large_file_and_a_lost_link_are_unknown(tmp_path: Path) -> None:
    """Only the first part of a file is read, and a link to nothing is reported."""
    modules = installed(tmp_path, endpoint="17.0.7")
    file = modules / "endpoint/module.xml"
    file.write_text(f"<module>{' ' * freepbx._MOST_BYTES}<version>17.0.7</version></module>", "utf-8")
    assert [line.right for line in freepbx_findings(modules)] == [None]
    file.unlink()
    file.symlink_to(tmp_path / "missing")
    assert [line.right for line in freepbx_findings(modules)] == [None]


def test_the_table_is_consistent() -> None:
    """Each row has versions that can be compared, one of each major version of FreePBX, oldest first."""
    for hole in HOLES:
        fixed = [freepbx._parts(version) for version in hole.fixed]
        assert fixed == sorted(fixed)
        assert all(fixed)
        assert len({version[0] for version in fixed}) == len(fixed)
    assert len({hole.module for hole in HOLES}) == len(HOLES)


def test_hardening_contains_the_lines(tmp_path: Path) -> None:
    """An old module is one of the findings, so nothing says that all is well."""
    (tmp_path / "asterisk.conf").touch()
    installed(tmp_path, endpoint="17.0.2")
    lines = list(hardening_findings(AsteriskFiles(tmp_path), ScriptedConsole(), "ringfence", root=tmp_path))

    assert [line.what for line in lines if line.right is False] == ["hardening: FreePBX module endpoint"]
    assert not any("nothing is wide open" in line.detail for line in lines)
