"""Asterisk's console: limits of its answers, and the reasons for missing ones."""

from pathlib import Path

import pytest

from ringfence.audit import console
from ringfence.audit.console import AsteriskConsole


def console_of(folder: Path, script: str) -> AsteriskConsole:
    """Return a console whose program is this script; it gets ``-rx COMMAND``."""
    program = folder / "asterisk"
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(0o755)
    return AsteriskConsole(str(program), timeout=60.0)


def test_the_answer_is_what_is_printed(tmp_path: Path) -> None:
    """The command is one argument with any characters, and invalid UTF-8 in the answer is accepted."""
    asked = console_of(tmp_path, r'printf "%s|%s|\377" "$1" "$2"')

    assert asked.show("dialplan show a b; rm") == "-rx|dialplan show a b; rm|�"
    assert asked.problem == ""


def test_a_command_that_is_not_known_is_no_answer(tmp_path: Path) -> None:
    """Without chan_sip the command ``sip show`` does not exist; the console stays usable."""
    asked = console_of(tmp_path, "echo \"No such command 'sip show peers' (type 'core show help sip show')\"")

    assert asked.show("sip show peers") is None
    assert asked.problem == ""


def test_no_access(tmp_path: Path) -> None:
    """Without Asterisk, or without access, there is no answer, whatever is printed."""
    asked = console_of(tmp_path, "echo Unable to connect to remote asterisk; exit 1")

    assert asked.show("core show version") is None
    assert asked.problem == "asterisk -rx got no access (fix: run this as root), or Asterisk is not running"


def test_an_answer_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A too long or late answer is discarded, its program is killed, and no further command is run."""
    monkeypatch.setattr(console, "MAX_BYTES", 1000)
    endless = console_of(tmp_path, "exec yes")
    assert endless.show("dialplan show") is None
    assert endless.problem.startswith("no answer within")

    (tmp_path / "asterisk").write_text("#!/bin/sh\nsleep 600\n", "utf-8")
    silent = AsteriskConsole(str(tmp_path / "asterisk"), timeout=0.05)
    assert silent.show("dialplan show") is None
    (tmp_path / "asterisk").write_text("#!/bin/sh\necho again\n", "utf-8")
    assert silent.show("dialplan show") is None


def test_without_the_program_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual folders are searched; a missing or broken program is the problem."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(console, "_PROGRAM_PATH", str(tmp_path))
    assert AsteriskConsole().problem == "the program asterisk is not installed"
    assert AsteriskConsole().show("core show version") is None

    absent = AsteriskConsole(str(tmp_path / "gone"))
    assert absent.show("core show version") is None
    assert absent.problem == f"{tmp_path}/gone cannot be run: No such file or directory"
