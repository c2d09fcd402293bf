"""fail2ban's jails: the file that disables them, and the reload."""

from pathlib import Path

import pytest
from attrs import evolve
from tests.support.fail2ban import configure

from ringfence.fail2ban.jails import read_configuration
from ringfence.setup import fail2ban_jails
from ringfence.setup.fail2ban_jails import disabling, is_disabling


@pytest.mark.usefixtures("fail2ban_client")
def test_fail2ban_reads_the_file_last(tmp_path: Path) -> None:
    """The jail is disabled, also if jail.local and another file of jail.d enable it; the others stay."""
    files = {
        "jail.local": "[sshd]\nenabled = true\n[asterisk]\nenabled = true\n",
        "jail.d/local.local": "[asterisk]\nenabled = true\n",
    }
    configure(tmp_path, files)
    change = disabling(tmp_path, ("asterisk",))
    change.path.write_bytes(change.after.content)
    found = read_configuration(tmp_path)

    assert [jail.name for jail in found.jails] == ["sshd"]
    assert is_disabling(change)
    assert not is_disabling(evolve(change, path=tmp_path / "jail.local"))


def test_a_reload_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing program and an error of the program have their reason; success has none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fail2ban_jails.reload() == "the program fail2ban-client is not installed"

    program = tmp_path / "fail2ban-client"
    for script, problem in (("exit 0", ""), ("echo 'no socket' >&2; exit 255", "no socket")):
        program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        program.chmod(0o755)
        assert fail2ban_jails.reload() == problem
