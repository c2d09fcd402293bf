"""Asterisk's console: asked by its program, with bounds, and what its silence means."""

from pathlib import Path

import pytest

from ringfence.host import console
from ringfence.host.console import AsteriskConsole


def made(folder: Path, script: str) -> AsteriskConsole:
    """Make a console whose program is a script; it is given ``-rx COMMAND``."""
    program = folder / "asterisk"
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(0o755)
    return AsteriskConsole(str(program))


def test_the_answer_is_what_is_printed(tmp_path: Path) -> None:
    """The command is one argument, whatever is in it, and bytes that are no text do no harm."""
    asked = made(tmp_path, r'printf "%s|%s|\377" "$1" "$2"')

    assert asked.show("dialplan show a b; rm") == "-rx|dialplan show a b; rm|�"
    assert asked.lack == ""


def test_a_command_that_is_not_known_is_no_answer(tmp_path: Path) -> None:
    """Without chan_sip there is no ``sip show``: that is no lack of the console's."""
    asked = made(tmp_path, "echo \"No such command 'sip show peers' (type 'core show help sip show')\"")

    assert asked.show("sip show peers") is None
    assert asked.lack == ""


def test_who_is_not_let_in_is_told_so(tmp_path: Path) -> None:
    """Without Asterisk, or without the right, what is printed is no answer, whatever it says."""
    asked = made(tmp_path, "echo Unable to connect to remote asterisk; exit 1")

    assert asked.show("core show version") is None
    assert asked.lack == "asterisk -rx is not let in (be root), or no Asterisk runs here"


def test_an_answer_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without end, or that never comes, is given up, its program is ended, and nobody is asked again."""
    monkeypatch.setattr(console, "MOST_BYTES", 1000)
    endless = made(tmp_path, "exec yes")
    assert endless.show("dialplan show") is None
    assert endless.lack.startswith("no answer within")

    (tmp_path / "asterisk").write_text("#!/bin/sh\nsleep 600\n", "utf-8")
    silent = AsteriskConsole(str(tmp_path / "asterisk"), patience=0.05)
    assert silent.show("dialplan show") is None
    (tmp_path / "asterisk").write_text("#!/bin/sh\necho again\n", "utf-8")
    assert silent.show("dialplan show") is None


def test_without_the_program_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for where it is installed, and its absence is told, as is a program that does not run."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(console, "_PLACES", str(tmp_path))
    assert AsteriskConsole().lack == "there is no program asterisk here"
    assert AsteriskConsole().show("core show version") is None

    absent = AsteriskConsole(str(tmp_path / "gone"))
    assert absent.show("core show version") is None
    assert absent.lack == f"{tmp_path}/gone cannot be run: No such file or directory"
