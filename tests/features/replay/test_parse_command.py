"""``ringfence parse``: how each line of a log is parsed, for scripts and for people."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.captures import capture
from typer.testing import CliRunner

from ringfence.cli.app import app

NOTICE = "[Nov 20 06:05:22] NOTICE[1] chan_sip.c: "
GUESS = NOTICE + "Registration from '<sip:bob@h>' failed for '192.0.2.7:5060' - Wrong password\n"
NEWS = NOTICE + "Registration from '<sip:bob@h>' failed for '192.0.2.7' - No \x1b[31mluck\n"
PLAIN = NOTICE + "Peer 'bob' is now Reachable. (21ms / 2000ms)\n"
OWN = "[Nov 20 06:05:22] NOTICE[1] app_x.c: Bad caller 7 from 192.0.2.9:5060, sorry\n"


def parse(*arguments: str, text: str | bytes = "") -> tuple[int, str, str]:
    """Run the command; return its exit code and its output."""
    result = CliRunner().invoke(app, ["parse", *arguments], input=text)
    return result.exit_code, result.stdout, result.stderr


def objects(*arguments: str, text: str | bytes = "") -> list[dict[str, Any]]:
    """Return the objects of ``--json``."""
    code, out, err = parse("--json", *arguments, text=text)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.split("\n")[:-1]]


def test_one_object_for_each_line() -> None:
    """Each line has its number; an event has its values, any other line its reason."""
    told = objects("-", text=GUESS + PLAIN + NEWS)
    assert [one["line"] for one in told] == [1, 2, 3]
    names = ("kind", "address", "account", "service", "session", "why", "port", "transport", "tampered")
    assert [told[0][name] for name in names] == [
        "InvalidPassword",
        "192.0.2.7",
        "bob",
        "SIP",
        "",
        None,
        5060,
        "unknown",
        False,
    ]
    nobody = dict.fromkeys(("kind", "address", "account", "service", "session", "alarm"))
    assert told[1:] == [
        {"line": 2, **nobody, "why": "not evidence"},
        {"line": 3, **nobody, "why": "unknown wording"},
    ]


def test_lines_for_people_and_the_numbers() -> None:
    """Each line shows the event or the reason; then follow the totals."""
    code, out, err = parse("-", text=GUESS + GUESS + PLAIN)
    assert (code, err) == (0, "")
    assert out.split("\n") == [
        "      1  InvalidPassword  192.0.2.7  SIP  account bob",
        "      2  InvalidPassword  192.0.2.7  SIP  account bob",
        "      3  -  not evidence",
        "3 lines, 2 events of 1 address",
        "        2  InvalidPassword",
        "        1  not evidence",
        "",
    ]


def test_only_what_was_not_understood() -> None:
    """--unparsed shows the lines that look like evidence, with control characters escaped."""
    code, out, err = parse("--unparsed", "-", text=GUESS + PLAIN + NEWS + PLAIN)
    assert (code, err) == (0, "")
    assert out.split("\n") == [
        "      3  -  unknown wording",
        "         " + NEWS[:-1].replace("\x1b", "\\x1b"),
        "",
    ]


@pytest.mark.parametrize("option", ["--json", "--unparsed"])
def test_options_about_lines_do_not_fit_a_summary(option: str) -> None:
    """No line is shown, so an option that chooses or changes lines is a usage error, and not ignored."""
    code, out, err = parse("--summary", option, "-", text=GUESS)

    assert (code, out) == (2, "")
    assert "leave out --json and --unparsed" in " ".join(err.split())


def test_only_the_numbers() -> None:
    """--summary shows no line."""
    assert (
        parse("--summary", "-", text=GUESS)[1] == "1 line, 1 event of 1 address\n        1  InvalidPassword\n"
    )


PACKS = [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]


@pytest.mark.parametrize(("suffix", "pack"), PACKS)
def test_files_plain_and_packed(tmp_path: Path, suffix: str, pack: Any) -> None:  # noqa: ANN401 - three functions
    """Compressed logs are read directly; a date without year is not later than the file's time."""
    recorded = capture("asterisk-22", "typo-then-good")
    file = tmp_path / f"log{suffix}"
    file.write_bytes(pack(recorded.security_log.read_bytes()))
    told = objects(str(file))
    assert [one["kind"] for one in told] == [
        "ChallengeSent",
        "ChallengeResponseFailed",
        "ChallengeSent",
        "SuccessfulAuth",
    ]
    assert {one["address"] for one in told} == {str(recorded.source)}


def test_many_lines_in_many_reads(tmp_path: Path) -> None:
    """Line numbers and shown lines are right beyond one read."""
    file = tmp_path / "log"
    file.write_text((GUESS * 9 + NEWS) * 2000)
    told = objects(str(file))
    assert [one["line"] for one in told] == list(range(1, 20_001))
    assert parse("--unparsed", str(file))[1].count("No \\x1b[31mluck") == 2000


def test_a_pattern_is_tried() -> None:
    """A pattern is tried on every level and file; if it fits no line, this is reported."""
    told = objects("--pattern", "Bad caller {any} from {address}, {any}", "-", text=OWN + PLAIN)
    assert [(one["address"], one["service"], one["acl_name"]) for one in told[:1]] == [
        ("192.0.2.9", "dialplan", "pattern")
    ]
    assert told[1]["why"] == "not evidence"
    code, _, err = parse("--pattern", "Good caller from {address}", "-", text=OWN)
    assert (code, err) == (1, "the pattern fits no line\n")


@pytest.mark.parametrize("pattern", ["no address", "{address} {address}", "{any}{address}", "{address}{any}"])
def test_an_invalid_pattern(pattern: str) -> None:
    """An invalid pattern is wrong usage, with the reason."""
    code, _, err = parse("--pattern", pattern, "-")
    assert code == 2
    assert "{address}" in err


def test_the_time_zone_of_the_log() -> None:
    """--timezone sets the zone of the log; an unknown zone is wrong usage."""
    line = "[2026-11-20 07:05:22] " + GUESS.partition("] ")[2]
    assert [one["time"] for one in objects("--timezone", "Europe/Berlin", "-", text=line)] == [1795154722.0]
    assert parse("--timezone", "Mars/Base", "-")[0] == 2


@pytest.mark.parametrize(
    ("paths", "counts"), [("", True), ("paths = ['{}']", True), ("paths = ['/x']", False)]
)
def test_the_configured_time_zone(tmp_path: Path, paths: str, *, counts: bool) -> None:
    """The zone of the log's PBX counts, or of the only PBX if no paths are configured."""
    log, config = tmp_path / "log", tmp_path / "ringfence.toml"
    log.write_text("[2026-11-20 07:05:22] " + GUESS.partition("] ")[2], "utf-8")
    config.write_text(f"[[asterisk]]\n[asterisk.logs]\ntimezone = 'Asia/Kolkata'\n{paths.format(log)}\n")
    here = objects("--config", str(tmp_path / "absent"), str(log))[0]["time"]

    [one] = objects("--config", str(config), str(log))
    assert one["time"] == (1795138522.0 if counts else here)


@pytest.mark.parametrize("name", ["log.1", "log-20261121", "log.2.gz"])
def test_the_configured_time_zone_of_a_rotated_log(tmp_path: Path, name: str) -> None:
    """A part that logrotate has renamed, and perhaps compressed, has the zone of its log."""
    config, text = tmp_path / "ringfence.toml", "[2026-11-20 07:05:22] " + GUESS.partition("] ")[2]
    packed = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (tmp_path / name).write_bytes(packed)
    logs = f"timezone = 'Asia/Kolkata'\npaths = ['{tmp_path / 'log'}']\n"
    config.write_text(f"[[asterisk]]\n[asterisk.logs]\n{logs}")

    [one] = objects("--config", str(config), str(tmp_path / name))
    assert one["time"] == 1795138522.0


def test_a_missing_file(tmp_path: Path) -> None:
    """The error has the name and the reason."""
    code, out, err = parse(str(tmp_path / "absent"))
    assert (code, out) == (1, "")
    assert err == f"{tmp_path / 'absent'}: No such file or directory\n"


def test_a_broken_archive(tmp_path: Path) -> None:
    """A broken archive is an error without a traceback."""
    for name in ("a.gz", "a.xz"):
        (tmp_path / name).write_bytes(b"not packed")
        code, _, err = parse(str(tmp_path / name))
        assert code == 1
        assert err.startswith(str(tmp_path / name))


def test_a_truncated_archive(tmp_path: Path) -> None:
    """The existing part is shown, and the error names the file."""
    packed = gzip.compress((GUESS * 5).encode())
    (tmp_path / "log").write_bytes(packed[:-6])
    code, out, err = parse("--summary", str(tmp_path / "log"))
    assert code == 1
    assert "InvalidPassword" in out
    assert err == f"{tmp_path / 'log'}: is truncated; the existing part was read\n"


def test_a_pipe(tmp_path: Path) -> None:
    """A named pipe is read like standard input."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as writer:
        writer.submit(pipe.write_text, GUESS)
        assert [one["kind"] for one in objects(str(pipe))] == ["InvalidPassword"]


def test_output_that_is_closed_early(tmp_path: Path) -> None:
    """A pager or `head` that stops reading is no error of the log."""
    file = tmp_path / "log"
    file.write_text(GUESS * 20_000)
    command = [sys.executable, "-m", "ringfence", "parse", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_binary_lines() -> None:
    """Each line has its object, whatever bytes it contains."""
    told = objects("-", text=b"\xff\xfe\n\x00\n{\n[[[\n" + GUESS.encode())
    assert [one["kind"] for one in told] == [None, None, None, None, "InvalidPassword"]


@pytest.mark.parametrize("options", [(), ("--json",), ("--summary",), ("--unparsed",)])
@pytest.mark.parametrize("text", ["a poem\nin two lines\n", "\0\1\2", "x\n" * 200_000])
def test_a_file_that_is_no_log(options: tuple[str, ...], text: str) -> None:
    """A file that is not a log gives one error, however long it is."""
    code, out, err = parse(*options, "-", text=text)

    assert (code, out) == (1, "")
    assert err.startswith("- is not a log of Asterisk: none of its first ")
    assert err.count("\n") == 1


def test_a_log_may_begin_with_anything() -> None:
    """Lines before the first line of Asterisk are shown with it."""
    code, out, err = parse("-", text="cut off\n" * 3 + GUESS)

    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["1", "2", "3", "4"]
