"""The platform's programs: found, run, and stopped."""

import os
from pathlib import Path

import pytest

from ringfence.errors import FirewallToolError, FirewallUnsupportedError
from ringfence.firewall import requirements
from ringfence.firewall.requirements import find_program, run_program


def script(folder: Path, text: str) -> str:
    """Make a program with this shell code."""
    program = folder / "firewall"
    program.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    program.chmod(0o755)
    return str(program)


def test_a_program_is_found_on_path_and_in_the_sbin_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program is found although PATH lacks the sbin folders; a missing one is an error with its package."""
    program = script(tmp_path, "true")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FirewallUnsupportedError, match="not installed; fix: apt-get install package"):
        find_program("firewall", "package")
    monkeypatch.setattr(requirements, "_FOLDERS", (str(tmp_path),))
    assert find_program("firewall", "package") == program


def test_a_program_that_ends_has_a_status_and_two_outputs(tmp_path: Path) -> None:
    """Input, output and errors are passed on, in the C locale; the process ID is that of the program."""
    program = script(tmp_path, "cat; echo $$ $LC_ALL >&2; exit 3")
    done = run_program([program], "text", "package")

    assert (done.status, done.output, done.errors) == (3, "text", f"{done.pid} C\n")
    assert done.pid != os.getpid()


def test_a_program_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not end in time is killed, which is an error; so is one that cannot be run."""
    monkeypatch.setattr(requirements, "_TIMEOUT", 0.2)
    with pytest.raises(FirewallToolError, match=r"did not end within 0\.2 s"):
        run_program([script(tmp_path, "exec sleep 5")], "", "package")
    with pytest.raises(FirewallUnsupportedError, match=r"cannot be run: .*apt-get install package"):
        run_program([str(tmp_path / "absent")], "", "package")
