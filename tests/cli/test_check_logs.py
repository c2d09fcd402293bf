"""Findings of ``check`` about the logs: which are read, what they contain, and what is missing."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from ringfence.cli import check_logs
from ringfence.cli.check_logs import TAIL, log_findings
from ringfence.config.converters import LevelName, Name, Pattern, UserName
from ringfence.config.schema import AsteriskSettings, CustomSettings, LogSettings
from ringfence.host.asterisk_logging import Asterisk
from ringfence.host.conf_reader import Unread
from ringfence.sources.logs import LOG_PATHS
from ringfence.sources.state import WITHOUT_LOG

LOST = Unread("logger.conf", "/etc/asterisk/logger.conf:1", "a section has no closing ]")
CHANNEL = "the channel of contrib/asterisk/ringfence.logger.conf"
LINE = b"[2026-11-20 06:05:02.730] %b[7] x.c: anything\n"


@pytest.fixture(name="places")
def _places() -> Iterator[tuple[Path, ...]]:
    """Create readable folders for the standard log paths, without files; return the paths."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for parent in {place.parent for place in LOG_PATHS}:
            (folder / parent.name).mkdir()
        yield tuple(folder / place.parent.name / place.name for place in LOG_PATHS)


def lines(
    places: tuple[Path, ...],
    logs: LogSettings,
    *,
    report: Mapping[str, Any] | None = None,
    asterisk: Asterisk | None = None,
    alone: bool = True,
) -> list[str]:
    """Return the findings about these logs of a PBX."""
    pbx = AsteriskSettings(name=Name("pbx"), logs=logs)
    found = log_findings(pbx, report, asterisk, alone=alone, places=places)
    return [finding.line for finding in found]


def settings(channels: Mapping[Path, set[str]], **more: Any) -> Asterisk:  # noqa: ANN401 - what it has
    """Return Asterisk's settings with these log channels."""
    given = {path: frozenset(levels) for path, levels in channels.items()}
    good = Asterisk(channels=given, security=True, iax_silent=False, gate=None, chan_sip_tls=False, unread=())
    return evolve(good, **more)


FOUND = LogSettings()


def test_only_a_regular_file_is_opened(places: tuple[Path, ...], tmp_path: Path) -> None:
    """A writer who waits at a FIFO goes on waiting: root does not open what a link in a log's place names."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    places[0].symlink_to(fifo)
    writer = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_WRONLY)))
    writer.start()
    try:
        lines(places, FOUND)
        writer.join(0.2)
        assert writer.is_alive()
    finally:
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        writer.join()


def test_a_loop_of_links_is_a_path_like_others(places: tuple[Path, ...], tmp_path: Path) -> None:
    """A channel of logger.conf may be a link to itself: the other logs are reported all the same."""
    places[0].write_bytes(LINE % b"NOTICE")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    channels = {loop: {"notice"}, places[0]: {"notice", "security"}}

    assert lines(places, FOUND, asterisk=settings(channels)) == [
        f"ok  pbx: log {places[0]}: is read (notice, security)"
    ]


def test_nothing_is_found(places: tuple[Path, ...]) -> None:
    """A missing log is an error, since callers can hide from AMI; the finding has the fix."""
    assert lines(places, FOUND) == [
        f"NO  pbx: logs: no log is found; fix: add {CHANNEL}, or set paths in [asterisk.logs] ([] for none)"
    ]


def test_logs_switched_off(places: tuple[Path, ...]) -> None:
    """If logs are switched off, the effect is reported, which is not an error."""
    places[0].touch()
    told = f"--  pbx: logs: no log is configured: {WITHOUT_LOG}"

    assert lines(places, LogSettings(paths=())) == [told]
    assert lines(places, LogSettings(paths=()), alone=False) == [told]


def test_several_pbxs_need_paths(places: tuple[Path, ...]) -> None:
    """With several PBXs each needs its paths, or an empty list."""
    places[0].touch()
    [line] = lines(places, FOUND, alone=False)

    assert line.startswith(
        "NO  pbx: logs: with several [[asterisk]] sections no log is found automatically; fix"
    )


def test_the_own_channel_is_right(places: tuple[Path, ...]) -> None:
    """A log with useful levels and no packets is ok, by Asterisk's files or by the log's lines."""
    own = places[0]
    own.write_bytes(LINE % b"SECURITY" + LINE % b"NOTICE")
    places[3].touch()
    right = [f"ok  pbx: log {own}: is read (notice, security)"]

    assert lines(places, FOUND) == right
    assert lines(places, FOUND, asterisk=settings({own: {"notice", "security"}})) == right
    assert lines(places, FOUND, asterisk=settings({own: {"error"}}, unread=(LOST,))) == right


def test_a_new_log_has_unknown_levels(places: tuple[Path, ...]) -> None:
    """If neither Asterisk's files nor the log show the levels, none are claimed."""
    places[0].write_bytes(b"Asterisk 22.10.1 built by root\n")

    assert lines(places, FOUND) == [f"ok  pbx: log {places[0]}: is read; it does not show its levels yet"]


def test_packets_in_a_log_are_reported(places: tuple[Path, ...]) -> None:
    """Levels that contain raw packets are reported with the fix; only the end of a log is searched."""
    messages = places[3]
    filler = LINE % b"NOTICE" * (TAIL // len(LINE))
    messages.write_bytes(LINE % b"DEBUG" + filler + LINE % b"ERROR")
    [line] = lines(places, FOUND)

    assert line.startswith(f"--  pbx: log {messages}: is read (error, notice); error adds raw packets")
    assert line.endswith(f"fix: read {CHANNEL} instead")


def test_missing_levels_are_reported_if_certain(places: tuple[Path, ...]) -> None:
    """If Asterisk's files are conclusive: missing levels, a missing module, unusable patterns."""
    security, full = places[2], places[5]
    for path in (security, full):
        path.touch()
    custom = CustomSettings(name=Name("agi"), level=LevelName("WARNING"), pattern=Pattern("x {address}"))
    notices = "--  pbx: notices: no log that is read contains them: attempts hidden from AMI are not seen"
    asked = LogSettings(paths=(security,), custom=(custom,))

    assert lines(places, asked, asterisk=settings({security: {"security"}, full: {"notice"}}))[1:] == [
        notices,
        "NO  pbx: lines of your own (agi): no log that is read contains the level WARNING",
    ]
    assert lines(places, FOUND, asterisk=settings({security: {"security"}, full: {"notice"}}))[2:] == []
    [*_, line] = lines(places, FOUND, asterisk=settings({security: {"notice"}, full: {"notice"}}))
    assert line.startswith("--  pbx: security lines: no log that is read contains them: ")
    both = settings({security: {"security"}, full: {"notice"}}, security=False)
    [*_, line] = lines(places, FOUND, asterisk=both)
    assert line.startswith("--  pbx: security lines: res_security_log, which writes them, is not loaded: ")


def test_an_abandoned_log(places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log without a channel is reported; at ringfence's own path it is an error, since it hides others."""
    monkeypatch.setattr("ringfence.cli.check_logs.OWN", places[:2])
    channels = settings({Path("/var/log/asterisk/other"): {"notice"}})
    why = "no channel of Asterisk's logger.conf writes to it"
    lack = f"{why}; fix: add that of {CHANNEL[15:]}, or remove the file"
    places[3].touch()
    assert lines(places, FOUND, asterisk=channels) == [f"--  pbx: log {places[3]}: {lack}"]
    places[0].touch()
    assert lines(places, FOUND, asterisk=channels) == [f"NO  pbx: log {places[0]}: {lack}"]


def test_configured_logs_are_checked(places: tuple[Path, ...], tmp_path: Path) -> None:
    """A configured path without a file is an error; the other logs are read."""
    log = tmp_path / "log"
    log.write_bytes(LINE % b"NOTICE")

    assert lines(places, LogSettings(paths=(log, tmp_path / "absent"))) == [
        f"ok  pbx: log {log}: is read (notice)",
        f"NO  pbx: log {tmp_path}/absent: does not exist",
    ]


def test_the_running_daemon_reports_its_logs(places: tuple[Path, ...], tmp_path: Path) -> None:
    """While the daemon runs, its own list of logs counts; their faults are among its alarms."""
    log = tmp_path / "log"
    log.write_bytes(LINE % b"NOTICE")
    places[0].touch()
    sources = [
        {"name": f"pbx/log:{log}", "state": "listening"},
        {"name": f"pbx/log:{places[0]}", "state": "unreadable"},
        {"name": "pbx/log", "state": "waiting"},
        {"name": f"branch/log:{places[0]}", "state": "listening"},
    ]

    assert lines(places, FOUND, report={"sources": sources}) == [f"ok  pbx: log {log}: is read (notice)"]


def test_the_journal_takes_journalctl(places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the journal no log file is needed; its users must exist, and so must journalctl."""
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/journalctl")
    read = (
        "messages of asterisk.service and freepbx.service, and of such containers, are read; of users' units"
    )
    assert lines(places, LogSettings(journal=True)) == [
        f"ok  pbx: journal: {read}, those of nobody (see journal_users)"
    ]
    named = LogSettings(journal=True, journal_users=(UserName("root"), UserName("65501")))
    assert lines(places, named) == [f"ok  pbx: journal: {read}, those of root, 65501"]
    missing = LogSettings(journal=True, journal_users=(UserName("no-such-user"),))
    fix = "fix: correct journal_users in [asterisk.logs], or make the user and restart ringfence"
    assert lines(places, missing) == [f"NO  pbx: journal: this host has no user no-such-user; {fix}"]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert lines(places, LogSettings(paths=(), journal=True)) == [
        "NO  pbx: journal: journalctl is not installed; it is part of systemd"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what its owner may not")
def test_a_link_in_asterisks_folder_is_followed_with_its_rights(places: tuple[Path, ...]) -> None:
    """Asterisk's user may let its log lead to a file of root: its levels are not shown."""
    secret = places[1].parent / "secret"
    secret.write_bytes(LINE % b"NOTICE")
    secret.chmod(0o600)
    os.chown(places[0].parent, 65_534, 65_534)
    places[0].symlink_to(secret)

    report = {"sources": [{"name": f"pbx/log:{places[0]}", "state": "listening", "detail": ""}]}

    assert lines(places, FOUND, report=report) == [
        f"ok  pbx: log {places[0]}: is read; it does not show its levels yet"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another user's rights")
def test_the_unit_s_rights_count(places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that root may read but the unit's user may not is reported; root's rights are then restored."""
    monkeypatch.setattr(check_logs, "USER", "nobody")
    before = os.getgroups(), os.geteuid(), os.getegid()
    for path in places:
        path.touch(0o600)
    [line] = lines(places, LogSettings(paths=(places[0],)))
    assert line == f"NO  pbx: log {places[0]}: may not be read by nobody"
    [line] = lines(places, FOUND)
    assert line.startswith(f"NO  pbx: logs: {places[0].parent} may not be read by nobody; fix: ")
    places[3].chmod(0o644)
    [own, other, messages] = lines(places, FOUND)
    assert own == f"NO  pbx: log {places[0]}: may not be read by nobody"
    assert other == f"NO  pbx: log {places[1]}: may not be read by nobody"
    assert messages.startswith(f"ok  pbx: log {places[3]}: is read")

    assert (os.getgroups(), os.geteuid(), os.getegid()) == before
