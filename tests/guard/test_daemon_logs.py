"""The daemon and Asterisk's logs: which ones it finds, their alarms, and the effect of a reload."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk import SECRET
from tests.support.captures import capture
from tests.support.daemon import Guard, ServedAmi, ami_server, until
from tests.support.journal import Journald, why_no_journald

GUESSES = capture("asterisk-22", "wrong-password-register").security_log.read_bytes()  # 3 by 198.18.1.101
THREE = {"guess": {"attempts": 3, "ban": ["1h", "6h"]}}
TEN = {"guess": {"attempts": 10}}
ALARMS = (
    b"[2026-11-20 06:05:02.731] WARNING[7] logger.c: Log queue threshold (1000) exceeded.  Discarding.\n"
    b"[2026-11-20 06:05:02.732] ERROR[7] security_events.c: "
    b"Failed to issue security event of type ChallengeResponseFailed.\n"
)
# The mount over /var/log is a folder of the test, with a log in it.
_OVER_VAR_LOG = 'mount --bind "$0" /var/log; exec "$@"'


@pytest.fixture(name="pbx")
def _pbx() -> Iterator[ServedAmi]:
    """Return a PBX that sends the events of a test."""
    with ami_server() as pbx:
        yield pbx


@pytest.fixture(name="log")
def _log(tmp_path: Path) -> Path:
    """Return an existing, empty log."""
    log = tmp_path / "ringfence"
    log.touch()
    return log


def entry(port: int, **logs: object) -> list[dict[str, object]]:
    """Return the configuration of one Asterisk with these logs."""
    ami = {"port": port, "secret": SECRET}
    return [{"name": "pbx", "ami": ami, "logs": logs, "wire": {"enabled": False}}]


def append(log: Path, data: bytes) -> None:
    """Append data to a log."""
    with log.open("ab") as file:
        file.write(data)


def test_what_reads_logs_is_loaded_when_there_is_one() -> None:
    """A daemon that reads no log loads neither the log parsers nor the log sources."""
    code = (
        "import sys, ringfence.guard.service\n"
        "unused = {'ringfence.parse.log', 'ringfence.parse.custom', 'ringfence.sources.log_file', "
        "'ringfence.sources.journal', 'asyncinotify'}\n"
        "print(sorted(unused & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_nothing_is_loaded_after_ready(tmp_path: Path, pbx: ServedAmi, log: Path) -> None:
    """A daemon that reads a log and bans loads no module after READY: its files may be unreadable then."""
    profiled = {"PYTHONPROFILEIMPORTTIME": "1"}
    with Guard(tmp_path, asterisk=entry(pbx.port, paths=[str(log)]), environ=profiled) as guard:
        until(lambda: guard.source_is("listening"), "the log is followed", 10)
        append(log, GUESSES)
        until(
            lambda: any(
                one["events"] + one["skipped"] for one in guard.status()["sources"] if "/log:" in one["name"]
            ),
            "the log is read",
            10,
        )
        guard.ask("ban", networks=["198.18.2.1"], seconds=60.0)
        guard.reload()
        until(lambda: "event=configuration.loaded" in guard.log, "the configuration is loaded", 10)

    before, after = guard.log.split("event=daemon.ready", 1)
    assert "| ringfence.guard.daemon" in before
    assert re.findall(r"import time:.*\| *(\S+)$", after, re.MULTILINE) == []


def test_asterisks_own_faults_are_alarms(tmp_path: Path, pbx: ServedAmi, log: Path) -> None:
    """If Asterisk logs that its log or its events are incomplete, `status` shows an alarm."""
    with Guard(tmp_path, asterisk=entry(pbx.port, paths=[str(log)])) as guard:
        until(lambda: guard.source_is("listening"), "both sources")
        append(log, ALARMS)
        until(lambda: len(log_alarms(guard)) == 2, "the alarms")
        told = guard.command("status").stdout
        alarms = log_alarms(guard)

    assert "! firewall.dry_run: the memory firewall drops nothing" in told
    assert alarms == {
        ("log.lost", f"pbx/log:{log}", "the log's queue is full, lines are lost"),
        ("log.silenced", f"pbx/log:{log}", "a security event was silenced"),
    }


def log_alarms(guard: Guard) -> set[tuple[str, str, str]]:
    """Return the code, subject and text of each alarm about a log."""
    alarms = guard.status()["alarms"]
    return {(one["code"], one["subject"], one["text"]) for one in alarms if one["code"].startswith("log.")}


def test_a_reload_reads_nothing_twice(tmp_path: Path, pbx: ServedAmi, log: Path) -> None:
    """When a PBX's settings change, one reader continues its log at the same position."""
    with Guard(tmp_path, asterisk=entry(pbx.port, paths=[str(log)]), rules=TEN) as guard:
        until(lambda: guard.source_is("listening"), "both sources")
        append(log, GUESSES)
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        guard.configure(asterisk=entry(pbx.port, paths=[str(log)], timezone="UTC"))
        guard.reload()
        until(lambda: "event=configuration.loaded" in guard.log, "the reload")
        until(lambda: guard.source_is("listening"), "both sources again")
        append(
            log, b"[2026-11-20 06:05:02.731] NOTICE[7] loader.c: nothing\n" + GUESSES.replace(b"101/", b"99/")
        )
        until(lambda: guard.status()["attempts"] >= 6, "new attempts")

        assert guard.status()["attempts"] == 6


@pytest.mark.kernel
def test_a_log_is_found_by_itself(tmp_path: Path) -> None:
    """Without a logs setting the daemon finds ringfence's own log channel, and its lines ban without AMI."""
    folder = tmp_path / "var-log"
    (folder / "ringfence").mkdir(parents=True)
    log = folder / "ringfence" / "ringfence"
    in_its_own = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OVER_VAR_LOG, str(folder)]
    with Guard(tmp_path, prefix=in_its_own, asterisk=entry(1), rules=THREE) as guard:
        until(lambda: guard.states().get("pbx/log") == "waiting", "the want of a log")
        assert "contrib/asterisk/ringfence.logger.conf" in guard.command("status").stdout.replace("\n", "")
        append(log, b"Asterisk 22.10.1 built by root\n")
        until(lambda: guard.states().get("pbx/log:/var/log/ringfence/ringfence") == "listening", "the log")
        assert "pbx/log" not in guard.states()
        append(log, GUESSES)
        until(lambda: guard.banned() == {"198.18.1.101"}, "the ban")


def test_a_line_of_a_configured_pattern_becomes_an_event(tmp_path: Path, pbx: ServedAmi, log: Path) -> None:
    """A pattern of the configuration turns a matching line into an event."""
    custom = [{"name": "guests", "pattern": "guest {any} from {address} refused"}]
    with Guard(tmp_path, asterisk=entry(pbx.port, paths=[str(log)], custom=custom)) as guard:
        until(lambda: guard.source_is("listening"), "both sources")
        append(log, b"[2026-11-20 06:05:02.731] NOTICE[7] Ext. s: guest 100 from 198.18.1.9 refused\n")
        until(lambda: guard.status()["sources"][1]["events"] == 1, "the event")


@pytest.mark.skipif(bool(why_no_journald()), reason=why_no_journald())
def test_the_journal_bans_and_is_read_once(tmp_path: Path) -> None:
    """With `journal`, Asterisk's lines in a real journal ban, and a restarted daemon continues after them."""
    lines = [line.partition(b"] ")[2] for line in GUESSES.split(b"\n") if b"SECURITY[" in line]
    with Journald(tmp_path / "journal") as journald:
        asterisk = entry(1, paths=[], journal=True)
        environ = {"PATH": journald.path_for(tmp_path)}
        with Guard(tmp_path, asterisk=asterisk, rules=TEN, environ=environ) as guard:
            until(lambda: guard.states()["pbx/journal"] == "listening", "the journal")
            journald.write(*lines)
            until(lambda: guard.status()["attempts"] == 3, "the attempts")
            guard.stop()
            guard.start()
            until(lambda: guard.states()["pbx/journal"] == "listening", "the journal again")
            guard.configure(rules=THREE)
            guard.reload()
            until(lambda: "event=configuration.loaded" in guard.log, "the reload")
            assert guard.status()["attempts"] == 0
            journald.write(*lines)
            until(lambda: guard.banned() == {"198.18.1.101"}, "the ban")
