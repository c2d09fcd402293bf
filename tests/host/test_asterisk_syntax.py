"""Errors of Asterisk's files, which a real Asterisk refuses too."""

from pathlib import Path

import pytest

from ringfence.host.asterisk_conf import AsteriskFiles

VALID = "; a\n[general](!)\na = 1\n[b](general)\n[b](+)\nc => d\n#tryinclude nothing.conf\n#exec /bin/false\n"


def fault(folder: Path, text: str) -> str:
    """Return the fault of a file with this text, without the folder."""
    (folder / "x.conf").write_text(text, "utf-8")
    return AsteriskFiles(folder).fault_of("x.conf").removeprefix(f"{folder}/")


def test_a_valid_file_has_none(tmp_path: Path) -> None:
    """Templates, additions, optional includes and unknown commands are valid."""
    assert fault(tmp_path, VALID) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[general\nenabled = yes\n", "x.conf:1: a section has no closing ]"),
        ("[a](+\n", "x.conf:1: a ( has no closing )"),
        ("enabled = yes\n", "x.conf:1: an option stands before the first section"),
        ("[a]\n[b](c)\n", "x.conf:2: there is no section c before this line"),
        ("[b]()\n", "x.conf:1: there is no section (without a name) before this line"),
        ("[a](+)\n", "x.conf:1: there is no section a before this line"),
        ("[a]\n\n#include gone.conf\n", "x.conf:3: gone.conf is included, and does not exist"),
        ("[a]\n\\ b = 1\n", "x.conf:2: a backslash stands before a character that it cannot escape"),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """A fault names the file, the line and the reason."""
    assert fault(tmp_path, text) == expected


def test_a_fault_in_an_included_file_does_not_count(tmp_path: Path) -> None:
    """Asterisk ignores the rest of the included file, and accepts the main file."""
    (tmp_path / "y.conf").write_text("[b](a)\n[c\n", "utf-8")

    assert fault(tmp_path, "[a]\n#include y.conf\n") == ""


def test_a_loop_of_includes_is_cut(tmp_path: Path) -> None:
    """Asterisk ends the loop at its depth, and accepts the file; very many files are too large."""
    assert fault(tmp_path, "[a]\n#include x.conf\n") == ""
    assert "too large for ringfence" in fault(tmp_path, "[a]\n" + "#tryinclude x.conf\n" * 3)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The reason is part of the fault."""
    assert (
        AsteriskFiles(tmp_path).fault_of("gone.conf").endswith("gone.conf: it is not a file that can be read")
    )


def test_planned_contents_count(tmp_path: Path) -> None:
    """A file is checked as it will be, and so are files that do not exist yet."""
    (tmp_path / "x.conf").write_text("[a\n", "utf-8")
    planned = {tmp_path / "x.conf": b"[a]\n#include d/*.conf\n", tmp_path / "d/y.conf": b"[b](a)\n"}

    assert AsteriskFiles(tmp_path, planned=planned).fault_of("x.conf") == ""
