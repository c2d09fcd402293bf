"""``check`` on the logs: which are read, what they carry, and what is in none of them."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from ringfence.cli import check_logs
from ringfence.cli.check_logs import TAIL, log_findings
from ringfence.config import AsteriskSettings, CustomSettings, LogSettings
from ringfence.host.asterisk import Asterisk
from ringfence.sources.logs import PLACES
from ringfence.values import LevelName, Name, Pattern

CHANNEL = "the channel of contrib/asterisk/ringfence.logger.conf"
LINE = b"[2026-11-20 06:05:02.730] %b[7] x.c: anything\n"


@pytest.fixture(name="places")
def _places() -> Iterator[tuple[Path, ...]]:
    """Give the places that there are, in a folder that everybody may look into; nothing is there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for parent in {place.parent for place in PLACES}:
            (folder / parent.name).mkdir()
        yield tuple(folder / place.parent.name / place.name for place in PLACES)


def lines(
    places: tuple[Path, ...],
    logs: LogSettings,
    *,
    report: Mapping[str, Any] | None = None,
    asterisk: Asterisk | None = None,
    alone: bool = True,
) -> list[str]:
    """Give what is said of these logs of a PBX."""
    pbx = AsteriskSettings(name=Name("pbx"), logs=logs)
    found = log_findings(pbx, report, asterisk, alone=alone, places=places)
    return [finding.line for finding in found]


def settings(channels: Mapping[Path, set[str]], **more: Any) -> Asterisk:  # noqa: ANN401 - what it has
    """Give what Asterisk's files say of its channels."""
    given = {path: frozenset(levels) for path, levels in channels.items()}
    good = Asterisk(channels=given, security=True, iax_silent=False, gate=None, unread=())
    return evolve(good, **more)


FOUND = LogSettings()


def test_nothing_is_found(places: tuple[Path, ...]) -> None:
    """Without a log that is wrong, since callers can hide; the mend and the way to mean it are told."""
    assert lines(places, FOUND) == [
        f"NO  pbx: logs: none is found; mend: {CHANNEL}, or paths in [asterisk.logs] ([] for none)"
    ]


def test_none_is_wanted(places: tuple[Path, ...]) -> None:
    """Who switched logs off is told what that hides, and nothing is wrong."""
    places[0].touch()
    told = "--  pbx: logs: none is to be read: who hides from AMI is not seen"

    assert lines(places, LogSettings(paths=())) == [told]
    assert lines(places, LogSettings(paths=()), alone=False) == [told]


def test_beside_others_nothing_is_found(places: tuple[Path, ...]) -> None:
    """With several PBXs each needs its paths, or a word that it has none."""
    places[0].touch()
    [line] = lines(places, FOUND, alone=False)

    assert line.startswith("NO  pbx: logs: with several [[asterisk]] none is found by itself; name its paths")


def test_the_own_channel_is_right(places: tuple[Path, ...]) -> None:
    """A log with the levels that tell and no packets is ok, by Asterisk's files or by its own lines."""
    own = places[0]
    own.write_bytes(LINE % b"SECURITY" + LINE % b"NOTICE")
    places[3].touch()
    right = [f"ok  pbx: log {own}: is read (notice, security)"]

    assert lines(places, FOUND) == right
    assert lines(places, FOUND, asterisk=settings({own: {"notice", "security"}})) == right
    assert lines(places, FOUND, asterisk=settings({own: {"error"}}, unread=("logger.conf",))) == right


def test_a_new_log_tells_nothing_yet(places: tuple[Path, ...]) -> None:
    """Where neither the files nor the log tell the levels, nothing is made up."""
    places[0].write_bytes(b"Asterisk 22.10.1 built by root\n")

    assert lines(places, FOUND) == [f"ok  pbx: log {places[0]}: is read; nothing in it tells its levels yet"]


def test_packets_in_a_log_are_told(places: tuple[Path, ...]) -> None:
    """Levels with which callers' text comes in are named, with the mend; only a log's end is looked at."""
    messages = places[3]
    filler = LINE % b"NOTICE" * (TAIL // len(LINE))
    messages.write_bytes(LINE % b"DEBUG" + filler + LINE % b"ERROR")
    [line] = lines(places, FOUND)

    assert line.startswith(f"--  pbx: log {messages}: is read (error, notice); with error come packets")
    assert line.endswith(f"mend: {CHANNEL}")


def test_what_is_in_no_log_is_told_where_that_is_sure(places: tuple[Path, ...]) -> None:
    """By Asterisk's files: levels that no log has, a module that is missing, patterns that fit nothing."""
    security, full = places[2], places[5]
    for path in (security, full):
        path.touch()
    custom = CustomSettings(name=Name("agi"), level=LevelName("WARNING"), pattern=Pattern("x {address}"))
    notices = "--  pbx: notices: no log that is read has them: who hides from AMI is not seen"
    asked = LogSettings(paths=(security,), custom=(custom,))

    assert lines(places, asked, asterisk=settings({security: {"security"}, full: {"notice"}}))[1:] == [
        notices,
        "NO  pbx: lines of your own (agi): no log that is read has the level WARNING",
    ]
    assert lines(places, FOUND, asterisk=settings({security: {"security"}, full: {"notice"}}))[2:] == []
    [*_, line] = lines(places, FOUND, asterisk=settings({security: {"notice"}, full: {"notice"}}))
    assert line.startswith("--  pbx: security lines: no log that is read has them: ")
    both = settings({security: {"security"}, full: {"notice"}}, security=False)
    [*_, line] = lines(places, FOUND, asterisk=both)
    assert line.startswith("--  pbx: security lines: res_security_log is not loaded, which writes them: ")


def test_a_log_that_nobody_writes_to(places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """An old file is told; in ringfence's own place it is wrong, since it keeps others from being read."""
    monkeypatch.setattr("ringfence.sources.logs.OWN", places[:2])
    channels = settings({Path("/var/log/asterisk/other"): {"notice"}})
    told = (
        f"no channel of Asterisk's logger.conf writes to it; mend: that of {CHANNEL[15:]}, or remove the file"
    )
    places[3].touch()
    assert lines(places, FOUND, asterisk=channels) == [f"--  pbx: log {places[3]}: {told}"]
    places[0].touch()
    assert lines(places, FOUND, asterisk=channels) == [f"NO  pbx: log {places[0]}: {told}"]


def test_named_logs_are_looked_at(places: tuple[Path, ...], tmp_path: Path) -> None:
    """A path that is not there is wrong; the others are read."""
    log = tmp_path / "log"
    log.write_bytes(LINE % b"NOTICE")

    assert lines(places, LogSettings(paths=(log, tmp_path / "absent"))) == [
        f"ok  pbx: log {log}: is read (notice)",
        f"NO  pbx: log {tmp_path}/absent: is not there",
    ]


def test_the_running_daemons_word_counts(places: tuple[Path, ...], tmp_path: Path) -> None:
    """Where the daemon runs, what it listens to is what is read; its troubles stand with its own line."""
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
    """With the journal no file is missed; without its program it cannot be read."""
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/journalctl")
    assert lines(places, LogSettings(journal=True)) == [
        "ok  pbx: journal: what asterisk.service and freepbx.service say"
    ]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert lines(places, LogSettings(paths=(), journal=True)) == [
        "NO  pbx: journal: there is no journalctl; it is part of systemd"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another user's rights")
def test_the_unit_s_rights_count(places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What root may read and the unit's user may not is told so, and the rights are root's again after."""
    monkeypatch.setattr(check_logs, "USER", "nobody")
    before = os.getgroups(), os.geteuid(), os.getegid()
    for path in places:
        path.touch(0o600)
    [line] = lines(places, LogSettings(paths=(places[0],)))
    assert line == f"NO  pbx: log {places[0]}: may not be read by nobody"
    [line] = lines(places, FOUND)
    assert line.startswith(f"NO  pbx: logs: what is in {places[0].parent} may not be read by nobody; mend: ")
    places[3].chmod(0o644)
    [own, other, messages] = lines(places, FOUND)
    assert own == f"NO  pbx: log {places[0]}: may not be read by nobody"
    assert other == f"NO  pbx: log {places[1]}: may not be read by nobody"
    assert messages.startswith(f"ok  pbx: log {places[3]}: is read")

    assert (os.getgroups(), os.geteuid(), os.getegid()) == before
