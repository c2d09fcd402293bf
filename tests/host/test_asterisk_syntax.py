"""Errors of Asterisk's files, which a real Asterisk refuses too."""

from pathlib import Path

import pytest

from ringfence.host.asterisk_conf import faults_of

VALID = "; a\n[general](!)\na = 1\n[b](general)\n[b](+)\nc => d\n#tryinclude nothing.conf\n#exec /bin/false\n"


def faults(folder: Path, text: str) -> list[str]:
    """Return the faults of a file with this text, without the folder."""
    (folder / "x.conf").write_text(text, "utf-8")
    return [fault.removeprefix(f"{folder}/") for fault in faults_of(folder / "x.conf")]


def test_a_valid_file_has_none(tmp_path: Path) -> None:
    """Templates, additions, optional includes and unknown commands are valid."""
    assert faults(tmp_path, VALID) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[general\nenabled = yes\n", "x.conf:1: a section has no closing ]"),
        ("[a](+\n", "x.conf:1: a ( has no closing )"),
        ("enabled = yes\n", "x.conf:1: an option stands before the first section"),
        ("[a]\n[b](c)\n", "x.conf:2: there is no section c before this line"),
        ("[a](+)\n", "x.conf:1: there is no section a before this line"),
        ("[a]\n\n#include gone.conf\n", "x.conf:3: gone.conf is included and does not exist"),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, text: str, fault: str) -> None:
    """A fault names the file, the line and the reason."""
    assert fault in faults(tmp_path, text)


def test_a_fault_in_an_included_file_counts(tmp_path: Path) -> None:
    """Sections continue over included files, and a fault names the included file."""
    (tmp_path / "y.conf").write_text("[b](a)\n[c\n", "utf-8")

    assert faults(tmp_path, "[a]\n#include y.conf\n") == ["y.conf:2: a section has no closing ]"]


def test_a_loop_of_includes_is_a_fault(tmp_path: Path) -> None:
    """Files that include each other without end are reported once for each way."""
    assert faults(tmp_path, "[a]\n#include x.conf\n")[0].endswith("the files include each other too deeply")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The reason of the system is part of the fault."""
    assert faults_of(tmp_path / "gone.conf")[0].endswith("cannot be read: No such file or directory")
