"""fail2ban as a guard that setup replaces: which jails are found, the file that disables them, the reload."""

from pathlib import Path

import pytest
from tests.support.fail2ban import configure

from ringfence.features.fail2ban import other_guard
from ringfence.features.fail2ban.jails import read_configuration
from ringfence.features.fail2ban.other_guard import OtherGuard

_JAILS = "[sshd]\nenabled = true\n[asterisk]\nenabled = {on}\n[pbx]\nfilter = asterisk\nenabled = true\n"


@pytest.mark.usefixtures("fail2ban_client")
def test_enabled_jails_for_asterisk_are_found(tmp_path: Path) -> None:
    """The name or the filter shows them; without fail2ban none is found."""
    etc = tmp_path / "fail2ban"
    assert OtherGuard(tmp_path).jails == ()
    assert OtherGuard(tmp_path).found == "fail2ban  no enabled jail guards Asterisk"

    configure(etc, {"jail.local": _JAILS.format(on="true")})
    assert OtherGuard(tmp_path).jails == ("asterisk", "pbx")
    configure(etc, {"jail.local": _JAILS.format(on="false")})
    assert OtherGuard(tmp_path).jails == ("pbx",)


@pytest.mark.usefixtures("fail2ban_client")
def test_a_mistake_in_a_file_of_fail2ban_hides_no_jail(tmp_path: Path) -> None:
    """A running fail2ban goes on with its old jails, so setup does not report that there are none."""
    configure(tmp_path / "fail2ban", {"jail.local": "enabled = true\n"})

    other = OtherGuard(tmp_path)
    assert other.found.startswith("fail2ban  its jails are not known, and stay: ")
    assert "fail2ban-client -d failed with code 255" in other.found
    assert other.jails == ()


def test_a_fail2ban_without_its_client_has_no_jails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a removed package may stay."""
    (tmp_path / "fail2ban").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert OtherGuard(tmp_path).found == "fail2ban  no enabled jail guards Asterisk"


def test_jails_stay_if_fail2ban_cannot_be_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hand-over fails with the reason, and everything that was proven before stays."""
    other = OtherGuard(tmp_path)
    other.jails = ("asterisk",)

    assert not other.hand_over(tmp_path / "ringfence.toml", lambda _change: pytest.fail("a jail is disabled"))
    assert (
        "NO  fail2ban: jail asterisk stays, because its bans cannot be taken over: "
        in capsys.readouterr().out
    )


@pytest.mark.usefixtures("fail2ban_client")
def test_fail2ban_reads_the_file_last(tmp_path: Path) -> None:
    """The jail is disabled, also if jail.local and another file of jail.d enable it; the others stay."""
    etc = tmp_path / "fail2ban"
    files = {
        "jail.local": "[sshd]\nenabled = true\n[asterisk]\nenabled = true\n",
        "jail.d/local.local": "[asterisk]\nenabled = true\n",
    }
    configure(etc, files)
    other = OtherGuard(tmp_path)
    change = other.disabling()
    change.path.write_bytes(change.after.content)
    found = read_configuration(etc)

    assert [jail.name for jail in found.jails] == ["sshd"]
    assert change.path == other.file


@pytest.mark.parametrize("names", [("asterisk",), ("asterisk", "asterisk-security")])
def test_each_jail_is_disabled(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Each jail has a section, as docs/fail2ban.md has it."""
    (tmp_path / "fail2ban/jail.d").mkdir(parents=True)
    other = OtherGuard(tmp_path)
    other.jails = names
    lines = other.disabling().after.content.decode().split("\n")

    assert [line for line in lines if line.startswith("[")] == [f"[{name}]" for name in names]
    assert lines.count("enabled = false") == len(names)


def test_a_later_run_enables_no_jail_again(tmp_path: Path) -> None:
    """The jails that an earlier run disabled stay disabled beside one that was enabled since."""
    (tmp_path / "fail2ban/jail.d").mkdir(parents=True)
    other = OtherGuard(tmp_path)
    other.jails = ("asterisk",)
    other.file.write_bytes(other.disabling().after.content)
    later = OtherGuard(tmp_path)
    later.jails = ("pbx",)
    text = later.disabling().after.content.decode()

    assert text.count("# Made by") == 1
    assert text.endswith("[asterisk]\nenabled = false\n\n[pbx]\nenabled = false\n")


def test_a_reload_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing program and an error of the program have their reason; success has none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert other_guard.reload() == "the program fail2ban-client is not installed"

    program = tmp_path / "fail2ban-client"
    for script, problem in (("exit 0", ""), ("echo 'no socket' >&2; exit 255", "no socket")):
        program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        program.chmod(0o755)
        assert other_guard.reload() == problem
