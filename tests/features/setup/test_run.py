"""The run of ``setup`` on a host in a folder, without systemd and without a daemon."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.features.setup.world import SECRET, Host, allow_any_reader, make_host
from tests.support.console import ScriptedConsole
from tests.support.fail2ban import configure
from tests.support.pbx_machine import differing

from ringfence.errors import ConfigError, SetupError
from ringfence.features.fail2ban import other_guard
from ringfence.features.setup import command as setup_command
from ringfence.features.setup import session
from ringfence.features.setup.command import SetupRun
from ringfence.findings import Finding

pytestmark = pytest.mark.kernel  # a host in a folder has files of several users

GUARDING = {"firewall": {"enforcing": True}, "alarms": []}
"""The parts of the daemon's status that setup reads after the proof."""


@pytest.fixture(name="host")
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = make_host(tmp_path)
    allow_any_reader(monkeypatch)
    monkeypatch.setattr(setup_command, "find", lambda _paths: host.found())
    monkeypatch.setattr(session, "find_asterisk", host.asterisk)
    monkeypatch.setattr(session, "flush_everything", lambda: None)
    return host


def setup(host: Host) -> bool:
    """Run setup without a question."""
    return SetupRun(host.paths, dry_run=False, yes=True).setup()


def test_each_change_is_shown_with_its_reason(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """The output has a diff of each file, the next steps, and no password."""
    assert setup(host)
    shown = capsys.readouterr().out

    assert f"\n3. {host.etc}/manager.d: a folder for additions to Asterisk's configuration\n" in shown
    assert f"\n+++ {host.etc}/manager.conf\n" in shown
    assert "\n-enabled = no\n+enabled = yes\n" in shown
    assert "  asterisk -rx 'manager reload'\n" in shown
    assert SECRET not in shown
    assert (
        "--  daemon: systemd does not run here; start it: ringfence run; then prove it: ringfence setup"
        in shown
    )


def test_a_second_run_changes_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """It reports that no file has to be changed."""
    setup(host)
    complete = host.digest()
    capsys.readouterr()

    assert setup(host)
    assert "\nNo file has to be changed.\n" in capsys.readouterr().out
    assert differing(complete, host.digest()) == []


def test_an_asterisk_that_refuses_the_user_leaves_everything_as_before(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All files are restored, and the error has the reason."""
    before = host.digest()
    refusal = "There is no manager called ringfence\n"
    unknown = ScriptedConsole(lambda command: "" if command.endswith("reload") else refusal)
    monkeypatch.setattr(Host, "console", unknown)

    with pytest.raises(SetupError, match="Asterisk did not accept the manager user ringfence"):
        setup(host)
    assert differing(before, host.digest()) == []
    assert "setup did not come to its end: restoring everything as it was\n" in capsys.readouterr().err


def test_a_configuration_with_mistakes_is_reported_first(host: Host) -> None:
    """Nothing is inspected or changed before it is right."""
    host.paths.config.write_text("[firewall]\nbackend = 1\n", "utf-8")
    before = host.digest()

    with pytest.raises(ConfigError, match=r"firewall\.backend"):
        setup(host)
    assert host.digest() == before


def test_a_configuration_that_the_units_do_not_read_is_refused_first(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof would succeed with the package's file, and the networks of this one would not be allowed."""
    host.paths.systemd.mkdir(parents=True)
    monkeypatch.setattr(session, "run_program", lambda *call: CompletedProcess(call, 0, b"", b""))
    before = host.digest()

    with pytest.raises(SetupError, match=r"reads /etc/ringfence/ringfence\.toml, not .*/host/etc/ringfence/"):
        setup(host)
    assert host.digest() == before


def test_jails_are_named_before_the_question(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The administrator sees that fail2ban's jail is disabled; without a proof it stays."""
    monkeypatch.setattr(setup_command, "find", lambda _paths: host.found_with_a_jail())
    assert setup(host)

    assert "  fail2ban: take over the bans of asterisk, then disable it\n" in capsys.readouterr().out
    assert not host.fail2ban.exists()


def test_undo_names_what_it_restores(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest change comes first; a conflict is an error, and a second undo has nothing to do."""
    setup(host)
    file = host.etc / "manager.d/ringfence.conf"
    file.write_bytes(file.read_bytes() + b"read = all\n")
    capsys.readouterr()

    assert SetupRun(host.paths, dry_run=True, yes=True).undo()
    assert not SetupRun(host.paths, dry_run=False, yes=True).undo()
    shown = capsys.readouterr()
    assert f"  {host.etc}/logger.conf\n" in shown.out
    assert "Setup is undone, except for the lines above.\n" in shown.out
    assert f"{file} was made by setup and changed since: it stays" in shown.err
    assert SetupRun(host.paths, dry_run=False, yes=True).undo()


def test_undo_names_what_it_removes(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """The administrator sees before the question that the guard ends, and that its database is lost."""
    setup(host)
    capsys.readouterr()

    assert SetupRun(host.paths, dry_run=True, yes=False).undo()
    shown = capsys.readouterr().out
    assert "\nringfence stops, and its rules and bans are removed from the kernel.\n" in shown
    database = f"{host.paths.data}/ringfence.db* (the database, with bans, lists, friends and history)"
    assert f"\nThis is removed: {database}\n" in shown
    assert f"\nThis is removed: {host.paths.logs}/ringfence* (the log)\n" in shown


def test_undo_keeps_a_database_that_was_there_before(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """The undo names only what it removes."""
    (host.paths.data / "ringfence.db").write_bytes(b"")
    setup(host)
    capsys.readouterr()

    assert SetupRun(host.paths, dry_run=False, yes=True).undo()
    assert "ringfence.db" not in capsys.readouterr().out
    assert (host.paths.data / "ringfence.db").exists()


@pytest.fixture(name="proven")
def _proven(host: Host, monkeypatch: pytest.MonkeyPatch, fail2ban_client: None) -> None:
    """Pretend that a daemon answers and that every source was proven, with an enabled jail of fail2ban."""
    configure(host.fail2ban, {"jail.local": "[asterisk]\nenabled = true\n"})
    monkeypatch.setattr(setup_command, "find", lambda _paths: host.found_with_a_jail())
    monkeypatch.setattr(setup_command, "is_reachable", lambda _path: True)
    monkeypatch.setattr(setup_command, "wait_for_sources", lambda _path, **_options: GUARDING)
    monkeypatch.setattr(
        setup_command, "prove", lambda *_arguments, **_options: [Finding(right=True, what="wire")]
    )
    monkeypatch.setattr(other_guard, "reload", lambda: "")


@pytest.mark.usefixtures("proven")
def test_a_fail2ban_that_has_never_run_has_no_bans_to_take_over(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a database the jail is disabled at once."""
    database = f"[Definition]\ndbfile = {host.folder.parent}/gone.sqlite3\n"
    (host.fail2ban / "fail2ban.local").write_text(database, "utf-8")

    assert setup(host)
    assert "ok  fail2ban: jail asterisk is disabled" in capsys.readouterr().out
    assert (host.fail2ban / "jail.d/zz-ringfence.local").exists()


@pytest.mark.usefixtures("proven")
def test_bans_that_cannot_be_taken_over_keep_the_jail(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """The jail stays with the reason; ringfence stays too, because it works."""
    broken = host.folder.parent / "fail2ban.sqlite3"
    broken.write_bytes(b"no database")
    text = f"[Definition]\ndbfile = {broken}\n"
    (host.fail2ban / "fail2ban.local").write_text(text, "utf-8")

    assert not setup(host)
    assert (
        "NO  fail2ban: jail asterisk stays, because its bans cannot be taken over: "
        in capsys.readouterr().out
    )
    assert not (host.fail2ban / "jail.d/zz-ringfence.local").exists()
    assert (host.etc / "manager.d/ringfence.conf").exists()


@pytest.mark.usefixtures("proven")
def test_a_source_that_is_not_proven_keeps_the_jail(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fail2ban goes on until ringfence sees everything."""
    monkeypatch.setattr(
        setup_command, "prove", lambda *_arguments, **_options: [Finding(right=False, what="wire")]
    )

    assert not setup(host)
    assert "fail2ban's jail asterisk stays, until every source works" in capsys.readouterr().err
    assert not (host.fail2ban / "jail.d/zz-ringfence.local").exists()


@pytest.mark.parametrize(
    "report",
    [
        pytest.param({"firewall": {"enforcing": False}}, id="off or a dry run"),
        pytest.param(
            {"firewall": {"enforcing": True}, "alarms": [{"code": "trial.running"}]},
            id="an unconfirmed trial",
        ),
    ],
)
@pytest.mark.usefixtures("proven")
def test_a_ringfence_that_drops_nothing_keeps_the_jail(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: dict[str, object],
) -> None:
    """After ``ringfence off``, in a dry run and in a trial every source works, but only fail2ban bans."""
    monkeypatch.setattr(setup_command, "wait_for_sources", lambda _path, **_options: report)
    database = f"[Definition]\ndbfile = {host.folder.parent}/gone.sqlite3\n"
    (host.fail2ban / "fail2ban.local").write_text(database, "utf-8")

    assert not setup(host)
    assert "fail2ban's jail asterisk stays, " in capsys.readouterr().err
    assert not (host.fail2ban / "jail.d/zz-ringfence.local").exists()
