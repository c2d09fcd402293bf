"""A log that cannot be written: the daemon guards and records as before, and reports the loss."""

import os
from pathlib import Path
from time import time

import pytest
from tests.support.captures import capture
from tests.support.daemon import Guard, ami_server, until
from tests.support.faults import LOGS
from tests.support.recorded import active

from ringfence.guard.process import LogStream
from ringfence.store.database import Store

CLAIMED = capture("asterisk-22", "wrong-password-register").ami.read_bytes()  # 3 by 198.18.1.101
GUESSES = CLAIMED.replace(b"/UDP/", b"/TCP/")  # by TCP an address is proven


@pytest.mark.parametrize("way", LOGS)
def test_the_daemon_needs_no_log(tmp_path: Path, way: str) -> None:
    """It starts, bans by a rule and by hand, records both, raises an alarm, and answers at once."""
    with ami_server() as pbx, LOGS[way]() as log:
        rules = {"guess": {"attempts": 3, "ban": ["1h", "6h"]}}
        guard = Guard(tmp_path, ami={"port": pbx.port}, rules=rules)
        guard.start(log=log)
        try:
            until(lambda: guard.source_is("listening"), "the source listens")
            until(lambda: pbx.server._listeners, "the PBX is listened to")
            pbx.send(GUESSES)
            until(lambda: guard.banned() == {"198.18.1.101"}, "the ban")
            guard.must("ban", "198.18.0.7")
            until(lambda: "log.unwritable" in str(guard.ask("alarms")), "the alarm")
            assert guard.running
            guard.kill()
        finally:
            guard.__exit__()
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        assert {str(ban.network) for ban in active(store, time())} == {"198.18.1.101/32", "198.18.0.7/32"}


def test_a_log_that_works_again() -> None:
    """Lost lines are counted; a later line begins a new line, and the error ends."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    log = LogStream(writer)
    long = "x" * 5_000 + "\n"
    while not log.error:
        log.write(long)
    assert (log.lost, log.error) == (1, "the log cannot be written, and its lines are lost: its reader hangs")
    read = bytearray()
    while len(part := os.read(reader, 1 << 20)) == 1 << 20:
        read += part
    read += part
    log.write("again\n")
    read += os.read(reader, 1 << 20)

    assert (log.error, log.lost) == ("", 1)
    assert read.endswith(b"x\nagain\n")
    os.close(reader)
    log.write("nobody reads\n")
    assert (log.lost, log.error.rpartition(": ")[2]) == (2, "Broken pipe")
    os.close(writer)
