"""Reader of one source: its events, and its totals."""

import gzip
from collections import Counter
from pathlib import Path

from tests.features.replay.logs import (
    CHALLENGE,
    FAILED,
    START,
    SUCCESS,
    guesses,
    inspected,
    refused,
    replay_input,
    security,
)
from tests.support.captures import capture

from ringfence.features.replay.files import BLOCK, Batch, ReplayInput, read_batches
from ringfence.parse.custom import Custom
from ringfence.values.event import SecurityEvent


def events(batches: list[Batch]) -> list[SecurityEvent]:
    """Return the events of all batches."""
    return [event for batch in batches for event in batch.events]


def senders(batches: list[Batch]) -> dict[str, int]:
    """Return the number of events of each address."""
    return dict(Counter(str(event.remote.address) for event in events(batches)))


def test_a_log_is_read_in_batches(tmp_path: Path) -> None:
    """Every line, byte and event is counted once."""
    data = b"".join(guesses(50, START + n * 100, f"192.0.2.{n}") for n in range(40))
    file = inspected(tmp_path, "log", data)
    batches = list(read_batches(replay_input(file)))
    assert len(batches) > len(data) // BLOCK
    assert sum(batch.lines for batch in batches) == data.count(b"\n") == 4000
    assert sum(batch.read for batch in batches) == file.size
    kinds = Counter(str(event.kind) for event in events(batches))
    assert kinds[FAILED] == 2000
    assert kinds[CHALLENGE] == 2000
    assert senders(batches) == {f"192.0.2.{n}": 100 for n in range(40)}


def test_rotated_files_go_on_as_one(tmp_path: Path) -> None:
    """A session may begin in one file and end in the next, compressed or not."""
    one = inspected(tmp_path, "log.1.gz", gzip.compress(security("InvalidAccountID", START, session="s")))
    two = inspected(
        tmp_path, "log", security(CHALLENGE, START + 1, session="s") + security(SUCCESS, START + 2)
    )
    batches = list(read_batches(replay_input([one, two])))
    assert [event.kind for event in events(batches)] == ["InvalidAccountID", CHALLENGE, SUCCESS]
    assert sum(batch.lines for batch in batches) == 3


def test_each_file_ends_its_last_message(tmp_path: Path) -> None:
    """A message that a file cuts short does not continue in the next file; its line is counted."""
    half = security(FAILED, START)[:200]
    one = inspected(tmp_path, "log.1", security(FAILED, START) + half)
    two = inspected(tmp_path, "log", security(FAILED, START + 1))
    batches = list(read_batches(replay_input([one, two])))
    assert [event.time for event in events(batches)] == [START, START + 1]
    assert sum(batch.lines for batch in batches) == 3


def test_a_line_beyond_the_limit(tmp_path: Path) -> None:
    """A line of several blocks is one line without an event, and the lines around it are parsed."""
    data = refused() + b"x" * (3 * BLOCK) + b"\n" + refused(START + 1)
    batches = list(read_batches(replay_input(inspected(tmp_path, "log", data))))
    assert len(events(batches)) == 2
    assert sum(batch.lines for batch in batches) == 3


def test_a_recording(tmp_path: Path) -> None:
    """A recording is read with or without a greeting; its lines are those of its packets."""
    recorded = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
    for data in (recorded, b"Asterisk Call Manager/11.0.0\r\n" + recorded):
        batches = list(read_batches(replay_input(inspected(tmp_path, "tap", data), "ami")))
        assert Counter(event.kind for event in events(batches)) == {CHALLENGE: 3, FAILED: 3}
        assert {event.source.name for event in events(batches)} == {"ami"}
        assert sum(batch.lines for batch in batches) == data.count(b"\n")


def test_an_event_of_chan_sip_at_the_end_of_a_recording(tmp_path: Path) -> None:
    """An event that waits for a following one is returned when the recording ends."""
    recorded = capture("asterisk-16", "chan-sip-wrong-password").ami.read_bytes()
    batches = list(read_batches(replay_input(inspected(tmp_path, "tap", recorded), "ami")))
    assert events(batches)[-1].kind == "InvalidPassword"


def test_tampered_messages_are_counted(tmp_path: Path) -> None:
    """Tampered messages are counted in logs and recordings."""
    recorded = capture("asterisk-22", "user-carries-crlf-event")
    for path, witness in ((recorded.ami, "ami"), (recorded.security_log, "log:x")):
        batches = list(read_batches(replay_input(inspected(tmp_path, "file", path.read_bytes()), witness)))
        assert sum(batch.tampered for batch in batches) > 0
        assert set(senders(batches)) == {str(recorded.source)}


def test_a_file_that_ends_too_early_is_a_warning(tmp_path: Path) -> None:
    """The existing part is read, and the file is named."""
    packed = gzip.compress(b"".join(refused(START + n) for n in range(5000)))
    file = inspected(tmp_path, "log.gz", packed[: len(packed) // 2])
    batches = list(read_batches(replay_input(file)))
    assert len(events(batches)) > 1000
    assert [batch.warnings for batch in batches if batch.warnings] == [
        (f"{file.path}: is truncated; the existing part was read",)
    ]


def test_a_wrong_time_zone_is_a_warning(tmp_path: Path) -> None:
    """If adjacent notices and events differ by hours, each file has one warning."""
    both = [security(FAILED, START + n * 60) + refused(START + n * 60 + 1) for n in range(2000)]
    late = [security(FAILED, START + n * 60) + refused(START + n * 60 + 3601) for n in range(2000)]
    for lines, number in ((both, 0), (late, 1)):
        file = inspected(tmp_path, "log", b"".join(lines))
        warnings = [warning for batch in read_batches(replay_input(file)) for warning in batch.warnings]
        assert len(warnings) == number
        assert all(warning.startswith(f"{file.path}: ") and "--timezone" in warning for warning in warnings)


def test_the_administrators_own_lines(tmp_path: Path) -> None:
    """A custom pattern applies to past logs too."""
    line = b"[2026-11-20 06:05:22] NOTICE[1] app_x.c: Bad caller from 192.0.2.9, sorry\n"
    custom = Custom.compile("Bad caller from {address}, sorry", file="app_x.c")
    plain = replay_input(inspected(tmp_path, "log", line))
    own = ReplayInput(plain.source, plain.files, plain.timezone, (custom,))
    assert senders(list(read_batches(plain))) == {}
    assert senders(list(read_batches(own))) == {"192.0.2.9": 1}


FAILED_LOGIN = (
    b"Event: InvalidPassword\r\nPrivilege: security,all\r\nEventTV: 2026-11-20T06:05:00.256+0000\r\n"
    b"Severity: Error\r\nService: AMI\r\nEventVersion: 1\r\nAccountID: guard\r\nSessionID: 0x7f8db00035f0\r\n"
    b"LocalAddress: IPV4/TCP/127.0.0.1/5038\r\nRemoteAddress: IPV4/TCP/198.51.100.4/51108\r\n\r\n"
)


def test_a_failed_manager_login_in_a_recording(tmp_path: Path) -> None:
    """The events after it count, and one warning explains how they could be forged."""
    recorded = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
    plain, failed = (
        list(read_batches(replay_input(inspected(tmp_path, name, data))))
        for name, data in {"plain.ami": recorded, "failed.ami": FAILED_LOGIN + recorded}.items()
    )
    assert events(failed)[1:] == events(plain)
    assert not any(event.forgeable for event in events(failed))
    assert [batch.warnings for batch in plain if batch.warnings] == []
    [[warning]] = [batch.warnings for batch in failed if batch.warnings]
    assert "AMI over HTTP" in warning


def test_a_recording_that_has_lost_its_carriage_returns(tmp_path: Path) -> None:
    """An editor or a paste leaves LF alone; the events are the same."""
    recorded = capture("asterisk-22", "wrong-password-register").ami.read_bytes().replace(b"\r\n", b"\n")
    batches = list(read_batches(replay_input(inspected(tmp_path, "tap", recorded), "ami")))
    assert Counter(event.kind for event in events(batches)) == {CHALLENGE: 3, FAILED: 3}
