"""A run of setup on a host in a folder: its changes, and what is taken back after an error."""

import shutil
from pathlib import Path

import pytest
from tests.features.setup.world import Host, allow_any_reader, make_host, with_exempt
from tests.support.pbx_machine import differing

from ringfence.errors import FirewallError, SetupError
from ringfence.features.fail2ban import other_guard
from ringfence.features.setup import journal as journal_module
from ringfence.features.setup import session
from ringfence.features.setup.journal import open_journal, read_journal
from ringfence.features.setup.plan import Plan, plan
from ringfence.features.setup.session import SetupSession, Systemd, reload_asterisk, require_manager_user
from ringfence.host.console import NoConsole
from ringfence.host.file_changes import FileState

pytestmark = pytest.mark.kernel  # a host in a folder has files of several users


@pytest.fixture(name="host")
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = make_host(tmp_path)
    allow_any_reader(monkeypatch)
    monkeypatch.setattr(session, "flush_everything", lambda: None)
    monkeypatch.setattr(session, "find_asterisk", host.asterisk)
    return host


def run(host: Host, planned: Plan, *, fail: bool = False) -> list[str]:
    """Run setup with these changes; return what could not be taken back if it fails at the end."""
    with open_journal(host.paths.state) as journal:
        current = SetupSession(host.paths, journal, Systemd(host.paths.systemd), lambda: False)
        current.begin(planned)
        for change in planned.changes:
            current.apply(change)
        if fail:
            return [*current.take_back()]
        current.complete()
    return []


def undo(host: Host, *, reachable: bool = False) -> list[str]:
    """Undo everything."""
    with open_journal(host.paths.state) as journal:
        return [*SetupSession(host.paths, journal, Systemd(host.paths.systemd), lambda: reachable).undo()]


def test_a_run_and_its_undo(host: Host) -> None:
    """After the undo, no file differs, and files that the daemon and Asterisk wrote are gone."""
    before = host.digest()
    run(host, plan(host.found(), host.paths))
    assert read_journal(host.paths.state).complete
    (host.paths.logs / "ringfence").write_bytes(b"a line")
    (host.paths.data / "ringfence.db").write_bytes(b"")
    (host.paths.data / "ringfence.db-wal").write_bytes(b"")

    assert undo(host) == []
    assert differing(before, host.digest()) == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_failed_second_run_restores_the_first(host: Host, *, killed: bool) -> None:
    """Only the changes of the failed run are taken back, with those of a run before it that was killed."""
    first = plan(host.found(), host.paths)
    run(host, first)
    complete = host.digest()
    written = {change.path: change.after for change in first.changes if isinstance(change.after, FileState)}
    second = plan(with_exempt(host.found(), "10.0.0.0/24"), host.paths, written)
    assert second.changes
    if killed:
        with open_journal(host.paths.state) as journal:
            current = SetupSession(host.paths, journal, Systemd(host.paths.systemd), lambda: False)
            current.begin(second)
            current.apply(second.changes[0])
        second = Plan((), (), second.log)

    assert run(host, second, fail=True) == []
    assert [name for name in differing(complete, host.digest()) if "ringfence-setup" not in name] == []
    assert read_journal(host.paths.state).complete


def test_a_failed_run_after_one_without_changes_removes_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator had made all files by hand. The rules and the database since then stay."""
    run(host, plan(host.found(), host.paths))
    shutil.rmtree(host.paths.state)
    monkeypatch.setattr(session, "flush_everything", lambda: pytest.fail("the rules are removed"))
    planned = plan(host.found(), host.paths)
    assert planned.changes == ()
    run(host, planned)
    database = host.paths.data / "ringfence.db"
    database.write_bytes(b"bans")

    assert run(host, planned, fail=True) == []
    assert database.read_bytes() == b"bans"
    assert read_journal(host.paths.state).complete


def test_a_file_that_changes_during_the_question_is_an_error(host: Host) -> None:
    """The administrator agreed to another change."""
    planned = plan(host.found(), host.paths)
    planned.changes[0].path.write_text("another program", "utf-8")

    with pytest.raises(SetupError, match="was changed by somebody else just now; fix: run setup again"):
        run(host, planned)


@pytest.mark.parametrize("name", ["manager.conf", "logger.conf"])
def test_a_file_that_changes_before_the_plan_is_an_error(host: Host, name: str) -> None:
    """The plan has the text that was read first, which would undo the change of the other program."""
    found = host.found()
    text = (host.etc / name).read_text("utf-8") + "; a change of another program\n"
    (host.etc / name).write_text(text, "utf-8")

    planned = plan(found, host.paths)
    with pytest.raises(SetupError, match=f"/{name} was changed by somebody else just now; fix: run setup"):
        run(host, planned)
    assert (host.etc / name).read_text("utf-8") == text


@pytest.mark.parametrize("second", [False, True])
def test_a_systemd_that_does_not_obey_is_named(
    host: Host, monkeypatch: pytest.MonkeyPatch, *, second: bool
) -> None:
    """An undo names each unit that may run or start again, and a failed second run the missing restart."""
    host.paths.systemd.mkdir(parents=True)

    def refuse(*_command: str) -> None:
        raise OSError("no bus")

    monkeypatch.setattr(session, "run_program", refuse)
    first = plan(host.found(), host.paths)
    run(host, first)
    if second:
        written = {one.path: one.after for one in first.changes if isinstance(one.after, FileState)}
        lines = run(host, plan(with_exempt(host.found(), "10.0.0.0/24"), host.paths, written), fail=True)
        assert lines == ["systemctl restart: no bus; fix: systemctl restart ringfence.service"]
    else:
        assert undo(host) == [
            f"systemctl {verb}: no bus; fix: systemctl {verb} {name}"
            for name in ("ringfence.service", "ringfence-early.service")
            for verb in ("stop", "disable")
        ]


def test_a_daemon_that_still_runs_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules would come back at once, so they are left, and the fix is named."""
    run(host, plan(host.found(), host.paths))
    assert undo(host, reachable=True) == ["a ringfence still runs; fix: stop it, then run: ringfence off"]

    def fail() -> None:
        raise FirewallError("no right")

    run(host, plan(host.found(), host.paths))
    monkeypatch.setattr(session, "flush_everything", fail)
    assert undo(host) == ["the rules of ringfence stay in the kernel until a reboot: no right"]


def test_fail2ban_is_restored_first(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jail's file is removed and fail2ban reloads before the other files are restored."""
    (host.fail2ban / "jail.d").mkdir(parents=True)
    before = host.digest()
    reloads = []

    def reload() -> str:
        reloads.append((host.etc / "manager.d/ringfence.conf").exists())
        return "it does not run"

    monkeypatch.setattr(other_guard, "reload", reload)
    planned = plan(host.found(), host.paths)
    jail = other_guard.OtherGuard(host.paths.etc).disabling()
    run(host, Plan((*planned.changes, jail), (), planned.log))

    assert undo(host) == ["fail2ban did not reload (it does not run); fix: fail2ban-client reload"]
    assert reloads == [True]
    assert differing(before, host.digest()) == []


def test_without_asterisk_the_files_are_restored_nevertheless(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asterisk reads them at its next start, and this is reported."""
    run(host, plan(host.found(), host.paths))

    def fail() -> None:
        raise SetupError("no running Asterisk is visible here")

    monkeypatch.setattr(session, "find_asterisk", fail)
    [line] = undo(host)
    assert line == "Asterisk reads the restored files at its next start (no running Asterisk is visible here)"


def test_asterisk_must_know_the_manager_user(host: Host) -> None:
    """Asterisk's console shows whether it accepted the file."""
    reload_asterisk(host.console)
    with pytest.raises(SetupError, match="Asterisk did not accept the manager user ringfence"):
        require_manager_user(host.console)

    run(host, plan(host.found(), host.paths))
    require_manager_user(host.console)


def test_an_asterisk_that_ended_cannot_reload() -> None:
    """The message has the console's reason."""
    with pytest.raises(SetupError, match="Asterisk does not reload its manager: it has no control socket"):
        reload_asterisk(NoConsole("it has no control socket"))


@pytest.mark.parametrize("reachable", [False, True])
def test_a_run_that_could_not_begin_leaves_the_guard_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch, *, reachable: bool
) -> None:
    """On a full disk the journal has no state of the units: the rules of a ringfence that guards stay."""

    def full(*_: object) -> None:
        raise SetupError("cannot write journal.json: No space left on device")

    planned = plan(host.found(), host.paths)
    monkeypatch.setattr(session, "flush_everything", lambda: pytest.fail("the rules are removed"))
    monkeypatch.setattr(journal_module, "write_file", full)
    with open_journal(host.paths.state) as opened:
        current = SetupSession(host.paths, opened, Systemd(host.paths.systemd), lambda: reachable)
        with pytest.raises(SetupError, match="No space left"):
            current.begin(planned)
        assert [*current.take_back()] == []
    assert not host.paths.state.exists()
